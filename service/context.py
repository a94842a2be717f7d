"""What every route works with, made once for an application."""

from dataclasses import dataclass
from typing import Annotated

import redis.asyncio
from anyio import CapacityLimiter
from fastapi import Depends, Request
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from models.store import ModelStore
from service.intake import Intake
from service.metrics import Metrics
from service.settings import ServiceSettings
from worker.queue import JobQueue, connect
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


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


InContext = Annotated[Context, Depends(_context)]
