"""What every route works with, made once for an application."""

from dataclasses import dataclass
from typing import Annotated

import redis.asyncio
from fastapi import Depends, Request
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from models.store import ModelStore
from service.events import Events
from service.intake import Intake
from service.metrics import Metrics
from service.schemas import JobView
from service.settings import ServiceSettings
from worker.queue import Job, JobQueue, connect
from worker.results import Results


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
    events: Events

    def view(self, job: Job) -> JobView:
        """A job as its client sees it, with what is known of the queue."""
        return JobView.of(job, self.queue.seconds_left(job), self.queue.position(job))

    @classmethod
    def of(cls, settings: ServiceSettings) -> "Context":
        """Connects nothing yet: a service starts, and says that it is not ready, without Redis."""
        store = settings.store()
        connection = connect(settings.redis_url, settings.redis_timeout_seconds, attempts=0)
        queue, results = JobQueue(connection, settings), Results(connection)
        async_redis = redis.asyncio.Redis.from_url(
            settings.redis_url,
            socket_timeout=settings.redis_timeout_seconds,
            socket_connect_timeout=settings.redis_timeout_seconds,
            retry=Retry(NoBackoff(), 0),
        )
        return cls(
            settings=settings,
            store=store,
            queue=queue,
            results=results,
            intake=Intake(settings, store, queue),
            metrics=Metrics(queue, store),
            async_redis=async_redis,
            events=Events(async_redis, queue, results, settings.max_event_streams),
        )


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


InContext = Annotated[Context, Depends(_context)]
