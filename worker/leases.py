"""Leases: the shards that a worker holds in RQ, every change of one at once or not at all.

A lease that was lost means that somebody else has the shard now: then nothing is written.
"""

import logging
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from redis.client import Pipeline
from redis.exceptions import WatchError
from rq.executions import Execution
from rq.job import JobStatus
from rq.utils import now, utcformat
from rq.worker import BaseWorker

from worker.queue import scripts, shards
from worker.queue.job import Record, record_of
from worker.queue.jobs import JobQueue
from worker.queue.scripts import load
from worker.queue.shards import Shard, ShardJob, ShardUnreadable

log = logging.getLogger(__name__)

KEEP = load(Path(__file__).with_name("keep.lua"))


@dataclass(eq=False)
class Lease:
    """A shard that is started, and by whom it is held.

    Args:
        rq_job: of the shard.
        execution: by which it is held.
        record: what Redis had of its job when the lease began.
        saved: what its last worker saved of it.
        begun: when its images were, in seconds since the epoch; None as long as they are not.
        ahead: whether its images go before those in hand that wait.
    """

    rq_job: ShardJob
    execution: Execution
    record: Record
    saved: bytes | None = None
    begun: float | None = None
    ahead: bool = False

    @cached_property
    def shard(self) -> Shard:
        """What is to be done.

        Raises:
            ValueError, TypeError: it is none of ours.
        """
        return self.rq_job.shard

    @property
    def suspect(self) -> bool:
        """Whether so many workers have died with the shard that it has to be alone with the next."""
        return (self.rq_job.retries_left or 0) <= shards.RETRIES - shards.SUSPECT_DEATHS

    @property
    def keys(self) -> tuple[str, str]:
        """What changes when RQ's record or the lease does."""
        return self.rq_job.key, self.rq_job.execution_registry.key

    @cached_property
    def place(self) -> tuple[str, str]:
        """RQ's registry of started jobs, and what stands there while the lease lasts."""
        return self.rq_job.started_job_registry.key, self.execution.composite_key

    def report(
        self,
        image_steps: int,
        pipeline: Pipeline,
        state: bytes = b"",
        sigma: float | None = None,
        seconds: int | None = None,
    ) -> None:
        """Adds the command of `shards.report`, which does nothing if the lease is lost."""
        shards.report(self.shard, image_steps, pipeline, state, sigma, self.place, self.begun, seconds)

    def extend(self, seconds: int, pipeline: Pipeline) -> None:
        """Adds the command that extends the lease. One that is lost is never taken again, and nothing is made anew.

        It is RQ's lease, but by the clock of Redis: by that of this machine another might think that it is over.
        """
        pipeline.eval(KEEP, 1, *self.place, seconds)


@dataclass(frozen=True)
class Done:
    """What has become of a shard.

    Args:
        lease: of the shard.
        made: its images, and what they looked like on their way or nothing; or what a store keeps these under.
        image_steps: of it.
    """

    lease: Lease
    made: Sequence[bytes]
    image_steps: int


@dataclass(frozen=True)
class Started:
    """What has become of shards that were taken.

    Args:
        leases: of those that are started.
        damaged: ids of those of which RQ has what cannot be read; nothing is held of them.
        more: whether others still wait, of whichever model.
    """

    leases: list[Lease]
    damaged: list[str]
    more: bool


