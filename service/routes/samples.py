"""POST /samples and POST /inpaint: asking for images."""

import asyncio
import json
import re
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from models.card import MODEL_NAME
from models.guidance import MAX_WEIGHT
from models.samplers.sampler import MAX_SEED
from service.access.auth import CLIENT, Caller, caller_of
from service.answering.problems import Problem, invalid, invalid_body, responses
from service.answering.views import NPZ, PNG
from service.answering.waiting import answer, wanted
from service.asking.pictures import Fit, decode_base64
from service.asking.schemas import MAX_DEADLINE_SECONDS, InpaintBody, InpaintFields, JobView, SampleBody
from service.context import context_of
from worker.queue.idempotency import Once
from worker.queue.priority import Priority
from worker.queue.requests import MAX_FRAMES

router = APIRouter(tags=["sampling"])

Body = TypeVar("Body", bound=SampleBody)

IDEMPOTENCY_KEY = r"^[\x21-\x7e]{1,255}$"

_IMAGES: dict[str, Any] = {
    "application/json": {"schema": {"$ref": "#/components/schemas/JobView"}},
    PNG: {"schema": {"type": "string", "format": "binary"}},
    NPZ: {"schema": {"type": "string", "format": "binary"}},
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The job has ended in time: its description, or its images if they are accepted.",
        "content": _IMAGES,
    },
    202: {"description": "The job is accepted; Location says where it is.", "model": JobView},
    **responses(
        "malformed",
        "not-acceptable",
        "not-ready",
        "too-large",
        "unsupported-media-type",
        "invalid",
        "idempotency-mismatch",
        "busy",
        "unavailable",
    ),
}
_HEADERS = [
    {
        "name": "Prefer",
        "in": "header",
        "description": "`wait=N`: answer when the job has ended, at most N seconds later. `respond-async`: at once.",
        "schema": {"type": "string"},
        "example": "wait=60",
    },
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Chosen by you, such as a UUID: a request that is sent again with the same key is not accepted "
        "again but answered with the job that it made, and `Idempotent-Replayed: true`. Kept as long as the job.",
        "schema": {"type": "string", "pattern": IDEMPOTENCY_KEY},
        "example": "2f1d3c5e-7a0b-4c8d-9e6f-5b4a39281706",
    },
    {
        "name": "Client-Id",
        "in": "header",
        "description": "In a service without keys, whose job this is: letters, digits and `._@:-`, at most 64. Clients "
        "that wait take turns, so none is held up by another's large job. Without it a client is its network address.",
        "schema": {"type": "string", "pattern": CLIENT},
        "example": "alice",
    },
]


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


_SAMPLE_BODY = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/SampleBody"}}},
}


@router.post(
    "/samples",
    responses=_ANSWERS,
    status_code=202,
    openapi_extra={"requestBody": _SAMPLE_BODY, "parameters": _HEADERS},
)
async def samples(request: Request) -> Response:
    """Asks for a grid of images.

    With `Accept: image/png` the answer is the grid itself, once it is done.
    """
    # FastAPI's dependencies and its reading of the body would take as long as all that is done here.
    context, caller = context_of(request), caller_of(request)
    media_type = _media_type(request)
    if media_type != "application/json":
        raise Problem("unsupported-media-type", f"Content-Type {media_type or 'missing'}; send application/json")
    body = _read(SampleBody, await request.body())
    how = wanted(request, context.settings.max_wait_seconds)
    once = _once(request, caller, b"samples", body)
    accepted = await context.jobs.before(once)
    if accepted is None:
        arguments, planned = (body, how.media_type == PNG, caller, once), context.intake.quick(body)
        if planned is not None:
            offer = context.intake.sample(*arguments, planned)
        else:
            offer = await run_in_threadpool(context.intake.sample, *arguments)
        accepted = await context.jobs.accept(offer, request.scope["answer_headers"])
    return await answer(request, context, accepted, how)


def _read(model: type[Body], data: bytes) -> Body:
    try:
        return model.model_validate_json(data or b"null")  # nothing at all is no broken JSON
    except ValidationError as error:
        raise invalid_body(error) from error


