"""/jobs: a client's jobs, how far each is, its images in every form, and how to cancel it."""

import base64
import binascii
import json
import math
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from models.card import ModelName
from models.images import to_png
from service import views
from service.context import InContext
from service.intake import ready
from service.problems import Problem, invalid, responses
from service.routes.samples import _HEADERS, _client
from service.schemas import JobsView, JobView
from worker.queue import JobEnded, JobState, Place

router = APIRouter(prefix="/jobs", tags=["jobs"])

JobId = Annotated[
    str, Path(pattern=r"^[0-9a-f]{24}$", description="Id of a job.", examples=["5f0c9d7b1e2a4c6d8e9f0a1b"])
]
InClient = Annotated[str, Depends(_client)]  # whose jobs are listed
_NO_JOB = responses("not-found", "invalid", "unavailable")
_NO_IMAGES = responses("not-found", "not-ready", "invalid", "unavailable")
_PNG = {"content": {views.PNG: {"schema": {"type": "string", "format": "binary"}}}, "description": "A PNG file."}
_NPZ = {"content": {views.NPZ: {"schema": {"type": "string", "format": "binary"}}}, "description": "An npz file."}


@router.get("", responses=responses("invalid", "unavailable"), openapi_extra={"parameters": _HEADERS[1:]})
def jobs(
    request: Request,
    response: Response,
    client: InClient,
    context: InContext,
    state: Annotated[list[JobState] | None, Query(description="Only jobs in this state; may repeat.")] = None,
    model: Annotated[list[ModelName] | None, Query(description="Only jobs of this model; may repeat.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Jobs on a page.")] = 20,
    cursor: Annotated[str | None, Query(description="`next` of the page before.", max_length=200)] = None,
) -> JobsView:
    """Your own jobs, newest first, until they are forgotten. `Link` has the address of the next page.

    A page may have fewer jobs than `limit`, even none, where few of many jobs are wanted; `next` then still leads on.
    """
    after = None if cursor is None else _place(cursor)
    found, following = context.queue.listing(client, state or list(JobState), model, limit, after)
    page = JobsView(jobs=[context.view(job) for job in found], next=following and _cursor(following))
    if page.next is not None:
        url = request.url.include_query_params(cursor=page.next)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    return page


def _cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _place(cursor: str) -> Place:
    try:
        created_at, job_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if isinstance(created_at, float) and math.isfinite(created_at) and isinstance(job_id, str):
            return created_at, job_id
    except (binascii.Error, ValueError, TypeError, RecursionError):
        pass
    raise invalid("cursor", "this is no cursor", "`next` of the page before, as it is")


@router.get("/{job_id}", responses=_NO_JOB)
def job(job_id: JobId, context: InContext) -> JobView:
    """What the job asks for, its state, how far it is, and what goes before it."""
    return context.view(context.queue.get(job_id))


@router.delete("/{job_id}", responses=_NO_JOB | responses("already-ended"))
@router.post("/{job_id}/cancel", responses=_NO_JOB | responses("already-ended"))
def cancel(job_id: JobId, context: InContext) -> JobView:
    """Cancels the job: what waits is removed at once, what runs leaves its slots before their next step."""
    try:
        return context.view(context.queue.cancel(job_id))
    except JobEnded as error:
        raise Problem("already-ended", str(error)) from error


@router.get("/{job_id}/grid.png", response_class=Response, responses={200: _PNG, **_NO_IMAGES})
def grid_png(
    job_id: JobId,
    context: InContext,
    columns: Annotated[int | None, Query(ge=1, le=1000, description="Images in a row; as square as can be.")] = None,
    padding: Annotated[int, Query(ge=0, le=64, description="Pixels between the images.")] = 2,
    scale: Annotated[int, Query(ge=1, le=16, description="Factor by which each pixel is repeated.")] = 2,
) -> Response:
    """All images of a finished job in one PNG, if that is not too large."""
    finished = ready(context.queue.get(job_id))
    content = views.grid_png(finished, context.results, context.settings.max_grid_pixels, columns, padding, scale)
    return Response(content, media_type=views.PNG)


@router.get("/{job_id}/images/{index}.png", response_class=Response, responses={200: _PNG, **_NO_IMAGES})
def image_png(job_id: JobId, index: Annotated[int, Path(ge=0, le=10**9)], context: InContext) -> Response:
    """One image of a finished job."""
    finished = ready(context.queue.get(job_id))
    try:
        pixels = context.results.image(finished, index)
    except IndexError as error:
        raise Problem("not-found", str(error)) from error
    return Response(to_png(pixels), media_type=views.PNG)


@router.get("/{job_id}/samples.npz", response_class=Response, responses={200: _NPZ, **_NO_IMAGES})
def samples_npz(job_id: JobId, context: InContext) -> Response:
    """All images of a finished job, however many, as an npz: `images` uint8 [count, height, width, channels]."""
    finished = ready(context.queue.get(job_id))
    return StreamingResponse(views.samples_npz(finished, context.results.pieces(finished)), media_type=views.NPZ)
