"""BatchingWorker: an RQ worker that keeps many shards in flight and advances them together.

Stock RQ runs one job at a time, most often in a forked process. Here one process claims shards whenever it has free
slots, steps all of them at once, and finishes each by RQ's own bookkeeping when its images are done. What is private to
RQ stays in this file and in worker.shards.
"""

import logging
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import WatchError
from rq.command import parse_payload
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import JobStatus
from rq.registry import clean_registries
from rq.serializers import JSONSerializer
from rq.suspension import is_suspended
from rq.utils import as_text, now
from rq.worker import SimpleWorker
from rq.worker.base import WorkerStatus
from rq.worker_registration import clean_worker_registry

from worker import shards
from worker.batch import Batch, Part, Refused
from worker.queue import Job, JobNotFound, JobQueue, JobState
from worker.results import encode
from worker.settings import WorkerSettings
from worker.shards import Shard, ShardJob

log = logging.getLogger(__name__)

BEAT_SECONDS = 0.5  # between two reports of progress, which are also the heartbeats of the leases
IDLE_SECONDS = 1  # how long an idle worker waits for a shard at a time
POLL_SECONDS = 0.02  # between two looks for more shards while some are in flight


@dataclass(eq=False)
class Claim:
    """A shard that this worker holds, while its lease lasts."""

    rq_job: ShardJob
    execution: Execution
    shard: Shard
    job: Job
    part: Part


