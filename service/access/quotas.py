"""Quotas: how much a client may ask for, and how much may wait; kept in Redis, so they hold over many processes."""

import math
from pathlib import Path

from service.access.auth import Caller
from service.answering.problems import Problem, invalid
from service.together import Together
from worker.queue.forecast import Forecast
from worker.queue.offer import Limits, TooMuch
from worker.queue.scripts import load

Headers = list[tuple[bytes, bytes]]
WINDOW_SECONDS = 60
UNKNOWN_SECONDS = 60.0  # when to come again where no worker has measured its pace

RATE = load(Path(__file__).with_name("rate.lua"))


async def spend(redis: Together, caller: Caller) -> Headers:
    """Counts a request of a caller; returns the headers that say how many are left.

    Raises:
        Problem: there is none left.
    """
    if caller.requests_per_minute is None:
        return []
    requests = caller.requests_per_minute
    wait, left, full = await redis.script(RATE, 1, f"scoreserve:rate:{caller.client}", requests, WINDOW_SECONDS)
    headers = {
        "RateLimit-Policy": f'"requests";q={requests};w={WINDOW_SECONDS}',
        "RateLimit": f'"requests";r={left};t={math.ceil(float(full))}',
    }
    if float(wait) > 0:
        raise Problem(
            "rate-limited",
            f"{requests} requests a minute are allowed; the next one in {float(wait):.1f} s",
            headers={**headers, "Retry-After": str(math.ceil(float(wait)))},
        )
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def in_flight_headers(limits: Limits, client_image_steps: int) -> Headers:
    """The headers that say how many image-steps a client may still have in flight, beside those it has."""
    most = limits.client_image_steps
    if most is None:
        return []
    return [
        (b"ratelimit-policy", f'"image-steps-in-flight";q={most}'.encode()),
        (b"ratelimit", f'"image-steps-in-flight";r={max(0, most - client_image_steps)}'.encode()),
    ]


def refusal(error: TooMuch, forecast: Forecast) -> Problem:
    """What a client is told whose job is too much for now, and when to come again: as soon as there is room for it.

    That is the work that must be done first over the measured pace of the workers. Reads Redis.
    """
    job, there, limits = error.job, error.in_flight, error.limits
    if error.against == "client":
        most = limits.client_image_steps or 0
        if job.image_steps > most:
            reason = f"the job is {job.image_steps:,} image-steps, more than the client may ever have in flight"
            return invalid("/count", reason, f"at most {most:,} image-steps: fewer images or a shorter sampler")
        too_many = there.client_image_steps + job.image_steps - most
        seconds = forecast.seconds_until_done(job.client, too_many, job.request.model)
        said = f"{there.client_image_steps:,} of the client's {most:,} image-steps are in flight"
        return _later("quota-exceeded", f"{said}, and the job is {job.image_steps:,}", seconds)
    if error.against == "kept":
        return _kept(error)
    excess: float = there.image_steps / max(1, there.jobs)  # a job has to end, of which this is the mean
    said = f"{there.jobs:,} jobs wait, and no more may"
    if error.against == "queue":
        most = limits.image_steps or 0
        excess = there.image_steps + job.image_steps - most
        said = f"{there.image_steps:,} image-steps wait, the job is {job.image_steps:,}, and {most:,} may wait"
    pace = forecast.pace(job.request.model)
    return _later("busy", said, None if pace is None else excess / pace.image_steps_per_second)


def _kept(error: TooMuch) -> Problem:
    job, there, most = error.job, error.in_flight, error.limits.client_bytes or 0
    if job.bytes > most:
        reason = f"the job's images are {job.bytes:,} bytes, more than the client may ever have kept"
        return invalid("/count", reason, f"at most {most:,} bytes: fewer images or fewer frames")
    said = f"{there.client_bytes:,} of the client's {most:,} bytes of images are kept, and the job's are {job.bytes:,}"
    return _later("storage-exceeded", said, job.result_ttl if there.seconds < 0 else there.seconds)


def _later(code: str, detail: str, seconds: float | None) -> Problem:
    wait = max(1, math.ceil(UNKNOWN_SECONDS if seconds is None else seconds))
    return Problem(code, f"{detail}: there is room in about {wait} s", headers={"Retry-After": str(wait)})
