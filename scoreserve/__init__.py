"""The Python client: `Client`, and `AsyncClient` for asyncio.

It knows the service by what goes over the wire alone, so that it imports neither the service nor torch, Redis or RQ.

    from scoreserve import Client

    with Client("http://127.0.0.1:8000") as client:
        job = client.wait(client.sample(count=16, seed=7, sampler="heun"))
        client.grid(job).save("grid.png")
        images = client.arrays(job)  # uint8 [16, height, width, channels]
"""

from scoreserve.aio import AsyncClient
from scoreserve.calls import Ask, Fit, InpaintAsk, Picture, Urgency
from scoreserve.errors import (
    Conflict,
    FieldError,
    JobFailed,
    NotFound,
    ProblemError,
    RateLimited,
    Refused,
    ScoreserveError,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    WaitedTooLong,
    WrongArgument,
)
from scoreserve.events import Ended, Event, Preview, Progress
from scoreserve.flows import Patience
from scoreserve.records import Job, Model, Sampler, State
from scoreserve.sync import Client

__all__ = [
    "Ask",
    "AsyncClient",
    "Client",
    "Conflict",
    "Ended",
    "Event",
    "FieldError",
    "Fit",
    "InpaintAsk",
    "Job",
    "JobFailed",
    "Model",
    "NotFound",
    "Patience",
    "Picture",
    "Preview",
    "ProblemError",
    "Progress",
    "RateLimited",
    "Refused",
    "Sampler",
    "ScoreserveError",
    "State",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "Unreachable",
    "Urgency",
    "WaitedTooLong",
    "WrongArgument",
]
