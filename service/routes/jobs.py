"""/jobs: a client's jobs, how far each is, its images in every form, and how to cancel it."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from models.card import ModelName
from models.images import Pixels
from models.store import BrokenModel, ModelNotFound
from service.access.auth import Caller, InCaller, caller_of
from service.access.budgets import payer
from service.answering import caching, ranges, views
from service.answering.frames_view import FramesView
from service.answering.job_view import JobsView, JobView
from service.answering.leaving import while_there
from service.answering.paging import cursor_of, link_to, place_of
from service.answering.problems import Problem, responses
from service.asking.intake import ready
from service.context import Context, InContext, context_of
from service.drawing.drawings import View
from service.routes.samples import HEADERS
from service.routes.threaded import ThreadedRoute
from worker.queue.job import Job, JobState
from worker.queue.jobs import JobEnded

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=ThreadedRoute)

JobId = Annotated[
    str, Path(pattern=r"^[0-9a-f]{24}$", description="Id of a job.", examples=["5f0c9d7b1e2a4c6d8e9f0a1b"])
]
_NO_JOB = responses("not-found", "invalid", "unavailable")
Scale = Annotated[int, Query(ge=1, le=16, description="Factor by which each pixel is repeated.")]
Columns = Annotated[int | None, Query(ge=1, le=1000, description="Images in a row; as square as can be by default.")]
Padding = Annotated[int, Query(ge=0, le=64, description="Pixels between the images.")]
Fps = Annotated[float, Query(ge=1, le=50, allow_inf_nan=False, description="Frames a second.")]


def _file(media_type: str) -> dict[str, Any]:
    """How a view that is sent while it is made is described: the file, that the client has it, or a problem."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    answers = {
        200: {"content": content, "description": "The file. It never changes; `ETag` names it."},
        304: {"description": "The client has it (If-None-Match)."},
        **responses("not-found", "not-ready", "invalid", "rate-limited", "quota-exceeded"),
        **responses("busy", "images-unavailable", "unavailable"),
    }
    return {"response_class": Response, "responses": answers}


def _whole_file(media_type: str) -> dict[str, Any]:
    """The same of a view that is made before it is sent, so that a part of it can be asked for."""
    found = _file(media_type)
    part = {"content": found["responses"][200]["content"], "description": "The part that was asked for (Range)."}
    return {
        **found,
        "responses": {**found["responses"], 206: part, **ranges.PROBLEMS},
        "openapi_extra": {"parameters": ranges.HEADERS},
    }


@router.get(
    "",
    operation_id="listJobs",
    summary="Your jobs, newest first",
    response_model=JobsView,
    responses=responses("invalid", "unavailable"),
    openapi_extra={"parameters": HEADERS[-1:]},
)
def jobs(
    request: Request,
    context: InContext,
    caller: InCaller,
    state: Annotated[list[JobState] | None, Query(description="Only jobs in this state; may repeat.")] = None,
    model: Annotated[list[ModelName] | None, Query(description="Only jobs of this model; may repeat.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Jobs on a page.")] = 20,
    cursor: Annotated[str | None, Query(description="`next` of the page before.", max_length=200)] = None,
) -> Response:
    """Your own jobs, newest first, until they are forgotten. `Link` has the address of the next page.

    A page may have fewer jobs than `limit`, even none, where few of many jobs are wanted; `next` then still leads on.
    """
    after = None if cursor is None else place_of(cursor)
    found, following = context.queue.listing(caller.client, state or list(JobState), model, limit, after)
    page = JobsView(jobs=[context.view(job) for job in found], next=following and cursor_of(following))
    headers = None if page.next is None else {"Link": link_to(request, page.next)}
    return Response(page.model_dump_json(), headers=headers, media_type="application/json")  # made here, in a thread


