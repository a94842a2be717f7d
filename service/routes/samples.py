"""POST /samples and POST /inpaint: asking for images."""

import json
import re
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from service.context import InContext
from service.pictures import decode_base64
from service.problems import Problem, invalid, invalid_body, responses
from service.schemas import InpaintBody, JobView, SampleBody
from service.views import NPZ, PNG
from service.waiting import answer, wanted
from worker.priority import Priority

router = APIRouter(tags=["sampling"])

CLIENT = r"^[A-Za-z0-9._@:-]{1,64}$"

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
        "name": "Client-Id",
        "in": "header",
        "description": "Whose job this is: letters, digits and `._@:-`, at most 64. Clients that wait take turns, so "
        "none is held up by another's large job. Without it a client is its network address.",
        "schema": {"type": "string", "pattern": CLIENT},
        "example": "alice",
    },
]


def _is_json(request: Request) -> None:
    media_type = _media_type(request)
    if media_type != "application/json":
        raise Problem("unsupported-media-type", f"Content-Type {media_type or 'missing'}; send application/json")


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


@router.post(
    "/samples",
    responses=_ANSWERS,
    status_code=202,
    dependencies=[Depends(_is_json)],
    openapi_extra={"parameters": _HEADERS},
)
async def samples(body: SampleBody, request: Request, context: InContext) -> Response:
    """Asks for a grid of images.

    With `Accept: image/png` the answer is the grid itself, once it is done.
    """
    how = wanted(request, context.settings.max_wait_seconds)
    job = await run_in_threadpool(context.intake.sample, body, how.media_type == PNG, _client(request))
    return await answer(request, context, job, how)


def _client(request: Request) -> str:
    """Who asks: what the request says, or its address; told apart, so that none passes for another's address."""
    named = request.headers.get("client-id")
    if named is None:
        return f"address/{request.client.host if request.client else 'unknown'}"
    if not re.fullmatch(CLIENT, named):
        raise invalid("Client-Id", "this is no name of a client", "1 to 64 letters, digits and any of . _ @ : -")
    return f"name/{named}"


_FORM_FIELDS: dict[str, Any] = {
    "model": {"type": "string", "description": "Name of a model."},
    "version": {"type": "integer", "description": "Version of the model."},
    "count": {"type": "integer", "default": 16, "description": "How many completions."},
    "seed": {"type": "integer", "description": "Drawn at random by default."},
    "sampler": {"type": "string", "description": "The sampler of POST /samples, as JSON."},
    "frames": {"type": "integer", "default": 0, "description": "As in POST /samples."},
    "priority": {"type": "string", "enum": list(Priority), "default": "normal", "description": "As in POST /samples."},
    "deadline_seconds": {"type": "number", "description": "As in POST /samples."},
    "image": {"type": "string", "format": "binary", "description": "The picture, of the model's height and width."},
    "mask": {"type": "string", "format": "binary", "description": "White = repaint, black = keep; of the same size."},
}
_INPAINT_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image", "mask"],
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
async def inpaint(request: Request, context: InContext) -> Response:
    """Asks to fill in the white part of a mask; everything else comes back exactly as sent.

    The picture and its mask are files of a form, or base64 in JSON.
    """
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
    job = await run_in_threadpool(context.intake.inpaint, body, image, mask, how.media_type == PNG, _client(request))
    return await answer(request, context, job, how)


def _from_json(data: bytes) -> tuple[SampleBody, bytes, bytes]:
    try:
        body = InpaintBody.model_validate_json(data)
    except ValidationError as error:
        raise invalid_body(error) from error
    return body, decode_base64("image", body.image), decode_base64("mask", body.mask)


async def _from_form(request: Request) -> tuple[SampleBody, bytes, bytes]:
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
    for name in ("image", "mask"):
        if name not in files:
            raise invalid(f"/{name}", "the file is missing", "a picture file of the model's height and width")
    if unknown := files.keys() - {"image", "mask"}:
        raise invalid(f"/{min(unknown)}", "there is no such file field", "image and mask")
    values: dict[str, Any] = dict(fields)
    if "sampler" in fields:
        try:
            values["sampler"] = json.loads(fields["sampler"])
        except (ValueError, RecursionError) as error:
            raise invalid("/sampler", f"this is not JSON: {error}", 'such as {"name": "heun"}') from error
    try:
        return SampleBody.model_validate(values), files["image"], files["mask"]
    except ValidationError as error:
        raise invalid_body(error) from error