def _once(request: Request, caller: Caller, route: bytes, body: SampleBody, *files: bytes) -> Once | None:
    """What a request is known by, if it has an Idempotency-Key; however it was written down."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not re.fullmatch(IDEMPOTENCY_KEY, key):
        raise invalid("Idempotency-Key", "this is no key", "1 to 255 visible ASCII characters")
    return Once.of(caller.client, key, route, body.model_dump_json(exclude={"image", "mask"}).encode(), *files)


_EXAMPLES = {
    "sampler": '{"name": "heun"}',
    "labels": "[0, 1, 2]",
    "guidance_interval": "[0.1, 2.0]",
    "webhook": '{"url": "https://example.com/hooks/scoreserve"}',
}
_FORM_FIELDS: dict[str, Any] = {
    "model": {"type": "string", "pattern": MODEL_NAME, "description": "Name of a model.", "examples": ["mnist"]},
    "version": {"type": "integer", "minimum": 1, "description": "Version of the model."},
    "count": {"type": "integer", "minimum": 1, "default": 16, "description": "How many completions."},
    "seed": {"type": "integer", "minimum": 0, "maximum": MAX_SEED, "description": "Drawn at random by default."},
    "sampler": {
        "type": "string",
        "contentMediaType": "application/json",
        "description": "The sampler of POST /samples, as JSON.",
        "examples": [_EXAMPLES["sampler"]],
    },
    "label": {"type": "string", "description": "As in POST /samples.", "examples": ["7"]},
    "labels": {
        "type": "string",
        "contentMediaType": "application/json",
        "description": "The labels of POST /samples, as JSON.",
        "examples": [_EXAMPLES["labels"]],
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
        "examples": [_EXAMPLES["guidance_interval"]],
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
        "examples": [_EXAMPLES["webhook"]],
    },
    "fit": {
        "type": "string",
        "enum": list(Fit),
        "default": "error",
        "description": "What happens to a picture that is not of the model's size.",
    },
    "image": {"type": "string", "format": "binary", "description": "The picture."},
    "mask": {
        "type": "string",
        "format": "binary",
        "description": "White = repaint, black = keep; of the picture's size or the model's. Without it, what is "
        "transparent in the picture is repainted.",
    },
}
_INPAINT_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": _FORM_FIELDS,
                "additionalProperties": False,
            },
        },
        "application/json": {"schema": {"$ref": "#/components/schemas/InpaintBody"}},
    },
}


@router.post(
    "/inpaint",
    responses=_ANSWERS,
    status_code=202,
    openapi_extra={"requestBody": _INPAINT_BODY, "parameters": _HEADERS},
)
async def inpaint(request: Request) -> Response:
    """Asks to fill in the white part of a mask, or what is transparent in the picture; everything else is kept.

    The picture and its mask are files of a form, or base64 in JSON. The picture is turned as its EXIF data say,
    converted to the model's channels, and brought to the model's size as `fit` says; all pixels of that which are not
    repainted come back exactly.
    """
    context, caller = context_of(request), caller_of(request)
    how = wanted(request, context.settings.max_wait_seconds)
    media_type = _media_type(request)
    if media_type == "multipart/form-data":
        body, image, mask = await _from_form(request)
    elif media_type == "application/json":
        body, image, mask = _from_json(await request.body())
    else:
        raise Problem(
            "unsupported-media-type",
            f"Content-Type {media_type or 'missing'}; send multipart/form-data or application/json",
        )
    once = _once(request, caller, b"inpaint", body, image, mask or b"")
    accepted = await context.jobs.before(once)
    if accepted is None:
        # The decoder has a thread of its own, so that no other request waits for a large picture.
        decoding = context.decoder.submit(context.intake.picture, body, image, mask)
        picture = await asyncio.wrap_future(decoding)
        as_grid = how.media_type == PNG
        offer = await run_in_threadpool(context.intake.inpaint, body, picture, as_grid, caller, once)
        accepted = await context.jobs.accept(offer, request.scope["answer_headers"])
    return await answer(request, context, accepted, how)


def _from_json(data: bytes) -> tuple[InpaintFields, bytes, bytes | None]:
    body = _read(InpaintBody, data)
    mask = None if body.mask is None else decode_base64("mask", body.mask)
    return body, decode_base64("image", body.image), mask


async def _from_form(request: Request) -> tuple[InpaintFields, bytes, bytes | None]:
    async with request.form(max_files=4, max_fields=16, max_part_size=64 * 1024) as form:
        files: dict[str, bytes] = {}
        fields: dict[str, str] = {}
        for name, value in form.multi_items():
            if name in files or name in fields:
                raise invalid(f"/{name}", "the field is there twice", "each field once")
            if isinstance(value, UploadFile):
                files[name] = await value.read()
            else:
                fields[name] = value
    if "image" not in files:
        raise invalid("/image", "the file is missing", "a picture file")
    if unknown := files.keys() - {"image", "mask"}:
        raise invalid(f"/{min(unknown)}", "there is no such file field", "image and mask")
    values: dict[str, Any] = dict(fields)
    for name, example in _EXAMPLES.items():
        if name in fields:
            try:
                values[name] = json.loads(fields[name])
            except (ValueError, RecursionError) as error:
                raise invalid(f"/{name}", f"this is not JSON: {error}", f"such as {example}") from error
    try:
        return InpaintFields.model_validate(values), files["image"], files.get("mask")
    except ValidationError as error:
        raise invalid_body(error) from error