@router.get(
    "/{job_id}",
    operation_id="getJob",
    summary="What a job asks for, and how far it is",
    response_model=JobView,
    responses=_NO_JOB,
)
async def job(job_id: JobId, request: Request) -> Response:
    """What the job asks for, its state, how far it is, and what goes before it."""
    context = context_of(request)
    found = caller_of(request).own(await context.jobs.get(job_id))
    return (await context.jobs.view(found)).response()


@router.delete(
    "/{job_id}", operation_id="deleteJob", summary="Cancel a job", responses=_NO_JOB | responses("already-ended")
)
@router.post(
    "/{job_id}/cancel", operation_id="cancelJob", summary="Cancel a job", responses=_NO_JOB | responses("already-ended")
)
def cancel(job_id: JobId, context: InContext, caller: InCaller) -> JobView:
    """Cancels the job: what waits is removed at once, what runs leaves its slots before their next step."""
    caller.own(context.queue.get(job_id))
    try:
        return context.view(context.queue.cancel(job_id))
    except JobEnded as error:
        raise Problem("already-ended", str(error)) from error


@router.get("/{job_id}/grid.png", operation_id="getGrid", summary="All images in one PNG", **_whole_file(views.PNG))
async def grid_png(
    job_id: JobId,
    request: Request,
    context: InContext,
    caller: InCaller,
    columns: Columns = None,
    padding: Padding = 2,
    scale: Scale = 2,
    background: Annotated[
        str, Query(pattern=r"^([0-9a-fA-F]{6}|transparent)$", description="RRGGBB of what is between, or transparent.")
    ] = "000000",
) -> Response:
    """All images of a finished job in one PNG, if that is not too large."""
    colour = None if background == "transparent" else tuple(bytes.fromhex(background))
    most = context.settings.max_grid_pixels
    return await _picture(
        context, caller, request, job_id, views.PNG,
        lambda job: views.grid(job, context.results, most, columns, padding, scale, colour),  # type: ignore[arg-type]
    )  # fmt: skip


@router.get(
    "/{job_id}/images/{index}.png", operation_id="getImage", summary="One image as PNG", **_whole_file(views.PNG)
)
async def image_png(
    job_id: JobId,
    index: Annotated[int, Path(ge=0, le=10**9, description="Number of the image, from 0.", examples=[2])],
    request: Request,
    context: InContext,
    caller: InCaller,
    scale: Scale = 1,
) -> Response:
    """One image of a finished job."""

    most = context.settings.max_grid_pixels
    return await _picture(
        context, caller, request, job_id, views.PNG,
        lambda job: views.image(job, context.results, most, index, scale),
    )  # fmt: skip


@router.get("/{job_id}/samples.npz", operation_id="getSamplesNpz", summary="All images for numpy", **_file(views.NPZ))
async def samples_npz(job_id: JobId, request: Request, context: InContext, caller: InCaller) -> Response:
    """All images of a finished job, however many, as an npz: `images` uint8 [count, height, width, channels]."""
    return await _archive(context, caller, request, job_id, views.NPZ, views.samples_npz)


@router.get(
    "/{job_id}/images.zip", operation_id="getImagesZip", summary="All images as PNG files in a zip", **_file(views.ZIP)
)
async def images_zip(job_id: JobId, request: Request, context: InContext, caller: InCaller) -> Response:
    """All images of a finished job, however many, as PNG files `0000.png` and so on in a zip."""
    return await _archive(context, caller, request, job_id, views.ZIP, views.images_zip)


@router.get(
    "/{job_id}/animation.webp",
    operation_id="getAnimationWebp",
    summary="The annealing as WebP",
    **_whole_file(views.WEBP),
)
async def animation_webp(
    job_id: JobId,
    request: Request,
    context: InContext,
    caller: InCaller,
    columns: Columns = None,
    scale: Scale = 2,
    fps: Fps = 12,
) -> Response:
    """The annealing of a job that was asked for with `frames`: a grid that moves, without loss."""
    return await _animation(context, caller, request, job_id, "WEBP", columns, scale, fps)