class BatchingWorker(SimpleWorker):
    """Claims shards for the free slots of a Batch and fulfils them.

    Args:
        connection: to the Redis of the queue.
        batch: where the sampling happens.
        settings: lease and grace time.
    """

    def __init__(self, connection: Redis, batch: Batch, settings: WorkerSettings) -> None:
        self.queue = JobQueue(connection, settings)
        super().__init__(
            [self.queue.rq],
            connection=connection,
            job_class=ShardJob,
            serializer=JSONSerializer,
            maintenance_interval=settings.lease_seconds,
            worker_ttl=3 * settings.lease_seconds + 15,
            log_job_description=False,
        )
        self.batch, self.settings = batch, settings
        self._claims: dict[str, Claim] = {}
        self._stop_commands: deque[str] = deque()
        self._drain_until = float("inf")
        self._next_beat = self._next_look = 0.0

    # What RQ calls.

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> Any:
        """Waits until something is claimed; None ends the worker."""
        self.set_state(WorkerStatus.IDLE)
        idle_since = time.monotonic()
        while not self._stop_requested:
            self.heartbeat(3 * self.settings.lease_seconds)
            if self.should_run_maintenance_tasks:
                self.run_maintenance_tasks()
            if is_suspended(self.connection, self):
                if timeout is None:
                    raise StopRequested
                time.sleep(IDLE_SECONDS)
            elif self._claim(wait=timeout is not None):
                return True, None  # handed to execute_job, which looks at the claims instead
            elif timeout is None or (max_idle_time and time.monotonic() - idle_since > max_idle_time):
                return None
        return None

    def execute_job(self, *_: Any) -> None:
        """Steps the batch until nothing is in flight, claiming more whenever slots are free."""
        while self._claims:
            clock = time.monotonic()
            if clock >= self._next_beat:
                self._next_beat = clock + BEAT_SECONDS
                self._beat()
            if clock >= self._drain_until:
                self._hand_back()
            self._step()
            if self.batch.free and not self._stop_requested and clock >= self._next_look:
                self._next_look = clock + POLL_SECONDS
                if not is_suspended(self.connection, self):
                    self._claim(wait=False)
        self.set_state(WorkerStatus.IDLE)

    def get_heartbeat_ttl(self, job: Any) -> int:  # noqa: ARG002
        return self.settings.lease_seconds

    def clean_registries(self) -> None:
        """Requeues what dead workers held. RQ's own lock would outlive a worker killed here by a quarter of an hour."""
        queue = self.queue.rq
        if self.connection.set(f"{queue.registry_cleaning_key}:lease", 1, nx=True, ex=self.settings.lease_seconds):
            clean_registries(queue)
            clean_worker_registry(queue)
            queue.intermediate_queue.cleanup(self, queue)
        self.last_cleaned_at = now()  # type: ignore[assignment]

    def handle_payload(self, message: dict[str, Any]) -> None:
        """Commands of RQ's command line; called by the pub/sub thread."""
        payload = parse_payload(message)
        if payload["command"] == "stop-job":
            self._stop_commands.append(payload["job_id"])
        elif payload["command"] == "shutdown":
            super().handle_payload(message)

    def _shutdown(self) -> None:
        """SIGTERM or SIGINT: claim nothing more, go on for the grace time. Never raises in the middle of a command."""
        self._stop_requested = True
        self._drain_until = time.monotonic() + self.settings.grace_seconds

    # Claiming.

    def _claim(self, wait: bool) -> bool:
        """Claims shards for the free slots; says whether there were any. With `wait`, waits a moment for the first."""
        found = False
        while self.batch.free:
            rq_id = self._take(wait and not found)
            if rq_id is None:
                break
            found = True
            started = self._start(rq_id)
            if started is not None:
                self._admit(*started)
        return found

    def _take(self, wait: bool) -> str | None:
        """Moves the next shard's id to RQ's intermediate list, where it is safe from a crash before `_start`."""
        queue = self.queue.rq
        keys = queue.key, queue.intermediate_queue_key
        taken = self.connection.blmove(*keys, IDLE_SECONDS) if wait else self.connection.lmove(*keys)
        return None if taken is None else as_text(taken)

    def _start(self, rq_id: str) -> tuple[ShardJob, Execution] | None:
        """Queued -> started in one transaction, so that an id pushed twice runs once; None if it is not queued."""
        queue, key = self.queue.rq, ShardJob.key_for(rq_id)
        with self.connection.pipeline() as pipeline:
            while True:
                with suppress(WatchError):
                    pipeline.watch(key)
                    job = self._fetch(rq_id)
                    queued = job is not None and job.get_status(refresh=False) == JobStatus.QUEUED
                    pipeline.multi()
                    pipeline.lrem(queue.intermediate_queue_key, 1, rq_id)
                    execution = None
                    if job is not None and queued:
                        pipeline.delete(job.execution_registry.key)  # a dead worker's entry would break job.delete()
                        execution = Execution.create(job, self.settings.lease_seconds, pipeline, self.name)
                        job.prepare_for_execution(self.name, pipeline)
                        pipeline.persist(job.key)
                        self.set_current_job_id(rq_id, pipeline=pipeline)
                        self.set_state(WorkerStatus.BUSY, pipeline=pipeline)
                    pipeline.execute()
                    return None if job is None or execution is None else (job, execution)

    def _fetch(self, rq_id: str) -> ShardJob | None:
        jobs: Any = ShardJob.fetch_many([rq_id], connection=self.connection, serializer=JSONSerializer)
        return jobs[0]  # type: ignore[no-any-return]

    def _admit(self, rq_job: ShardJob, execution: Execution) -> None:
        """Hands a started shard to the batch."""
        rq_job.redis_server_version = self.get_redis_server_version()
        try:
            shard = rq_job.shard
            job = self.queue.get(shard.job_id)
        except (JobNotFound, ValueError, TypeError) as error:
            log.warning("shard %s is dropped: %s", rq_job.id, error)
            self._let_go(rq_job, execution)
            with suppress(ValueError):
                rq_job.delete()
            return
        try:
            part = self.batch.admit(job.request, shard.first, shard.count)
        except Refused as error:
            self._fail(rq_job, execution, job, str(error))
            return
        self._claims[rq_job.id] = Claim(rq_job, execution, shard, job, part)
        log.info("claimed shard %s: %d images of job %s", rq_job.id, shard.count, shard.job_id)
        self._next_beat = 0.0

    # Working.

    def _step(self) -> None:
        try:
            finished = self.batch.step()
        except Exception:  # whatever a device can throw: every shard in hand goes back, and spends one retry
            log.exception("a step failed; its shards are tried again")
            for claim in list(self._claims.values()):
                self._retry(claim)
            return
        for part in finished:
            self._finish(next(claim for claim in self._claims.values() if claim.part is part))

    def _beat(self) -> None:
        """One round trip: reports progress, extends the leases, and drops what is no longer ours or wanted."""
        claims = list(self._claims.values())
        with self.connection.pipeline(transaction=False) as pipeline:
            for claim in claims:
                shards.report(claim.shard, claim.part.image_steps_done, pipeline)
                pipeline.zscore(claim.rq_job.started_job_registry.key, claim.execution.composite_key)
            for claim in claims:  # ZADD XX: a lost lease is never taken again
                claim.execution.heartbeat(claim.rq_job.started_job_registry, self.settings.lease_seconds, pipeline)
            self.heartbeat(3 * self.settings.lease_seconds, pipeline=pipeline)
            answers = pipeline.execute()
        for claim, wanted, lease in zip(claims, answers[0::2], answers[1::2], strict=False):
            if not wanted or lease is None:
                log.info("shard %s is dropped: %s", claim.rq_job.id, "lease lost" if wanted else "job has ended")
                self._drop(claim)
        while self._stop_commands:
            stopped = self._claims.get(self._stop_commands.popleft())
            if stopped is not None:
                self.queue.end(stopped.job, JobState.CANCELLED, "stopped by an operator")
                self._drop(stopped)
        if self.should_run_maintenance_tasks:
            self.run_maintenance_tasks()

    def _hand_back(self) -> None:
        """Requeues every shard in flight at the front of its queue; no retry is spent."""
        for claim in reversed(list(self._claims.values())):
            log.info("handing shard %s back", claim.rq_job.id)
            self._drop(claim, requeue=True)

    # Finishing. A lease that was lost means that somebody else has the shard now: then nothing is written.

    def _finish(self, claim: Claim) -> None:
        rq_job = claim.rq_job
        if not self._holds(claim):
            self._drop(claim)
            return
        try:
            images = claim.part.pixels()
        except Refused as error:
            self._claims.pop(rq_job.id)
            self._fail(rq_job, claim.execution, claim.job, str(error))
            return
        self._claims.pop(rq_job.id)
        rq_job.outcome = encode(images), claim.part.image_steps_done, len(images)
        rq_job.ended_at, rq_job._status = now(), JobStatus.FINISHED
        self.execution = claim.execution
        self.handle_job_success(rq_job, self.queue.rq, rq_job.started_job_registry)

    def _fail(self, rq_job: ShardJob, execution: Execution, job: Job, reason: str) -> None:
        """Ends the whole job: bad input stays bad, so no retry is left for it."""
        rq_job.retries_left, rq_job.reason = 0, reason
        rq_job.ended_at, rq_job._status = now(), JobStatus.FAILED
        self.execution = execution
        log.warning("job %s failed: %s", job.id, reason)
        self.handle_job_failure(rq_job, self.queue.rq, rq_job.started_job_registry, exc_string=reason)
        self.queue.end(job, JobState.FAILED, reason)

    def _retry(self, claim: Claim) -> None:
        """After a failure that may pass: RQ requeues the shard while it has retries left."""
        self._claims.pop(claim.rq_job.id)
        self.batch.drop(claim.part)
        claim.rq_job.reason = "the device failed on every attempt"
        claim.rq_job.ended_at, claim.rq_job._status = now(), JobStatus.FAILED
        self.execution = claim.execution
        self.handle_job_failure(claim.rq_job, self.queue.rq, claim.rq_job.started_job_registry, exc_string="")

    def _holds(self, claim: Claim) -> bool:
        key = claim.rq_job.started_job_registry.key
        return self.connection.zscore(key, claim.execution.composite_key) is not None

    def _drop(self, claim: Claim, requeue: bool = False) -> None:
        """Takes a shard out of the batch, and gives it back to the queue if asked to."""
        self._claims.pop(claim.rq_job.id)
        self.batch.drop(claim.part)
        self._let_go(claim.rq_job, claim.execution, requeue)

    def _let_go(self, rq_job: ShardJob, execution: Execution, requeue: bool = False) -> None:
        with self.connection.pipeline() as pipeline:
            execution.delete(rq_job, pipeline)
            if requeue:
                self.queue.rq._enqueue_job(rq_job, pipeline=pipeline, at_front=True)
            pipeline.execute()
