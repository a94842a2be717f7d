"""Jobs: the queue for handlers that run on the event loop, with one round trip to Redis each, or less."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from fastapi.concurrency import run_in_threadpool
from redis.exceptions import ResponseError

from service.access import quotas
from service.answering.job_view import JobView
from service.answering.problems import Problem
from service.together import Together
from worker.queue import keys, scripts
from worker.queue.idempotency import AcceptedBefore, AnotherRequest, Once
from worker.queue.job import Job, JobUnreadable, job_of
from worker.queue.jobs import JobQueue
from worker.queue.offer import Drained, Offer, TooMuch
from worker.queue.server import wrong_type


@dataclass(frozen=True)
class Accepted:
    """An accepted job; `replayed`, if it was accepted before, when the same request came under the same key."""

    job: Job
    replayed: bool = False


class Jobs:
    """What `JobQueue` does, for the event loop.

    Args:
        queue: of the same Redis.
        redis: it.
    """

    def __init__(self, queue: JobQueue, redis: Together) -> None:
        self.queue, self.redis = queue, redis
        self._look: asyncio.Task[None] | None = None

    async def before(self, once: Once | None) -> Accepted | None:
        """The job of a request that was accepted before, if it was.

        Raises:
            Problem: its key came with another request before.
        """
        if once is None:
            return None
        try:
            job = await run_in_threadpool(self.queue.accepted_before, once)
        except AnotherRequest as error:
            raise _mismatch(error) from error
        return None if job is None else Accepted(job, replayed=True)

    async def accept(self, offer: Offer, headers: quotas.Headers) -> Accepted:
        """Accepts a job. Adds to the headers of the answer how much more the client may have in flight.

        Raises:
            Problem: its model is drained, there is too much in flight, or its key came with another request before.
        """
        if self.queue.forecast.wants_pace(model := offer.job.request.model):
            await run_in_threadpool(self.queue.forecast.look_at_paces, model)
            offer = self.queue.timed(offer)
        answer = await self.redis.script(scripts.ACCEPT, 2, *offer.arguments)
        against, there, *_ = answer
        if against != b"before":
            headers += quotas.in_flight_headers(offer.limits, there + (0 if against else offer.job.image_steps))
        try:
            return Accepted(offer.accepted(answer))
        except AcceptedBefore as error:
            return Accepted(await self.get(error.job_id), replayed=True)
        except AnotherRequest as error:
            raise _mismatch(error) from error
        except Drained as error:
            raise Problem(
                "drained", f"the model {error} takes no new requests for now, by its operator's will"
            ) from error
        except TooMuch as error:
            problem = await run_in_threadpool(quotas.refusal, error, self.queue.forecast)
            raise problem from error

    async def get(self, job_id: str) -> Job:
        """A job by its id, as `JobQueue.get` finds it.

        Raises:
            JobNotFound: there is none.
        """
        asked = ("HGETALL", keys.of(job_id)), ("HVALS", keys.of(job_id, "progress"))
        try:
            record, progress = await self.redis.execute(*asked)
        except ResponseError as error:
            if wrong_type(error):
                raise JobUnreadable(job_id) from error
            raise
        job = job_of(job_id, record, progress)
        if job.deadline is not None and not job.state.final and time.time() >= job.deadline:
            return await run_in_threadpool(self.queue.get, job_id)
        return job

    async def ended(self, job_id: str) -> bool:
        """Whether a job has ended, or is forgotten; however many wait, they need no connections of their own."""
        (ended,) = await self.redis.execute(("HEXISTS", keys.of(job_id), "ended_at"))
        return bool(ended)

    async def view(self, job: Job) -> JobView:
        """A job as its client sees it, with what it has before it."""
        if job.state.final:
            return JobView.of(job)
        if not self.queue.forecast.fresh:
            if self._look is None or self._look.done():  # of many requests at once, one looks
                look: Any = run_in_threadpool(self.queue.forecast.look)
                self._look = asyncio.ensure_future(look)
            await asyncio.shield(self._look)
        return JobView.of(job, self.queue.outlook(job, look=False))


def _mismatch(error: AnotherRequest) -> Problem:
    return Problem("idempotency-mismatch", f"with this Idempotency-Key you sent another request, which is job {error}")
