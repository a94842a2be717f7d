"""What every route works with, made once for an application."""

from dataclasses import dataclass
from typing import Annotated, Any

import redis.asyncio
from anyio import CapacityLimiter
from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from models.store import ModelStore
from service.intake import Intake
from service.metrics import Metrics
from service.schemas import JobView
from service.settings import ServiceSettings
from service.webhooks import Webhooks
from worker.queue import JobNotFound, JobQueue, connect
from worker.results import Results

DECODERS = 2  # pictures that are decoded at a time, since large ones take some time and memory


@dataclass(frozen=True)
class Context:
    """The parts of one application."""

    settings: ServiceSettings
    store: ModelStore
    queue: JobQueue
    results: Results
    intake: Intake
    metrics: Metrics
    async_redis: redis.asyncio.Redis
    decoders: CapacityLimiter

    @classmethod
    def of(cls, settings: ServiceSettings) -> "Context":
        """Connects nothing yet: a service starts, and says that it is not ready, without Redis."""
        store = settings.store()
        connection = connect(settings.redis_url, settings.redis_timeout_seconds, attempts=0)
        queue = JobQueue(connection, settings)
        return cls(
            settings=settings,
            store=store,
            queue=queue,
            results=Results(connection),
            intake=Intake(settings, store, queue),
            metrics=Metrics(queue, store),
            async_redis=redis.asyncio.Redis.from_url(
                settings.redis_url,
                socket_timeout=settings.redis_timeout_seconds,
                socket_connect_timeout=settings.redis_timeout_seconds,
                retry=Retry(NoBackoff(), 0),
            ),
            decoders=CapacityLimiter(DECODERS),
        )

    def webhooks(self) -> Webhooks:
        """What calls the webhooks of jobs that have ended."""

        async def describe(job_id: str) -> dict[str, Any] | None:
            try:
                job = await run_in_threadpool(self.queue.get, job_id)
            except JobNotFound:
                return None
            return JobView.of(job, None).model_dump(mode="json")

        def count(result: str) -> None:
            self.metrics.webhooks.labels(result).inc()

        return Webhooks(self.async_redis, describe, self.settings.secrets, self.settings.networks, count)


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


InContext = Annotated[Context, Depends(_context)]
