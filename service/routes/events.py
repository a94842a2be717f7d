"""/jobs/{id}/events: what happens to a job, as it happens."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.access.auth import InCaller
from service.access.budgets import payer
from service.answering.problems import responses
from service.context import InContext
from service.following.event import parse_id
from service.following.events import MEDIA_TYPE, Stream
from service.routes.jobs import JobId

router = APIRouter(prefix="/jobs", tags=["jobs"])

LAST_EVENT_ID = re.compile(r"\d{1,15}-\d{1,15}")
_EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string", "description": "For `Last-Event-ID`."},
        "event": {"enum": ["progress", "preview", "done", "failed", "cancelled"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events. `progress`: state, image_steps_done, image_steps, sigma (the noise level "
        "of the slowest image), queue_position, eta_seconds. `preview`, if asked for: two base64 PNG grids of the "
        "first images, `png` as they are expected to become, `chains` as they are by now, noise and all. At the end "
        "`done`, `failed` or `cancelled`, with the job.",
        "content": {MEDIA_TYPE: {"itemSchema": _EVENT}},
    },
    204: {"description": "The client has had the last event already."},
}


class _EventResponse(StreamingResponse):
    """Sends a stream to its end, or until the client goes."""

    media_type = MEDIA_TYPE

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream.text(), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self.stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.stream.close()


@router.get(
    "/{job_id}/events",
    operation_id="streamJobEvents",
    summary="Follow a job by server-sent events",
    response_class=Response,
    responses={**_STREAM, **responses("not-found", "invalid", "rate-limited", "quota-exceeded", "busy", "unavailable")},
)
async def events(
    job_id: JobId,
    request: Request,
    context: InContext,
    caller: InCaller,
    previews: Annotated[
        bool, Query(description="Whether to send previews, up to five a second: the chains, and denoised estimates.")
    ] = False,
    last_event_id: Annotated[
        str | None,
        Header(
            description="The last event that was received; what came after it follows. One that this job does not have "
            "is the same as none.",
            examples=["1767323045000-0"],
        ),
    ] = None,
) -> Response:
    """What happens to the job, as it happens, until it ends. Of previews, a client that was away gets the next only."""
    caller.own(await context.jobs.get(job_id))
    if request.scope.get("head"):
        return StreamingResponse(iter(()), media_type=MEDIA_TYPE)
    after = parse_id(last_event_id) if last_event_id and LAST_EVENT_ID.fullmatch(last_event_id) else None
    stream = await context.events.follow(job_id, after, previews, caller, payer(request))
    return Response(status_code=204) if stream is None else _EventResponse(stream)
