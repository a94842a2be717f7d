"""/jobs/{id}: how far a job is, its images in every form, and how to cancel it."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import StreamingResponse

from models.images import to_png
from service import views
from service.auth import InCaller
from service.context import InContext
from service.intake import ready
from service.problems import Problem, responses
from service.schemas import JobView
from worker.queue import JobEnded

router = APIRouter(prefix="/jobs", tags=["jobs"])

JobId = Annotated[
    str, Path(pattern=r"^[0-9a-f]{24}$", description="Id of a job.", examples=["5f0c9d7b1e2a4c6d8e9f0a1b"])
]
_NO_JOB = responses("not-found", "invalid", "unavailable")
_NO_IMAGES = responses("not-found", "not-ready", "invalid", "unavailable")
_PNG = {"content": {views.PNG: {"schema": {"type": "string", "format": "binary"}}}, "description": "A PNG file."}
_NPZ = {"content": {views.NPZ: {"schema": {"type": "string", "format": "binary"}}}, "description": "An npz file."}


@router.get("/{job_id}", response_model=JobView, responses=_NO_JOB)
async def job(job_id: JobId, context: InContext, caller: InCaller) -> Response:
    """What the job asks for, its state, and how far it is."""
    found = caller.own(await context.jobs.get(job_id))
    return JobView.of(found, await context.jobs.seconds_left(found)).response()


@router.delete("/{job_id}", responses=_NO_JOB | responses("already-ended"))
def cancel(job_id: JobId, context: InContext, caller: InCaller) -> JobView:
    """Cancels the job: what waits is removed at once, what runs leaves its slots before their next step."""
    caller.own(context.queue.get(job_id))
    try:
        return JobView.of(context.queue.cancel(job_id), None)
    except JobEnded as error:
        raise Problem("already-ended", str(error)) from error


@router.get("/{job_id}/grid.png", response_class=Response, responses={200: _PNG, **_NO_IMAGES})
def grid_png(
    job_id: JobId,
    context: InContext,
    caller: InCaller,
    columns: Annotated[int | None, Query(ge=1, le=1000, description="Images in a row; as square as can be.")] = None,
    padding: Annotated[int, Query(ge=0, le=64, description="Pixels between the images.")] = 2,
    scale: Annotated[int, Query(ge=1, le=16, description="Factor by which each pixel is repeated.")] = 2,
) -> Response:
    """All images of a finished job in one PNG, if that is not too large."""
    finished = ready(caller.own(context.queue.get(job_id)))
    content = views.grid_png(finished, context.results, context.settings.max_grid_pixels, columns, padding, scale)
    return Response(content, media_type=views.PNG)


@router.get("/{job_id}/images/{index}.png", response_class=Response, responses={200: _PNG, **_NO_IMAGES})
def image_png(
    job_id: JobId, index: Annotated[int, Path(ge=0, le=10**9)], context: InContext, caller: InCaller
) -> Response:
    """One image of a finished job."""
    finished = ready(caller.own(context.queue.get(job_id)))
    try:
        pixels = context.results.image(finished, index)
    except IndexError as error:
        raise Problem("not-found", str(error)) from error
    return Response(to_png(pixels), media_type=views.PNG)


@router.get("/{job_id}/samples.npz", response_class=Response, responses={200: _NPZ, **_NO_IMAGES})
def samples_npz(job_id: JobId, context: InContext, caller: InCaller) -> Response:
    """All images of a finished job, however many, as an npz: `images` uint8 [count, height, width, channels]."""
    finished = ready(caller.own(context.queue.get(job_id)))
    return StreamingResponse(views.samples_npz(finished, context.results.pieces(finished)), media_type=views.NPZ)
