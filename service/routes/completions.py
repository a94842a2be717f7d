"""POST /inpaint, /upscale and /colorize: asking for images of which something is known."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from models.card import MODEL_NAME
from models.guidance import MAX_WEIGHT
from models.samplers.sampler import MAX_SEED
from service.access.auth import caller_of
from service.answering.leaving import while_there
from service.answering.views import PNG
from service.answering.waiting import answer, place, wanted
from service.asking.pictures import Fit
from service.asking.reading import IN_FORMS, Body, once_of, read_with_files
from service.asking.schemas import (
    MAX_DEADLINE_SECONDS,
    ColorizeBody,
    InpaintBody,
    InpaintFields,
    SampleBody,
    UpscaleBody,
)
from service.asking.uploads import Asked
from service.context import context_of
from service.jobs import Accepted
from service.routes.samples import ANSWERS, HEADERS
from worker.queue.priority import Priority
from worker.queue.requests import MAX_FRAMES

router = APIRouter(tags=["sampling"])

_FIELDS: dict[str, Any] = {
    "model": {"type": "string", "pattern": MODEL_NAME, "description": "Name of a model.", "examples": ["mnist"]},
    "version": {"type": "integer", "minimum": 1, "description": "Version of the model."},
    "count": {"type": "integer", "minimum": 1, "default": 16, "description": "How many completions."},
    "seed": {"type": "integer", "minimum": 0, "maximum": MAX_SEED, "description": "Drawn at random by default."},
    "sampler": {
        "type": "string",
        "contentMediaType": "application/json",
        "description": "The sampler of POST /samples, as JSON.",
        "examples": [IN_FORMS["sampler"]],
    },
    "label": {"type": "string", "description": "As in POST /samples.", "examples": ["7"]},
    "labels": {
        "type": "string",
        "contentMediaType": "application/json",
        "description": "The labels of POST /samples, as JSON.",
        "examples": [IN_FORMS["labels"]],
    },
    "guidance": {
        "type": "number",
        "minimum": 0,
        "maximum": MAX_WEIGHT,
        "description": "As in POST /samples.",
        "examples": [1.5],
    },
    "guidance_interval": {
        "type": "string",
        "contentMediaType": "application/json",
        "description": "The guidance_interval of POST /samples, as JSON.",
        "examples": [IN_FORMS["guidance_interval"]],
    },
    "frames": {
        "type": "integer",
        "minimum": 0,
        "maximum": MAX_FRAMES,
        "default": 0,
        "description": "As in POST /samples.",
    },
    "priority": {"type": "string", "enum": list(Priority), "default": "normal", "description": "As in POST /samples."},
    "deadline_seconds": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": MAX_DEADLINE_SECONDS,
        "description": "As in POST /samples.",
        "examples": [60],
    },
    "webhook": {
        "type": "string",
        "contentMediaType": "application/json",
        "description": "The webhook of POST /samples, as JSON.",
        "examples": [IN_FORMS["webhook"]],
    },
}
_FIT: dict[str, Any] = {
    "type": "string",
    "enum": list(Fit),
    "default": "error",
    "description": "What happens to a picture that is not of the model's size.",
}
_PICTURE: dict[str, Any] = {"type": "string", "format": "binary", "description": "The picture."}
_MASK: dict[str, Any] = {
    "type": "string",
    "format": "binary",
    "description": "White = repaint, black or transparent = keep; of the picture's size or the model's. Without it, "
    "what is transparent in the picture is repainted.",
}


def _or_empty(field: dict[str, Any]) -> dict[str, Any]:
    if field.get("format") == "binary":
        return field
    said = ("description", "default", "examples")
    kind = {key: value for key, value in field.items() if key not in said}
    return {"anyOf": [kind, {"const": ""}], **{key: field[key] for key in said if key in field}}


def _described(body: type[SampleBody], **fields: Any) -> dict[str, Any]:
    """What the OpenAPI document says of a request: a form of these fields and those of all, or JSON."""
    form = {
        "type": "object",
        "description": "A field or a file that is empty is one that is left out.",
        "required": ["image"],
        "properties": {name: _or_empty(field) for name, field in (_FIELDS | fields).items()},
        "additionalProperties": False,
    }
    content = {
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}},
    }
    return {"requestBody": {"required": True, "content": content}, "parameters": HEADERS}


@router.post(
    "/inpaint",
    operation_id="createInpainting",
    summary="Ask to fill in the masked part of a picture",
    responses=ANSWERS,
    status_code=202,
    openapi_extra=_described(InpaintBody, fit=_FIT, image=_PICTURE, mask=_MASK),
)
async def inpaint(request: Request) -> Response:
    """Asks to fill in the white part of a mask, or what is transparent in the picture; everything else is kept.

    The picture and its mask are files of a form, or base64 in JSON. The picture is turned as its EXIF data say,
    converted to the model's channels, and brought to the model's size as `fit` says; all pixels of that which are not
    repainted come back exactly.
    """
    read = partial(read_with_files, request, InpaintBody, InpaintFields, ("image", "mask"))
    return await _complete(request, read, Asked.UNMASKED)


@router.post(
    "/upscale",
    operation_id="createUpscaling",
    summary="Ask to enlarge a small picture",
    responses=ANSWERS,
    status_code=202,
    openapi_extra=_described(UpscaleBody, image=_PICTURE),
)
async def upscale(request: Request) -> Response:
    """Asks to enlarge a small picture to the model's size: the mean of each block of a result is the given pixel.

    Both sides of the picture are those of the model's images over the same whole number, at least 2. It is a file of a
    form, or base64 in JSON, turned as its EXIF data say and converted to the model's channels.
    """
    read = partial(read_with_files, request, UpscaleBody, SampleBody, ("image",))
    return await _complete(request, read, Asked.SMALL)


@router.post(
    "/colorize",
    operation_id="createColorization",
    summary="Ask to colour a grey picture",
    responses=ANSWERS,
    status_code=202,
    openapi_extra=_described(ColorizeBody, fit=_FIT, image=_PICTURE),
)
async def colorize(request: Request) -> Response:
    """Asks to colour a grey picture: the mean of a result's red, green and blue is everywhere the given value.

    For models of three channels. The picture is a file of a form, or base64 in JSON, turned as its EXIF data say and
    brought to the model's size as `fit` says.
    """
    read = partial(read_with_files, request, ColorizeBody, InpaintFields, ("image",))
    return await _complete(request, read, Asked.GREY)


async def _complete(
    request: Request,
    read: Callable[[], Awaitable[tuple[Body, dict[str, bytes]]]],
    asked: Asked,
) -> Response:
    """The answer to a request of which `read` reads the body and the files, of which `asked` is taken."""
    context = context_of(request)
    how = wanted(request, context.settings.max_wait_seconds)
    with place(request, context, how):
        accepted = await _accept(request, read, asked, as_grid=how.media_type == PNG)
        return await answer(request, context, accepted, how)


async def _accept(
    request: Request,
    read: Callable[[], Awaitable[tuple[Body, dict[str, bytes]]]],
    asked: Asked,
    as_grid: bool,
) -> Accepted:
    """The job that is accepted; body and files are forgotten with the end of this, before anybody waits."""
    context, caller = context_of(request), caller_of(request)
    body, files = await read()
    route = request.url.path.strip("/").encode()
    once = once_of(request, caller, route, body, *(files.get(name, b"") for name in ("image", "mask")))
    accepted = await context.jobs.before(once)
    if accepted is None:
        shape = await run_in_threadpool(context.intake.shape, body, asked is Asked.GREY)
        fit = body.fit if isinstance(body, InpaintFields) else Fit.ERROR
        known = await while_there(request, context.uploads.read(caller.client, asked, shape, fit, files))
        offer = await run_in_threadpool(context.intake.complete, body, known, as_grid, caller, once)
        accepted = await context.jobs.accept(offer, request.scope["answer_headers"])
    return accepted
