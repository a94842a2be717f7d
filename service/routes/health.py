"""/healthz, /readyz and /metrics: what operators ask."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from service.answering.problems import Problem, responses
from service.context import InContext
from service.metrics import OPEN, TEXT
from service.routes.threaded import ThreadedRoute

router = APIRouter(tags=["operation"], route_class=ThreadedRoute)


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = Field("alive", examples=["alive"])


class Ready(BaseModel):
    """Jobs are accepted and worked on."""

    status: Literal["ready"] = Field("ready", examples=["ready"])
    workers: int = Field(description="How many are alive.", examples=[1])


@router.get("/healthz", operation_id="getHealth", summary="Whether the process is alive")
async def healthz() -> Alive:
    """Whether the process is alive."""
    return Alive()


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Whether a job would be worked on",
    responses=responses("no-worker", "unavailable"),
)
def readyz(context: InContext) -> Ready:
    """Whether a job would be accepted and worked on: Redis answers and a worker is alive, and not suspended."""
    workers = context.queue.workers()
    if workers == 0:
        raise Problem("no-worker", "no worker is alive: start `scoreserve worker`")
    if context.queue.suspended():
        raise Problem("no-worker", "the workers are suspended, and take nothing: `rq resume` lets them go on")
    return Ready(workers=workers)


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {TEXT: {}, OPEN: {}}}, **responses("not-found")},
)
def metrics(request: Request, context: InContext) -> Response:
    """Metrics in the text format of Prometheus, or as OpenMetrics, unless they have a port of their own."""
    if context.settings.api_metrics_port is not None:
        raise Problem("not-found", "metrics have a port of their own here, for Prometheus alone")
    text, media_type = context.metrics.render(",".join(request.headers.getlist("accept")))
    return Response(text, media_type=media_type, headers={"Vary": "Accept"})
