"""What every route works with, made once for an application."""

import asyncio
import math
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import redis.asyncio
from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from models.store import ModelStore
from service.access.auth import Auth
from service.access.budgets import Budget
from service.access.pace import Pace
from service.access.usage import Usage
from service.answering.endings import Endings
from service.answering.job_view import JobView
from service.apart.turns import Turns
from service.asking.intake import Intake
from service.asking.uploads import Uploads
from service.drawing.archives import Archives
from service.drawing.drawings import Drawings
from service.following.events import Events
from service.jobs import Jobs
from service.metrics import Metrics
from service.pulse import Pulse
from service.settings import ServiceSettings
from service.together import Together
from service.webhooks.delivery import Slots, Webhooks
from worker.queue.job import Job, JobNotFound
from worker.queue.jobs import JobQueue
from worker.queue.results import Results
from worker.queue.server import connect

ANSWERERS, UNBOUNDED = 16, sys.maxsize  # threads that answer at once, each another client
BODY_SECONDS = 1.0  # that a service which stops waits for what is being sent
PULSE_SHARE = 0.6  # of what a command may take: Redis is found silent before the first request has waited in vain


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
    jobs: Jobs
    auth: Auth
    pace: Pace
    usage: Usage
    pulse: Pulse
    endings: Endings
    uploads: Uploads
    drawings: Drawings
    archives: Archives
    events: Events
    room: Budget  # in bytes, for bodies
    waits: Budget
    threads: Turns
    bodies: set[asyncio.Timeout]  # that are on their way: when each has to be there

    def view(self, job: Job) -> JobView:
        """A job as its client sees it, with what is known of the queue."""
        return JobView.of(job, self.queue.outlook(job))

    def stop(self) -> None:
        """Answers all who wait: the service takes no more requests."""
        self.events.stop()
        self.endings.close()
        soon = asyncio.get_running_loop().time() + BODY_SECONDS
        for body in self.bodies:
            if (body.when() or math.inf) > soon:
                body.reschedule(soon)

    @classmethod
    def of(cls, settings: ServiceSettings) -> "Context":
        """Connects nothing yet: a service starts, and says that it is not ready, without Redis."""
        store = settings.store()
        connection = connect(settings.redis_url, settings.redis_timeout_seconds, attempts=0)
        queue, results = JobQueue(connection, settings), Results(connection)
        async_redis = _connect(settings.redis_url, settings.redis_timeout_seconds)
        pulse = Pulse(_connect(settings.redis_url, PULSE_SHARE * settings.redis_timeout_seconds))
        pulse.guard(connection.connection_pool)
        swift = _connect(settings.redis_url, settings.redis_timeout_seconds)  # of few connections: no stream takes one
        pulse.guard(async_redis.connection_pool)
        pulse.guard(swift.connection_pool)
        messages = _connect(settings.redis_url, settings.redis_timeout_seconds)
        pulse.release(messages.connection_pool)
        together = Together(swift)
        streams = Budget("streams of events", settings.max_event_streams, settings.max_client_event_streams)
        auth, pace = Auth(settings, together), Pace(settings.client_requests_per_second)
        return cls(
            settings=settings,
            store=store,
            queue=queue,
            results=results,
            intake=Intake(settings, store, queue),
            metrics=Metrics(queue, store),
            async_redis=async_redis,
            jobs=Jobs(queue, together),
            auth=auth,
            pace=pace,
            usage=Usage(together),
            pulse=pulse,
            endings=Endings(messages),
            uploads=Uploads(settings),
            drawings=Drawings(settings),
            archives=Archives(settings, pace),
            room=Budget("bytes in bodies", settings.max_bodies_bytes, settings.max_client_bodies_bytes),
            waits=Budget("requests that wait", settings.max_waits, settings.max_client_waits),
            threads=Turns("answers", "of them", ANSWERERS, UNBOUNDED, UNBOUNDED, UNBOUNDED),
            bodies=set(),
            events=Events(async_redis, queue, results, streams, auth.stands),
        )

    def webhooks(self) -> Webhooks:
        """What calls the webhooks of jobs that have ended."""

        async def describe(job_id: str) -> dict[str, Any] | None:
            try:
                job = await run_in_threadpool(self.queue.get, job_id)
            except JobNotFound:
                return None
            return JobView.of(job).model_dump(mode="json")

        def count(result: str) -> None:
            self.metrics.webhooks.labels(result).inc()

        settings = self.settings
        slots = Slots(settings.max_webhooks, settings.max_client_webhooks, settings.max_host_webhooks)
        seal = self.intake.seal
        return Webhooks(self.async_redis, describe, seal, settings.secrets, settings.networks, slots, count)


def _connect(url: str, timeout: float) -> redis.asyncio.Redis:
    """A client; a command that fails is not tried again."""
    return redis.asyncio.Redis.from_url(
        url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
    )


def context_of(request: Request) -> Context:
    """What the application of a request works with."""
    context: Context = request.app.state.context
    return context


async def _context(request: Request) -> Context:
    return context_of(request)


InContext = Annotated[Context, Depends(_context)]
