"""JobQueue: puts jobs on the queue, looks them up, cancels them, measures what waits. Torch-free."""

import json
import logging
import re
import secrets
import time
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field
from redis import Redis
from redis.client import Pipeline
from rq.suspension import WORKERS_SUSPENDED
from rq.worker import Worker

from models.card import ImageShape
from worker.queue import keys, scripts, shards
from worker.queue.forecast import STATUS, UNKNOWN, Forecast, Outlook, Task
from worker.queue.idempotency import AnotherRequest, Once
from worker.queue.job import BROKEN, Job, JobNotFound, JobState, JobUnreadable, Record, job_of
from worker.queue.offer import UNLIMITED, Limits, Offer, flat
from worker.queue.priority import Priority
from worker.queue.requests import Request
from worker.queue.server import Memory, wrong_type
from worker.queue.settings import QueueSettings

log = logging.getLogger(__name__)

MAX_SHARDS = 10_000  # of a job: one that could have more has larger ones
ANYBODY = "anybody"  # the client of a job that names none
CANCELLED_BY_OPERATOR = "cancelled by an operator"  # what a client is told
MOST_LOOKED_AT = 2000  # of a client's jobs, for one page
Place = tuple[float, str]  # of a job in the list of its client's: when it was created, and its id


class Depth(BaseModel):
    """What has been accepted and has not ended."""

    jobs: int
    image_steps: int
    oldest_age_seconds: float


class Lack(BaseModel):
    """What a worker was asked for a moment ago, and cannot run."""

    model: str
    version: int
    reason: str = Field(description="Why not.")


class WorkerStatus(BaseModel):
    """A worker that is alive, as it told last."""

    name: str
    device: str = Field(description="torch device.")
    models: list[str] = Field(description="Those in its memory; others are loaded when they are asked for.")
    arithmetics: dict[str, str] = Field(
        default_factory=dict,
        description="Model -> the execution and the device that it is run in. Workers where these are the same give an "
        "image the same bits.",
    )
    only: list[str] | None = Field(None, description="The only models that it serves; null for all.")
    lacks: list[Lack] = Field(
        default_factory=list, description="What it was asked for a moment ago, cannot run, and leaves to other workers."
    )
    slots: int = Field(description="Images that it advances together.")
    slots_active: int
    image_steps_per_second: float = Field(description="What it does now.")
    last_seen: datetime


class JobEnded(ValueError):
    """The job has ended already, so it cannot be cancelled."""


