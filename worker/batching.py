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
from queue import Empty, SimpleQueue
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, WatchError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq import worker_registration
from rq.command import parse_payload
from rq.executions import Execution
from rq.job import JobStatus
from rq.registry import clean_registries
from rq.serializers import JSONSerializer
from rq.suspension import WORKERS_SUSPENDED
from rq.utils import as_text, now
from rq.worker import SimpleWorker
from rq.worker.base import WorkerStatus

from worker import shards, state
from worker.batch import Batch, Refused
from worker.lane import DeviceFailed, Part
from worker.queue import Job, JobNotFound, JobQueue, JobState
from worker.results import encode
from worker.settings import WorkerSettings
from worker.shards import Shard, ShardJob

log = logging.getLogger(__name__)

BEAT_SECONDS = 0.5  # between two reports of progress, which are also the heartbeats of the leases
POLL_SECONDS = 0.02  # between two looks for more shards
AWAY_SECONDS = 0.5  # between two tries to reach a Redis that is away or full
UNAVAILABLE = (RedisConnectionError, RedisTimeoutError, OutOfMemoryError, ReadOnlyError)


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
        self._started: deque[tuple[ShardJob, Execution]] = deque()  # claimed, and not yet in the batch
        self._ended: deque[Claim] = deque()  # done or at fault, and not yet written down
        self._mail: SimpleQueue[dict[str, Any]] = SimpleQueue()  # from signal handlers and the pub/sub thread
        self._drain_until = float("inf")
        self._next_beat = self._next_look = self._away_until = 0.0
        self._reported_steps = batch.image_steps
        self._suspended = False

    def work(self, burst: bool = False, *_: Any, **__: Any) -> bool:
        """Fulfils shards until it is told to stop or, with `burst`, until nothing waits; says whether there were any.

        While Redis is away or full, the batch goes on and what is done waits in memory.

        Raises:
            DeviceFailed: only another process can go on.
        """
        worked = False
        self.bootstrap("WARNING")
        self._install_signal_handlers()
        try:
            while True:
                self._advance()
                idle = self._talk()
                worked |= bool(self._claims)
                if not self._claims:
                    if self._stop_requested or (burst and idle):
                        return worked
                    self._sleep()
        except DeviceFailed:
            self._hand_back(retry=True)
            raise
        finally:
            with suppress(RedisError):
                self._beat()
                self.teardown()

    def request_force_stop(self, *_: Any) -> None:
        """A second SIGTERM or SIGINT: the grace time is over."""
        self._drain_until = 0.0

    # What RQ calls.

    def get_heartbeat_ttl(self, job: Any) -> int:  # noqa: ARG002
        return self.settings.lease_seconds

    def clean_registries(self) -> None:
        """Requeues what dead workers held. RQ's own lock would outlive a worker killed here by a quarter of an hour."""
        queue = self.queue.rq
        if self.connection.set(f"{queue.registry_cleaning_key}:lease", 1, nx=True, ex=self.settings.lease_seconds):
            clean_registries(queue)
            worker_registration.clean_worker_registry(queue)
            queue.intermediate_queue.cleanup(self, queue)
        self.last_cleaned_at = now()  # type: ignore[assignment]

    def handle_payload(self, message: dict[str, Any]) -> None:
        """Commands of RQ's command line; called by the pub/sub thread."""
        payload = parse_payload(message)
        if payload["command"] == "stop-job":
            self._mail.put(payload)
        elif payload["command"] == "shutdown":
            super().handle_payload(message)

    def _pubsub_exception_handler(self, exc: Exception, *_: Any) -> None:
        """The pub/sub thread lives as long as the worker, whatever happens to Redis."""
        log.debug("no messages for now: %s", exc)
        time.sleep(AWAY_SECONDS)

    def _shutdown(self) -> None:
        """SIGTERM or SIGINT: claim nothing more, go on for the grace time. Never raises in the middle of a command."""
        self._stop_requested = True
        self._drain_until = time.monotonic() + self.settings.grace_seconds
        self._mail.put({"command": "wake"})

    # One turn.

    def _advance(self) -> None:
        ended = self.batch.step()
        if time.monotonic() >= self._next_beat:
            ended += self.batch.diverged()
        for part in ended:
            self._ended.append(next(claim for claim in self._claims.values() if claim.part is part))

    def _talk(self) -> bool | None:
        """All that is due with Redis; says whether nothing was there to claim, or None if Redis is away or full."""
        clock = time.monotonic()
        if clock < self._away_until:
            return None
        try:
            while self._ended:
                self._settle(self._ended[0])
                self._ended.popleft()
            if clock >= self._next_beat:
                self._beat()
                self._next_beat = clock + BEAT_SECONDS
            self._read_mail()
            if clock >= self._drain_until:
                self._hand_back()
            return not (self._look_due(clock) and self._claim())
        except UNAVAILABLE as error:
            if self._away_until == 0:
                log.warning("Redis is away or full; going on without: %s", error)
            self._away_until = clock + AWAY_SECONDS
            return None
        finally:
            if clock >= self._away_until > 0:
                log.info("Redis is back")
                self._away_until = 0.0

    def _look_due(self, clock: float) -> bool:
        if self._stop_requested or self._suspended or not self.batch.free or (self._claims and clock < self._next_look):
            return False
        self._next_look = clock + POLL_SECONDS
        return True

    def _sleep(self) -> None:
        """Until there is mail, or it is time to look again."""
        if self._away_until:
            time.sleep(POLL_SECONDS)
            return
        with suppress(Empty):
            self._mail.put(self._mail.get(timeout=POLL_SECONDS))

    def _step(self) -> None:
        """One step, and what is ended by it."""
        self._advance()
        while self._ended:
            self._settle(self._ended.popleft())

    # Claiming.

    def _claim(self) -> bool:
        """Claims shards for the free slots; says whether there were any."""
        found = False
        while True:
            while self._started:  # Redis may go away in the middle: nothing that was claimed is forgotten
                self._admit(*self._started[0])
                self._started.popleft()
            rq_id = self._take() if self.batch.free else None
            if rq_id is None:
                return found
            found = True
            self._start(rq_id)

    def _take(self) -> str | None:
        """Moves the next shard's id to RQ's intermediate list, where it is safe from a crash before `_start`."""
        queue = self.queue.rq
        taken = self.connection.lmove(queue.key, queue.intermediate_queue_key)
        return None if taken is None else as_text(taken)

    def _start(self, rq_id: str) -> None:
        """Queued -> started in one transaction, so that an id pushed twice runs once."""
        queue, key = self.queue.rq, ShardJob.key_for(rq_id)
        with self.connection.pipeline() as pipeline:
            while True:
                with suppress(WatchError):
                    pipeline.watch(key)
                    job = self._fetch(rq_id)
                    pipeline.multi()
                    pipeline.lrem(queue.intermediate_queue_key, 1, rq_id)
                    execution = None
                    if job is not None and self._may_start(job):
                        pipeline.delete(job.execution_registry.key)  # a dead worker's entry would break job.delete()
                        execution = Execution.create(job, self.settings.lease_seconds, pipeline, self.name)
                        job.prepare_for_execution(self.name, pipeline)
                        pipeline.persist(job.key)
                        self.set_current_job_id(rq_id, pipeline=pipeline)
                        self.set_state(WorkerStatus.BUSY, pipeline=pipeline)
                    pipeline.execute()
                    if job is not None and execution is not None:
                        self._started.append((job, execution))
                    return

    def _may_start(self, job: ShardJob) -> bool:
        """Whether it waits, or was started here just now and only the answer was lost."""
        status = job.get_status(refresh=False)
        ours = job.worker_name == self.name and job.id not in self._claims
        return status == JobStatus.QUEUED or (status == JobStatus.STARTED and ours)

    def _fetch(self, rq_id: str) -> ShardJob | None:
        jobs: Any = ShardJob.fetch_many([rq_id], connection=self.connection, serializer=JSONSerializer)
        return jobs[0]  # type: ignore[no-any-return]

    def _admit(self, rq_job: ShardJob, execution: Execution) -> None:
        """Hands a started shard to the batch, where its last worker left it."""
        rq_job.redis_server_version = self.get_redis_server_version()
        try:
            shard = rq_job.shard
            job = self.queue.get(shard.job_id)
        except (JobNotFound, ValueError, TypeError) as error:
            log.warning("shard %s is dropped: %s", rq_job.id, error)
            self._forget(rq_job, execution)
            with suppress(ValueError):
                rq_job.delete()
            return
        saved: Any = self.connection.hget(shards.state_key(job.id), str(shard.number))
        try:
            part = self.batch.admit(job.request, shard.first, shard.count, saved)
        except Refused as error:
            self._fail(rq_job, execution, job, str(error))
            return
        self._claims[rq_job.id] = Claim(rq_job, execution, shard, job, part)
        log.info("claimed shard %s: %d images of job %s", rq_job.id, shard.count, shard.job_id)
        self._next_beat = 0.0

    # Holding.

    def _beat(self) -> None:
        """One round trip: reports progress, extends the leases, and drops what is no longer ours or wanted."""
        claims = list(self._claims.values())
        steps = self.batch.image_steps
        with self.connection.pipeline(transaction=False) as pipeline:
            for claim in claims:
                shards.report(claim.shard, claim.part.image_steps_done, pipeline)
                pipeline.zscore(claim.rq_job.started_job_registry.key, claim.execution.composite_key)
            for claim in claims:  # ZADD XX: a lost lease is never taken again
                claim.execution.heartbeat(claim.rq_job.started_job_registry, self.settings.lease_seconds, pipeline)
            pipeline.hincrby(shards.TOTALS, "image_steps_computed", steps - self._reported_steps)
            self.set_state(WorkerStatus.BUSY if claims else WorkerStatus.IDLE, pipeline)
            self.set_current_job_id(claims[0].rq_job.id if claims else None, pipeline)
            pipeline.exists(WORKERS_SUSPENDED)
            self.heartbeat(3 * self.settings.lease_seconds, pipeline=pipeline)
            answers = pipeline.execute()
        self._reported_steps = steps
        *_, self._suspended, unknown, _ = answers
        if unknown and self.birth_date:
            self._register_again()
        for claim, wanted, lease in zip(claims, answers[0::2], answers[1::2], strict=False):
            if not wanted or lease is None:
                log.info("shard %s is dropped: %s", claim.rq_job.id, "lease lost" if wanted else "job has ended")
                self._drop(claim)
                self._forget(claim.rq_job, claim.execution)
        if self.should_run_maintenance_tasks:
            self.run_maintenance_tasks()

    def _register_again(self) -> None:
        """After a time in which this worker passed for dead."""
        with self.connection.pipeline() as pipeline:
            pipeline.hset(self.key, mapping=self.serialize())
            worker_registration.register(self, pipeline)
            pipeline.execute()

    def _read_mail(self) -> None:
        with suppress(Empty):
            while True:
                message = self._mail.get_nowait()
                claim = self._claims.get(message.get("job_id", ""))
                if message["command"] == "stop-job" and claim is not None:
                    self.queue.end(claim.job, JobState.CANCELLED, "stopped by an operator")

    def _hand_back(self, retry: bool = False) -> None:
        """Requeues every shard in flight at the front of its queue, with its state; no retry is spent.

        With `retry` as if this worker had died: the state may be what killed it, and a retry is spent.
        """
        for claim in reversed(list(self._claims.values())):
            if retry:
                self._claims.pop(claim.rq_job.id)
                self._retry(claim)
                continue
            self.batch.drop(claim.part)
            claim.part.look_for_faults()
            if claim.part.fault:
                self._settle(claim)
                continue
            saved = state.pack(claim.part.chains)
            log.info("handing back shard %s, %d bytes", claim.rq_job.id, len(saved))
            self._requeue(claim, saved)
            self._drop(claim)

    # Ending. A lease that was lost means that somebody else has the shard now: then nothing is written.

    def _settle(self, claim: Claim) -> None:
        """Writes down a shard that is done or at fault."""
        if claim.rq_job.id in self._claims:
            if claim.part.fault:
                self._fail(claim.rq_job, claim.execution, claim.job, claim.part.fault)
            else:
                self._finish(claim)
            self._drop(claim)

    def _finish(self, claim: Claim) -> None:
        rq_job, images = claim.rq_job, claim.part.pixels()
        rq_job.outcome = encode(images), claim.part.image_steps_done, len(images)
        rq_job.ended_at, rq_job._status = now(), JobStatus.FINISHED
        with self.connection.pipeline() as pipeline:
            while True:
                with suppress(WatchError):
                    if not self._holds(rq_job, claim.execution, pipeline):
                        return
                    self.increment_successful_job_count(pipeline)
                    self.increment_total_working_time(now() - claim.execution.created_at, pipeline)
                    rq_job._handle_success(claim.shard.result_ttl, pipeline, self.name)
                    rq_job.cleanup(claim.shard.result_ttl, pipeline, remove_from_queue=False)
                    claim.execution.delete(rq_job, pipeline)
                    pipeline.execute()
                    return

    def _fail(self, rq_job: ShardJob, execution: Execution, job: Job, reason: str) -> None:
        """Ends the whole job: what cannot be fulfilled stays so, and no retry is spent on it."""
        log.warning("job %s failed: %s", job.id, reason)
        rq_job.reason, rq_job.ended_at = reason, now()
        with self.connection.pipeline() as pipeline:
            while True:
                with suppress(WatchError):
                    if not self._holds(rq_job, execution, pipeline):
                        return
                    self.increment_failed_job_count(pipeline)
                    rq_job.set_status(JobStatus.FAILED, pipeline)
                    rq_job._handle_failure(reason, pipeline, self.name)
                    execution.delete(rq_job, pipeline)
                    pipeline.execute()
                    break
        self.queue.end(job, JobState.FAILED, reason, keep=rq_job.shard.number)

    def _requeue(self, claim: Claim, saved: bytes) -> None:
        """Puts a shard at the front of the queue, with its state; no retry is spent."""
        with self.connection.pipeline() as pipeline:
            while True:
                with suppress(WatchError):
                    if not self._holds(claim.rq_job, claim.execution, pipeline):
                        return
                    shards.report(claim.shard, claim.part.image_steps_done, pipeline, saved)
                    claim.execution.delete(claim.rq_job, pipeline)
                    self.queue.rq._enqueue_job(claim.rq_job, pipeline=pipeline, at_front=True)
                    pipeline.execute()
                    return

    def _retry(self, claim: Claim) -> None:
        """As RQ does for a worker that died: requeues a shard while it has retries left."""
        if not claim.rq_job.retries_left:
            self._fail(claim.rq_job, claim.execution, claim.job, "the device failed on every attempt")
            return
        with self.connection.pipeline() as pipeline, suppress(WatchError):
            if self._holds(claim.rq_job, claim.execution, pipeline):
                claim.rq_job.retry(self.queue.rq, pipeline)
                claim.execution.delete(claim.rq_job, pipeline)
                pipeline.execute()

    def _holds(self, rq_job: ShardJob, execution: Execution, pipeline: Pipeline) -> bool:
        """Begins a transaction that comes to nothing if the lease is lost meanwhile; says whether it still lasts."""
        pipeline.watch(rq_job.key, rq_job.execution_registry.key)
        if pipeline.zscore(rq_job.started_job_registry.key, execution.composite_key) is None:
            log.info("shard %s is dropped: lease lost", rq_job.id)
            return False
        pipeline.multi()
        return True

    def _drop(self, claim: Claim) -> None:
        """Takes a shard out of the batch."""
        self._claims.pop(claim.rq_job.id, None)
        self.batch.drop(claim.part)

    def _forget(self, rq_job: ShardJob, execution: Execution) -> None:
        """Gives up a lease on what nobody wants."""
        with self.connection.pipeline() as pipeline:
            execution.delete(rq_job, pipeline)
            pipeline.execute()
