"""POST /samples: asking for images."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from models.sentences import shortened
from service.access.auth import CLIENT, caller_of
from service.answering.job_view import JobView
from service.answering.problems import Problem, responses
from service.answering.views import NPZ, PNG
from service.answering.waiting import answer, place, wanted
from service.asking.reading import IDEMPOTENCY_KEY, media_type, once_of, read_json
from service.asking.schemas import SampleBody
from service.context import context_of

router = APIRouter(tags=["sampling"])

_IMAGES: dict[str, Any] = {
    "application/json": {"schema": {"$ref": "#/components/schemas/JobView"}},
    PNG: {"schema": {"type": "string", "format": "binary"}},
    NPZ: {"schema": {"type": "string", "format": "binary"}},
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The job has ended in time: its description, or its images if they are accepted.",
        "content": _IMAGES,
    },
    202: {"description": "The job is accepted; Location says where it is.", "model": JobView},
    **responses(
        "malformed",
        "not-acceptable",
        "not-ready",
        "drained",
        "too-large",
        "unsupported-media-type",
        "invalid",
        "idempotency-mismatch",
        "busy",
        "images-unavailable",
        "unavailable",
    ),
}
HEADERS = [
    {
        "name": "Prefer",
        "in": "header",
        "description": "`wait=N`: answer when the job has ended, at most N seconds later. `respond-async`: at once. "
        "`cancel-on-disconnect`, beside a wait: the job is cancelled if you hang up before it has ended.",
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


_SAMPLE_BODY = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/SampleBody"}}},
}


@router.post(
    "/samples",
    operation_id="createSamples",
    summary="Ask for a grid of images",
    responses=ANSWERS,
    status_code=202,
    openapi_extra={"requestBody": _SAMPLE_BODY, "parameters": HEADERS},
)
async def samples(request: Request) -> Response:
    """Asks for a grid of images.

    With `Accept: image/png` the answer is the grid itself, once it is done.
    """
    # FastAPI's dependencies and its reading of the body would take as long as all that is done here.
    context, caller = context_of(request), caller_of(request)
    kind = media_type(request)
    if kind != "application/json":
        what = f"Content-Type {shortened(kind) or 'missing'}"
        raise Problem("unsupported-media-type", f"{what}; send application/json")
    body = await read_json(SampleBody, request)
    how = wanted(request, context.settings.max_wait_seconds)
    once = once_of(request, caller, b"samples", body)
    with place(request, context, how):
        accepted = await context.jobs.before(once)
        if accepted is None:
            arguments, planned = (body, how.media_type == PNG, caller, once), context.intake.quick(body)
            if planned is not None:
                offer = context.intake.sample(*arguments, planned)
            else:
                offer = await run_in_threadpool(context.intake.sample, *arguments)
            accepted = await context.jobs.accept(offer, request.scope["answer_headers"])
        return await answer(request, context, accepted, how)