class JobQueue:
    """All jobs of one Redis.

    Args:
        connection: as `server.connect` makes it.
        settings: shard size, time to live, and where images are kept.
    """

    def __init__(self, connection: Redis, settings: QueueSettings) -> None:
        self.connection, self.settings = connection, settings
        self.rq = shards.rq_queue(connection)
        self.forecast = Forecast(connection, settings.shard_size)
        self._rq_record = flat(shards.rq_record(self.rq, settings.result_ttl_seconds))

    def accept(self, offer: Offer) -> Job:
        """Accepts a job: at once, or not at all, it is written down and enqueued as one shard.

        Raises:
            AcceptedBefore: it was sent again.
            AnotherRequest: the client has used the key of `once` before, for another request.
            Drained: its model takes no new requests.
            TooMuch: that would be more than the limits allow.
        """
        answer: Any = self.connection.eval(scripts.ACCEPT, 2, *offer.arguments)
        return offer.accepted(answer)

    def offer(
        self,
        request: Request,
        image: ImageShape,
        image_steps: int,
        client: str = ANYBODY,
        priority: Priority = Priority.NORMAL,
        deadline_seconds: float | None = None,
        limits: Limits = UNLIMITED,
        once: Once | None = None,
        webhook: str | None = None,
        rows: int | None = None,
    ) -> Offer:
        """A job for `accept`, or for `scripts.ACCEPT` itself. Changes nothing.

        Args:
            request: complete.
            image: shape of the model's images.
            image_steps: of the whole job.
            client: whose job it is; clients take turns.
            priority: among the client's jobs, and its weight among others.
            deadline_seconds: from now; a job that has not ended by then fails.
            limits: on what is in flight, this job included.
            once: what the request is known by if it is sent again.
            webhook: what is called once the job has ended, as the service writes it down.
            rows: of each image's table; None where each is one image-step.
        """
        now = time.time()
        rows = image_steps // request.count if rows is None else rows
        size, ttl = max(self.settings.shard_size, -(-request.count // MAX_SHARDS)), self.settings.result_ttl_seconds
        job = Job(
            id=secrets.token_hex(12),
            state=JobState.QUEUED,
            request=request,
            image=image,
            shards=1,
            shard_size=size,
            image_steps=image_steps,
            rows=rows,
            image_steps_done=0,
            created_at=now,
            virtual_finish=self.forecast.virtual_finish(request.model, image_steps, request.count, rows),
            started_at=None,
            ended_at=None,
            result_ttl=ttl,
            error=None,
            client=client,
            priority=priority,
            deadline=None if deadline_seconds is None else now + deadline_seconds,
        )
        if job.bytes > self.settings.results_in_redis_bytes:
            job.store = self.settings.results_url
        return Offer(job, limits, self.rq.key, self._rq_record, once, webhook)

    def timed(self, offer: Offer) -> Offer:
        """The same job, whose virtual finish is by what the forecast knows now."""
        job = offer.job
        finish = self.forecast.virtual_finish(job.request.model, job.image_steps, job.request.count, job.rows)
        return replace(offer, job=job.model_copy(update={"virtual_finish": finish}))

    def accepted_before(self, once: Once) -> Job | None:
        """The job of a request that was accepted before, if it was.

        Raises:
            AnotherRequest: the client has used the key of `once` before, for another request.
        """
        known: Any = self.connection.get(once.redis_key)
        if known is None:
            return None
        job_id, fingerprint = known.decode().split()
        with suppress(JobNotFound):
            job = self.get(job_id)
            if fingerprint != once.fingerprint:
                raise AnotherRequest(job_id)
            return job
        return None

    def get(self, job_id: str) -> Job:
        """A job by its id. One whose deadline has passed has ended, whether or not a worker is alive to see it.

        Raises:
            JobNotFound: there is none.
        """
        return self.on_time(self._read(job_id))

    def on_time(self, job: Job) -> Job:
        """The job; ended if its deadline has passed."""
        if job.deadline is None or job.state.final or time.time() < job.deadline:
            return job
        if not self.connection.eval(scripts.OVERDUE, 0, job.id):  # this machine's clock may be wrong
            return job
        self._end_late(job)
        return self._read(job.id)

    def end_overdue(self, job_ids: Sequence[str]) -> None:
        """Ends jobs whose deadline has passed by the clock of Redis, whatever time it is on this machine."""
        for job in self._read_all(job_ids):
            if job is not None and job.deadline is not None and not job.state.final:
                self._end_late(job)

    def _end_late(self, job: Job) -> None:
        done = f"{job.image_steps_done:,} of {job.image_steps:,} image-steps"
        seconds = round((job.deadline or 0) - job.created_at, 3)
        self.end(job, JobState.FAILED, f"its deadline of {seconds:g} s passed with {done} done")

    def outlook(self, job: Job, look: bool = True) -> Outlook:
        """What a job has before it; with `look` false, by what the forecast knows already."""
        if job.state.final:
            return UNKNOWN
        task = _task(job)
        seconds = self.forecast.seconds(task, job.request.model, job.request.count, job.rows_left, look)
        return Outlook(seconds, self.forecast.position(task, look) if task.waits else None)

    def listing(
        self,
        client: str | None,
        states: Container[JobState],
        models: Container[str] | None,
        limit: int,
        after: Place | None = None,
    ) -> tuple[list[Job], Place | None]:
        """A page of a client's jobs, newest first, and where the next page begins; None after the last.

        Args:
            client: whose jobs; None for those of all, but only such as have not ended.
            states: those that are wanted.
            models: likewise; None for all.
            limit: of jobs on the page. It may be shorter, where few of many jobs are wanted.
            after: where the page before ended.
        """
        jobs: list[Job] = []
        for _ in range(0, MOST_LOOKED_AT, at_once := max(limit + 1, 20)):
            places = self._places(client, after, at_once)
            for place, found in zip(places, self._read_all([job_id for _, job_id in places]), strict=True):
                job = found and self.on_time(found)
                if job and job.state in states and (models is None or job.request.model in models):
                    if len(jobs) == limit:
                        return jobs, after
                    jobs.append(job)
                after = place
            if len(places) < at_once:
                return jobs, None
        return jobs, after

    def _places(self, client: str | None, after: Place | None, most: int) -> list[Place]:
        """The next jobs of a client, or of all, newest first; some may be forgotten already."""
        lists = [keys.ACTIVE] if client is None else [keys.of_client(client, what) for what in ("unended", "ended")]
        newest = "+inf" if after is None else repr(after[0])
        with self.connection.pipeline() as pipeline:
            for key in lists:
                pipeline.zrange(
                    key, newest, "-inf", desc=True, byscore=True, offset=0, num=most + 1, withscores=True
                )  # one more, since the first may be `after` itself
            found = pipeline.execute()
        places = [(created_at, job_id.decode()) for jobs in found for job_id, created_at in jobs]
        return sorted((place for place in places if after is None or place < after), reverse=True)[:most]

    def cancel(self, job_id: str, reason: str = "cancelled by the client") -> Job:
        """Cancels a job: what waits is removed at once, what runs leaves its slots before their next step.

        Args:
            job_id: of the job.
            reason: for the client.

        Raises:
            JobNotFound: there is none.
            JobEnded: it has ended already.
        """
        job = self.get(job_id)
        if not self.end(job, JobState.CANCELLED, reason):
            raise JobEnded(f"job {job_id} has ended already: it is {self.get(job_id).state}")
        return self.get(job_id)

    def cancel_all(self, client: str, reason: str) -> int:
        """Cancels all jobs of a client that have not ended; says how many they were."""
        unended: Any = self.connection.zrange(keys.of_client(client, "unended"), 0, -1)
        found = self._read_all([job_id.decode() for job_id in unended])
        return sum(self.end(job, JobState.CANCELLED, reason) for job in found if job is not None)

    def end(self, job: Job, state: JobState, error: str, keep: int | None = None) -> bool:
        """Ends a job short of its result; says whether it had not ended before.

        Its shards are removed, but for the number `keep`, which RQ's registry of failed jobs shows to operators.
        """
        answer: Any = self.connection.eval(scripts.END, 0, job.id, state.value, time.time(), job.result_ttl, error)
        ended, shards_now = answer
        shards.discard(self.rq, job.id, max(shards_now, job.shards), keep)  # it may have been split since it was read
        return bool(ended)

    def depth(self) -> Depth:
        """What waits or runs: however much that is, it is asked for in one round trip."""
        with self.connection.pipeline(transaction=False) as pipeline:
            pipeline.zcard(keys.ACTIVE)
            pipeline.zrange(keys.ACTIVE, 0, 0, withscores=True)
            pipeline.hget(keys.LOAD, "all")
            jobs, oldest, image_steps = pipeline.execute()
        return Depth(
            jobs=jobs,
            image_steps=max(0, _count(image_steps)),
            oldest_age_seconds=max(0.0, time.time() - oldest[0][1]) if oldest else 0.0,
        )

    def totals(self) -> Mapping[str, int]:
        """Counters since the beginning: images, image_steps, jobs_accepted, jobs_finished and so on."""
        totals: Any = self.connection.hgetall(keys.TOTALS)
        return {name.decode(): _count(value) for name, value in totals.items()}

    def workers(self) -> int:
        """How many workers are alive."""
        worker_keys = Worker.all_keys(connection=self.connection, queue=self.rq)
        return self.connection.exists(*worker_keys) if worker_keys else 0

    def suspended(self) -> bool:
        """Whether an operator lets no worker take anything, by `rq suspend`."""
        return bool(self.connection.exists(WORKERS_SUSPENDED))

    def memory(self) -> Memory:
        """How full Redis is. A full one accepts no job."""
        info: Any = self.connection.info("memory")
        return Memory(used=info["used_memory"], limit=info["maxmemory"])

    def worker_statuses(self) -> list[WorkerStatus]:
        """The workers that are alive, by name."""
        keys: Any = Worker.all_keys(connection=self.connection, queue=self.rq)
        with self.connection.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.hmget(key, STATUS, "last_heartbeat")
            answers = pipeline.execute()
        statuses = []
        for key, (status, seen) in zip(keys, answers, strict=True):
            if status is not None and seen is not None:
                with suppress(ValueError, TypeError):  # one that cannot be read hides no other
                    told = {**json.loads(status), "name": key.rpartition(":")[2], "last_seen": seen.decode()}
                    statuses.append(WorkerStatus(**told))
        return sorted(statuses, key=lambda status: status.name)

    def _read(self, job_id: str) -> Job:
        (job,) = self._look_up([job_id])
        if isinstance(job, JobNotFound):
            raise job
        return job

    def _read_all(self, job_ids: Sequence[str]) -> list[Job | None]:
        """The jobs of these ids; None where there is none that can be read."""
        return [None if isinstance(job, JobNotFound) else job for job in self._look_up(job_ids)]

    def _look_up(self, job_ids: Sequence[str]) -> list[Job | JobNotFound]:
        return [_job(*record) for record in self.records(job_ids)]

    def records(self, job_ids: Sequence[str]) -> list[Record]:
        """What Redis has of jobs, in one round trip: arguments of `job_of`.

        Where something else lies in the place of a job, its record is one that cannot be read.
        """
        with self.connection.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hgetall(keys.of(job_id))
                pipeline.hvals(keys.of(job_id, "progress"))
            answers = _readable(pipeline)
        pairs = zip(answers[0::2], answers[1::2], strict=True)
        read = [
            (BROKEN, []) if record is None or progress is None else (record, progress) for record, progress in pairs
        ]
        return [(job_id, *found) for job_id, found in zip(job_ids, read, strict=True)]


def _job(job_id: str, record: Mapping[bytes, bytes], progress: list[bytes]) -> Job | JobNotFound:
    try:
        return job_of(job_id, record, progress)
    except JobUnreadable as error:
        log.warning("job %s cannot be read: %s", job_id, type(error.__cause__ or error).__name__, extra={"job": job_id})
        return error
    except JobNotFound as error:
        return error


def _readable(pipeline: Pipeline) -> list[Any]:
    """The answers to what was asked; None where something else lies in the place of what was meant."""
    answers: list[Any] = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception) and not wrong_type(answer):
            raise answer
    return [None if isinstance(answer, Exception) else answer for answer in answers]


def _count(text: bytes | None) -> int:
    """The number that Redis has; 0 where it has none."""
    return int(text) if text is not None and re.fullmatch(rb"-?[0-9]{1,18}", text) else 0


def _task(job: Job) -> Task:
    left = max(0, job.image_steps - job.image_steps_done)
    return Task(job.client, job.priority, job.virtual_finish, left, job.id, job.state == JobState.QUEUED)
