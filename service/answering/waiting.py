"""Answering once a job is done: `Prefer: wait=N` (RFC 7240) and `Accept`."""

import asyncio
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache, partial

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from redis.exceptions import RedisError

from models.sentences import shortened
from service.access.auth import caller_of
from service.access.budgets import payer
from service.answering import ranges, views
from service.answering.leaving import while_there
from service.answering.negotiation import liked
from service.answering.problems import Problem
from service.context import Context
from service.jobs import Accepted
from worker.queue.job import Job
from worker.queue.jobs import JobEnded
from worker.queue.stores import StoreAway

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05, 0.5  # between two looks at a job: at first, and at most
HEARD_SECONDS = 2.0  # at most, while messages tell of jobs that end
JSON = "application/json"
CANCEL = "cancel-on-disconnect"


@dataclass(frozen=True)
class Answer:
    """How a client wants to be answered.

    Args:
        media_type: of the body.
        wait_seconds: how long to wait for the job; 0 answers at once.
        applied: the Preference-Applied header, if there is a preference.
        cancel: whether the job is cancelled if the client goes while it waits.
    """

    media_type: str
    wait_seconds: float
    applied: str | None
    cancel: bool = False


def wanted(request: Request, most_seconds: float) -> Answer:
    """Reads `Accept` and `Prefer`. Who asks for the images themselves waits without having to say so.

    A preference that cannot be read is ignored, and of several the first is taken, as RFC 7240 has it.

    Raises:
        Problem: nothing acceptable can be made.
    """
    media_type = _negotiate(request.headers.get("accept") or "*/*")
    preferences = [part.strip() for line in request.headers.getlist("prefer") for part in re.split("[,;]", line)]
    asynchronous = any(part.lower() == "respond-async" for part in preferences)
    cancel = any(part.lower() == CANCEL for part in preferences)
    also = f", {CANCEL}" if cancel else ""
    for part in preferences:
        name, _, value = part.partition("=")
        number = re.fullmatch(r'("?)(\d{1,9}(\.\d{0,9})?)\1', value.strip())
        if name.strip().lower() == "wait" and number:
            seconds = min(float(round(float(number[2]))), most_seconds)
            return Answer(media_type, seconds, f"wait={seconds:.0f}{also}", cancel)
    if asynchronous:
        return Answer(media_type, 0.0, "respond-async")
    seconds = 0.0 if media_type == JSON else most_seconds
    return Answer(media_type, seconds, CANCEL if cancel and seconds else None, cancel)


@contextmanager
def place(request: Request, context: Context, how: Answer) -> Iterator[None]:
    """A place among those who wait, if the request will; before anything is accepted.

    Raises:
        Problem: there is none, for this client or for anybody.
    """
    with context.waits.claim(payer(request)) if how.wait_seconds else nullcontext():
        yield


async def answer(request: Request, context: Context, accepted: Accepted, how: Answer) -> Response:
    """The job when it has ended or the wait is over: its images if they were asked for, else its description.

    202 while it has not ended, with its address in `Location`. Whatever the request held is given back.
    """
    request.scope["body"].release()
    job = accepted.job
    headers = {"Location": f"/jobs/{job.id}", "Vary": "Accept, Prefer"}
    if accepted.replayed:
        headers["Idempotent-Replayed"] = "true"
    if how.applied:
        headers["Preference-Applied"] = how.applied
    try:
        job = await _wait(request, context, job, how)
        if job.state == "finished" and how.media_type != JSON:
            return await _images(request, context, job, how, headers)
        view = await context.jobs.view(job)
    except RedisError as error:
        raise Problem(
            "unavailable",
            f"Redis does not answer; job {job.id} was accepted and is kept",
            headers={"Location": f"/jobs/{job.id}", "Retry-After": "2"},
        ) from error
    except StoreAway as error:
        log.warning("results store: %s", error)
        raise Problem(
            "images-unavailable",
            f"the results store does not answer; job {job.id} is finished, and its images are kept",
            headers={"Location": f"/jobs/{job.id}", "Retry-After": "5"},
        ) from error
    if how.media_type != JSON and job.state.final:
        raise Problem("not-ready", f"job {job.id} is {job.state}: {job.error}", headers=headers)
    return view.response(200 if job.state.final else 202, headers)


async def _images(request: Request, context: Context, job: Job, how: Answer, headers: dict[str, str]) -> Response:
    """The images themselves; where they are not to be had now, the problem tells the address of the job."""
    try:
        if how.media_type == views.PNG:
            view = views.grid(job, context.results, context.settings.max_grid_pixels)
            file = await while_there(request, context.drawings.draw(job.client, job, view))
            return ranges.respond_whole(file, headers, how.media_type)
        make, images, light = partial(views.samples_npz, job), context.results.pieces(job), views.is_light(job)
        return await context.archives.download(payer(request), make, images, headers, how.media_type, light)
    except Problem as problem:
        problem.headers["Location"] = headers["Location"]
        raise


async def _wait(request: Request, context: Context, job: Job, how: Answer) -> Job:
    """The job once it has ended, or as it is when the time is over, the client has gone, or the service stops."""
    deadline = time.monotonic() + how.wait_seconds
    pause = HEARD_SECONDS if context.endings.heard else POLL_SECONDS[0]
    with context.endings.of(job.id) as ended:
        while not (job.state.final or context.endings.closed or time.monotonic() >= deadline):
            with suppress(TimeoutError):
                async with asyncio.timeout(min(pause, max(0.0, deadline - time.monotonic()))):
                    await ended.wait()
            pause = HEARD_SECONDS if context.endings.heard else min(pause * 1.1, POLL_SECONDS[1])
            if ended.is_set() or await context.jobs.ended(job.id):
                job = await context.jobs.get(job.id)
            elif await request.is_disconnected():
                if how.cancel:
                    with suppress(JobEnded):
                        await run_in_threadpool(context.queue.cancel, job.id)
                break
            elif not await context.auth.stands(caller_of(request)):
                raise Problem("unauthorized", "this key opens nothing any more")
    return job


@lru_cache(256)
def _negotiate(accept: str) -> str:
    """The media type that the client likes best of ours; JSON if it takes anything.

    Raises:
        Problem: it takes none.
    """
    offers = {
        JSON: JSON,
        "application/*": JSON,
        "*/*": JSON,
        views.PNG: views.PNG,
        "image/*": views.PNG,
        views.NPZ: views.NPZ,
    }
    found = liked(accept, offers)
    if found is None:
        raise Problem(
            "not-acceptable", f"Accept: {shortened(accept)} cannot be met; there is {JSON}, {views.PNG}, {views.NPZ}"
        )
    return found