class Leases:
    """Takes and ends the leases of one worker.

    Args:
        queue: of all jobs.
        worker: whose counters in RQ are kept.
        seconds: how long a lease lasts without being extended.
    """

    def __init__(self, queue: JobQueue, worker: BaseWorker, seconds: int) -> None:
        self.queue, self.worker, self.seconds = queue, worker, seconds
        self._started, self._finished = queue.rq.started_job_registry.key, queue.rq.finished_job_registry.key

    def start(self, rq_ids: Sequence[str], held: Container[str]) -> Started:
        """Queued -> started, all at once as `scripts.START` says; only those that wait.

        Args:
            rq_ids: of shards that were taken; one that is there twice runs once.
            held: ids of those that this worker holds. One that it does not, but RQ says it does, was started just now
                and only the answer was lost.
        """
        begins = now()
        named = {rq_id: uuid4().hex for rq_id in rq_ids}
        told = self.worker.name, begins.timestamp(), utcformat(begins), self.seconds
        fields = [part for rq_id, lease in named.items() for part in (rq_id, lease, int(rq_id in held))]
        answer: Any = self.queue.connection.eval(scripts.START, 1, self._started, *told, *fields)
        found, jobs, more = answer
        records = {job[0].decode(): record_of(*job) for job in jobs}
        leases: list[Lease] = []
        damaged: list[str] = []
        for (rq_id, lease_id), (starts, of_rq, saved) in zip(named.items(), found, strict=True):
            lease = starts and self._lease(rq_id, lease_id, records[rq_id.rpartition("-")[0]], saved)
            try:
                rq_job = shards.restored(self.queue.connection, rq_id, of_rq)
            except ShardUnreadable:
                damaged.append(rq_id)
                if lease:
                    self.forget(lease)
            else:
                if lease and rq_job is not None:
                    lease.rq_job = rq_job
                    leases.append(lease)
        return Started(leases, damaged, bool(more))

    def _lease(self, rq_id: str, lease_id: str, record: Record, saved: bytes | None) -> Lease:
        """One that has begun, of a shard of which nothing was read so far."""
        connection = self.queue.connection
        execution = Execution(lease_id, rq_id, connection, self.worker.name)
        return Lease(shards.blank(connection, rq_id), execution, record, saved)

    def finish(self, done: Sequence[Done]) -> list[int]:
        """Writes down what shards have made, in one round trip; a job ends with the last one of it.

        Returns 2 for the last one, 1 for another, and 0 if the lease was lost or nobody wants the images.
        """
        ends = now()
        with self.queue.connection.pipeline(transaction=False) as pipeline:
            for one in done:
                lease, shard, (images, frames) = one.lease, one.lease.shard, one.made
                seconds = (ends - lease.execution.created_at).total_seconds()
                pipeline.eval(
                    scripts.STORE,
                    3,
                    *(self._started, self._finished, self.worker.key),
                    *(shard.job_id, "finished", ends.timestamp(), shard.result_ttl, "", shard.number),
                    *(images, one.image_steps, shard.count, frames, lease.begun or ends.timestamp()),
                    *(lease.execution.id, self.worker.name, utcformat(ends), seconds),
                )
            answers = pipeline.execute()
        for one, answer in zip(done, answers, strict=True):
            if answer < 0:
                log.info("shard %s is dropped: lease lost", one.lease.rq_job.id, extra=one.lease.shard.ids)
        return [max(0, answer) for answer in answers]

    def fail(self, lease: Lease, reason: str, image_steps: int | None = None) -> bool:
        """Ends the whole job of a shard: what cannot be fulfilled stays so. Says whether the lease lasted.

        Args:
            lease: of the shard.
            reason: for the client.
            image_steps: done of the shard, which the client is charged for; None for as many as were told before.
        """
        lease.rq_job.reason, lease.rq_job.ended_at = reason, now()

        def commands(lease: Lease, pipeline: Pipeline) -> None:
            if image_steps is not None:
                lease.report(image_steps, pipeline)
            self.worker.increment_failed_job_count(pipeline)
            lease.rq_job.set_status(JobStatus.FAILED, pipeline)
            lease.rq_job._handle_failure(reason, pipeline, self.worker.name)

        return bool(self._end([lease], commands)[1])

    def give_back(self, lease: Lease, image_steps: int, saved: bytes) -> None:
        """Puts a shard to the front of its job, with its state; no retry is spent."""

        def commands(lease: Lease, pipeline: Pipeline) -> None:
            lease.report(image_steps, pipeline, saved)
            shards.again(self.queue.rq, lease.rq_job, lease.shard, pipeline)

        self._end([lease], commands)

    def decline(self, leases: Sequence[Lease]) -> None:
        """Puts shards back as they were, the first to the very front; no retry is spent."""
        self._end(
            leases[::-1], lambda lease, pipeline: shards.again(self.queue.rq, lease.rq_job, lease.shard, pipeline)
        )

    def retry(self, lease: Lease, why: str) -> None:
        """As for a worker that died: puts a shard back for one of its retries, or ends its job if none is left."""
        if not lease.rq_job.retries_left:
            self.fail(lease, f"the last of {shards.RETRIES + 1} attempts failed: {why}")
            return
        lease.rq_job.retries_left -= 1
        self.decline([lease])

    def forget(self, lease: Lease) -> None:
        """Gives up a lease on what nobody wants."""
        with self.queue.connection.pipeline() as pipeline:
            lease.execution.delete(lease.rq_job, pipeline)
            pipeline.execute()

    def _end(
        self, leases: Sequence[Lease], commands: Callable[[Lease, Pipeline], None]
    ) -> tuple[list[Any], set[Lease]]:
        """Carries out the commands of each and ends the leases, all at once; nothing for those that are lost.

        Returns:
            All answers, and the leases that were not lost.
        """
        with self.queue.connection.pipeline() as pipeline:
            while True:
                with suppress(WatchError):
                    pipeline.watch(*(key for lease in leases for key in lease.keys))
                    scores: Any = pipeline.zmscore(self._started, [lease.execution.composite_key for lease in leases])
                    lasting = {lease for lease, score in zip(leases, scores, strict=True) if score is not None}
                    pipeline.multi()
                    for lease in leases:
                        if lease in lasting:
                            commands(lease, pipeline)
                            lease.execution.delete(lease.rq_job, pipeline)
                    answers = pipeline.execute()
                    for lease in leases:
                        if lease not in lasting:
                            log.info("shard %s is dropped: lease lost", lease.rq_job.id, extra=lease.shard.ids)
                    return answers, lasting
