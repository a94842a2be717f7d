"""/healthz, /readyz and /metrics: what operators ask."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from redis.exceptions import RedisError

from service.context import InContext

router = APIRouter(tags=["operation"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Whether the process is alive."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: {"description": "Redis does not answer, or no worker is alive."}})
def readyz(context: InContext) -> JSONResponse:
    """Whether a job would be accepted and worked on: Redis answers and a worker is alive."""
    try:
        workers = context.queue.workers()
    except RedisError:
        return JSONResponse({"status": "not ready", "reason": "Redis does not answer"}, 503)
    if workers == 0:
        return JSONResponse({"status": "not ready", "reason": "no worker is alive: start `scoreserve worker`"}, 503)
    return JSONResponse({"status": "ready", "workers": workers})


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(context: InContext) -> Response:
    """Metrics in the text format of Prometheus."""
    return Response(context.metrics.render(), media_type=CONTENT_TYPE_LATEST)
