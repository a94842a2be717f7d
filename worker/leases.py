"""Leases: the shards that a worker holds in RQ, every change of one in a transaction.

A lease that was lost means that somebody else has the shard now: then nothing is written.
"""

import logging
import time
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.client import Pipeline
from redis.exceptions import WatchError
from rq.executions import Execution
from rq.job import JobStatus
from rq.utils import now
from rq.worker import BaseWorker

from worker.queue import shards
from worker.queue.jobs import JobQueue
from worker.queue.scripts import load
from worker.queue.shards import Shard, ShardJob

log = logging.getLogger(__name__)

KEEP = load(Path(__file__).with_name("keep.lua"))


@dataclass(eq=False)
class Lease:
    """A shard that is started, and by whom it is held."""

    rq_job: ShardJob
    execution: Execution

    @property
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

    def answer(self, pipeline: Pipeline) -> None:
        """Adds the question whether the lease lasts; no answer if it is lost."""
        pipeline.zscore(self.rq_job.started_job_registry.key, self.execution.composite_key)

    def report(self, image_steps: int, pipeline: Pipeline, state: bytes = b"", sigma: float | None = None) -> None:
        """Adds the command of `shards.report`, which does nothing if the lease is lost."""
        lease = self.rq_job.started_job_registry.key, self.execution.composite_key
        shards.report(self.shard, image_steps, pipeline, state, sigma, lease)

    def extend(self, seconds: int, pipeline: Pipeline) -> None:
        """Adds the commands that extend the lease. One that is lost is never taken again, and nothing is made anew.

        It is RQ's lease, but by the clock of Redis: by that of this machine another might think that it is over.
        """
        pipeline.eval(KEEP, 1, self.rq_job.started_job_registry.key, self.execution.composite_key, seconds)
        pipeline.expire(self.execution.key, seconds)
        executions = self.rq_job.execution_registry
        pipeline.zadd(executions.key, {self.execution.id: time.time() + seconds + 60}, xx=True)  # for RQ's own tools
        pipeline.expire(executions.key, seconds + 60)


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


class Leases:
    """Takes and ends the leases of one worker.

    Args:
        queue: of all jobs.
        worker: whose counters in RQ are kept.
        seconds: how long a lease lasts without being extended.
    """

    def __init__(self, queue: JobQueue, worker: BaseWorker, seconds: int) -> None:
        self.queue, self.worker, self.seconds = queue, worker, seconds

    def start(self, rq_ids: Sequence[str], held: Container[str]) -> list[Lease]:
        """Queued -> started in one transaction, so that an id that is there twice runs once; only those that wait.

        Args:
            rq_ids: of shards that were taken.
            held: ids of those that this worker holds. One that it does not, but RQ says it does, was started just now
                and only the answer was lost.

        Raises:
            ShardUnreadable: what RQ has of one is damaged.
        """
        with self.queue.connection.pipeline() as pipeline:
            while True:
                with suppress(WatchError):
                    pipeline.watch(*map(ShardJob.key_for, rq_ids))
                    found = shards.fetch_many(self.queue.connection, rq_ids)
                    pipeline.multi()
                    for rq_id in rq_ids:
                        shards.started(rq_id, pipeline)
                    waiting = [job for job in found if job is not None and self._may_start(job, held)]
                    leases = [self._start(job, pipeline) for job in waiting]
                    pipeline.execute()
                    return leases

    def _start(self, job: ShardJob, pipeline: Pipeline) -> Lease:
        """Adds the commands that begin a lease."""
        pipeline.delete(job.execution_registry.key)  # a dead worker's entry would break job.delete()
        lease = Lease(job, Execution.create(job, self.seconds, pipeline, self.worker.name))
        job.prepare_for_execution(self.worker.name, pipeline)
        pipeline.persist(job.key)
        lease.extend(self.seconds, pipeline)
        return lease

    def finish(self, done: Sequence[Done]) -> list[int]:
        """Writes down what shards have made; a job ends with the last one of it.

        Returns 2 for the last one, 1 for another, and 0 if the lease was lost or nobody wants the images.
        """
        outcomes = {one.lease: one for one in done}
        stored: dict[Lease, int] = {}  # the place of its answer

        def commands(lease: Lease, pipeline: Pipeline) -> None:
            rq_job, one, ttl = lease.rq_job, outcomes[lease], lease.shard.result_ttl
            images, frames = one.made
            rq_job.outcome = images, one.image_steps, lease.shard.count, frames
            rq_job.ended_at, rq_job._status = now(), JobStatus.FINISHED
            self.worker.increment_successful_job_count(pipeline)
            self.worker.increment_total_working_time(now() - lease.execution.created_at, pipeline)
            rq_job._handle_success(ttl, pipeline, self.worker.name)
            stored[lease] = len(pipeline) - 1  # scripts.STORE is the last of them
            rq_job.cleanup(ttl, pipeline, remove_from_queue=False)

        answers, lasting = self._end([one.lease for one in done], commands)
        return [int(answers[stored[one.lease]]) if one.lease in lasting else 0 for one in done]

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
                    scores: Any = pipeline.zmscore(
                        self.queue.rq.started_job_registry.key, [lease.execution.composite_key for lease in leases]
                    )
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

    def _may_start(self, job: ShardJob, held: Container[str]) -> bool:
        status = job.get_status(refresh=False)
        ours = job.worker_name == self.worker.name and job.id not in held
        return status == JobStatus.QUEUED or (status == JobStatus.STARTED and ours)