@router.get(
    "/{job_id}/animation.gif", operation_id="getAnimationGif", summary="The annealing as GIF", **_whole_file(views.GIF)
)
async def animation_gif(
    job_id: JobId,
    request: Request,
    context: InContext,
    caller: InCaller,
    columns: Columns = None,
    scale: Scale = 2,
    fps: Fps = 12,
) -> Response:
    """The annealing of a job that was asked for with `frames`: a grid that moves, in at most 256 colours a frame."""
    return await _animation(context, caller, request, job_id, "GIF", columns, scale, fps)


@router.get(
    "/{job_id}/filmstrip.png", operation_id="getFilmstrip", summary="The annealing as one PNG", **_whole_file(views.PNG)
)
async def filmstrip_png(
    job_id: JobId, request: Request, context: InContext, caller: InCaller, padding: Padding = 2, scale: Scale = 1
) -> Response:
    """The annealing of a job that was asked for with `frames`: a row for each image, a column for each frame."""
    most = context.settings.max_grid_pixels
    return await _picture(
        context, caller, request, job_id, views.PNG,
        lambda job: views.filmstrip(_with_frames(job), context.results, most, padding, scale),
    )  # fmt: skip


@router.get(
    "/{job_id}/frames",
    operation_id="getFrames",
    summary="What each frame of the annealing shows",
    responses=_NO_JOB,
)
def frames(job_id: JobId, context: InContext, caller: InCaller) -> FramesView:
    """After how many network evaluations each frame of a job's annealing was kept, and at which noise level."""
    asked = _with_frames(caller.own(context.queue.get(job_id)))
    try:
        return FramesView.of(asked, context.store.card(asked.request.model, asked.request.version))
    except (ModelNotFound, BrokenModel) as error:
        raise Problem("not-found", f"the model of job {job_id} is not served any more: {error}") from error


async def _animation(
    context: Context,
    caller: Caller,
    request: Request,
    job_id: str,
    kind: str,
    columns: int | None,
    scale: int,
    fps: float,
) -> Response:
    most = context.settings.max_grid_pixels
    return await _picture(
        context, caller, request, job_id, f"image/{kind.lower()}",
        lambda job: views.animation(_with_frames(job), context.results, kind, most, columns, scale, fps),
    )  # fmt: skip


def _with_frames(job: Job) -> Job:
    if not job.request.frames:
        raise Problem("not-found", f'job {job.id} has no frames: ask for them, as in {{"frames": 32}}')
    return job


async def _picture(
    context: Context,
    caller: Caller,
    request: Request,
    job_id: str,
    media_type: str,
    describe: Callable[[Job], View],
) -> Response:
    """A picture of a finished job, or 304 if the client has it; HEAD draws nothing."""
    finished = ready(caller.own(await context.jobs.get(job_id)))
    headers = caching.headers(request, finished)
    if caching.has_it(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    view = describe(finished)
    if request.scope.get("head"):
        file = context.drawings.find(finished, view)
        if file is None:
            headers["Accept-Ranges"] = "bytes"
            return StreamingResponse(iter(()), headers=headers, media_type=media_type)  # of a length not known yet
    else:
        file = await while_there(request, context.drawings.draw(caller.client, finished, view))
    return ranges.respond_file(request, file, headers, media_type)


async def _archive(
    context: Context,
    caller: Caller,
    request: Request,
    job_id: str,
    media_type: str,
    make: Callable[[Job, Iterator[Pixels]], Iterator[bytes]],
) -> Response:
    """All images of a finished job, made while they are sent, or 304 if the client has them."""
    finished = ready(caller.own(await context.jobs.get(job_id)))
    headers = {**caching.headers(request, finished), "Accept-Ranges": "none"}
    if caching.has_it(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    if request.scope.get("head"):
        return StreamingResponse(iter(()), headers=headers, media_type=media_type)
    light = media_type == views.NPZ and views.is_light(finished)
    images = context.results.pieces(finished)
    return await context.archives.download(payer(request), partial(make, finished), images, headers, media_type, light)
