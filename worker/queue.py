"""JobQueue: puts jobs on the queue, looks them up, cancels them, measures what waits. Torch-free."""

import json
import secrets
import time
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field
from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from rq import Queue
from rq.utils import utcformat
from rq.worker import Worker

from models.card import ImageShape
from worker import scripts, shards
from worker.forecast import STATUS, Forecast, Task
from worker.idempotency import AcceptedBefore, AnotherRequest, Once
from worker.priority import Priority
from worker.requests import REQUEST, InpaintRequest, SampleRequest
from worker.settings import QueueSettings

MAX_SHARDS = 1000  # of a job: a large one has larger shards
ANYBODY = "anybody"  # the client of a job that names none
MOST_LOOKED_AT = 2000  # of a client's jobs, for one page
Place = tuple[float, str]  # of a job in the list of its client's: when it was created, and its id


class JobState(StrEnum):
    """What a job is doing; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (JobState.FINISHED, JobState.FAILED, JobState.CANCELLED)


class Job(BaseModel):
    """What a client asked for, and how far it is."""

    id: str
    state: JobState
    request: SampleRequest | InpaintRequest = Field(discriminator="kind")
    image: ImageShape
    shards: int
    shard_size: int
    image_steps: int
    image_steps_done: int
    created_at: float
    started_at: float | None
    ended_at: float | None
    result_ttl: int
    error: str | None
    client: str
    priority: Priority
    deadline: float | None

    @property
    def evaluations(self) -> int:
        """Network evaluations of each image."""
        return self.image_steps // self.request.count


class Webhook(BaseModel):
    """What is called once a job has ended.

    Args:
        url: checked.
        secret: that the call is signed with, `whsec_...`; None takes the service's.
    """

    url: str
    secret: str | None = None


class Depth(BaseModel):
    """What has been accepted and has not ended."""

    jobs: int
    image_steps: int
    oldest_age_seconds: float


@dataclass(frozen=True)
class Limits:
    """The most that may be in flight, which is accepted and still to do; None for no limit.

    Args:
        client_image_steps: of the client.
        image_steps: of all clients.
        jobs: of all clients.
    """

    client_image_steps: int | None = None
    image_steps: int | None = None
    jobs: int | None = None


UNLIMITED = Limits()


@dataclass(frozen=True)
class InFlight:
    """What is in flight: image-steps of one client, image-steps of all, jobs of all."""

    client_image_steps: int
    image_steps: int
    jobs: int


class TooMuch(Exception):
    """A job was not accepted.

    Args:
        against: the limit that stands against it: of the `client`, or of the `queue` or its `jobs`.
        job: as it would have been.
        in_flight: without it.
        limits: that hold.
    """

    def __init__(self, against: str, job: Job, in_flight: InFlight, limits: Limits) -> None:
        super().__init__(f"too much in flight for the {against}: {in_flight}")
        self.against, self.job, self.in_flight, self.limits = against, job, in_flight, limits


@dataclass(frozen=True)
class Offer:
    """A job that has not been accepted yet.

    Args:
        job: as it will be.
        limits: on what is in flight, the job included.
        rq_queue: key of RQ's queue.
        rq_record: as `shards.rq_record` returns it.
        once: what the request is known by if it is sent again.
        webhook: what is called once the job has ended.
    """

    job: Job
    limits: Limits
    rq_queue: str
    rq_record: Mapping[str, str]
    once: Once | None = None
    webhook: Webhook | None = None

    @property
    def arguments(self) -> list[Any]:
        """Keys and arguments of `scripts.ACCEPT`."""
        job, now = self.job, utcformat(datetime.fromtimestamp(self.job.created_at, UTC))
        record = {
            "request": job.request.model_dump_json(),
            "image": job.image.model_dump_json(),
            "shards": job.shards,
            "shard_size": job.shard_size,
            "image_steps": job.image_steps,
            "created_at": job.created_at,
            "result_ttl": job.result_ttl,
            "model": job.request.model,
            "client": job.client,
            "priority": job.priority.value,
            "rank": job.priority.rank,
            "weight": job.priority.weight,
        }
        if self.once is not None:
            record["once"] = self.once.name
        if self.webhook is not None:
            record["webhook"] = self.webhook.model_dump_json()
        most = (self.limits.client_image_steps, self.limits.image_steps, self.limits.jobs)
        return [
            self.rq_queue,
            Queue.redis_queues_keys,
            job.id,
            job.created_at,
            job.client,
            job.image_steps,
            *(-1 if limit is None else limit for limit in most),
            job.request.count,
            job.shard_size,
            job.shards,
            job.result_ttl,
            "" if job.deadline is None else job.deadline,
            "" if self.once is None else self.once.fingerprint,
            _flat(record),
            _flat({**self.rq_record, "created_at": now, "enqueued_at": now}),
        ]

    def accepted(self, answer: Sequence[Any]) -> Job:
        """The job, if that is what the script has answered.

        Raises:
            AcceptedBefore, AnotherRequest: its key was used before.
            TooMuch: there is too much in flight.
        """
        against, *counts = answer
        if against == b"before":
            job_id, fingerprint = counts[0].decode().split()
            raise (
                AcceptedBefore(job_id) if self.once and self.once.fingerprint == fingerprint else AnotherRequest(job_id)
            )
        if against:
            raise TooMuch(against.decode(), self.job, InFlight(*counts), self.limits)
        return self.job


class WorkerStatus(BaseModel):
    """A worker that is alive, as it told last."""

    name: str
    device: str = Field(description="torch device.")
    models: list[str] = Field(description="Those in its memory; others are loaded when they are asked for.")
    slots: int = Field(description="Images that it advances together.")
    slots_active: int
    image_steps_per_second: float = Field(description="What it does now.")
    last_seen: datetime


class JobNotFound(LookupError):
    """No such job: it never was, or its time to live has ended."""


class JobEnded(ValueError):
    """The job has ended already, so it cannot be cancelled."""


def connect(url: str, timeout: float, attempts: int) -> Redis:
    """A connection pool to a Redis or Valkey server.

    Args:
        url: redis://, rediss:// or unix://.
        timeout: seconds that one command may take.
        attempts: how often a command is tried again, with growing pauses of up to 2 s, while the server is away.
    """
    return Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(ExponentialBackoff(cap=2, base=0.05), attempts),
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
        health_check_interval=30,
    )


class JobQueue:
    """All jobs of one Redis.

    Args:
        connection: as `connect` makes it.
        settings: shard size and time to live.
    """

    def __init__(self, connection: Redis, settings: QueueSettings) -> None:
        self.connection, self.settings = connection, settings
        self.rq = shards.rq_queue(connection)
        self.forecast = Forecast(connection)
        self._rq_record = shards.rq_record(self.rq, settings.result_ttl_seconds)

    def submit(
        self,
        request: SampleRequest | InpaintRequest,
        image: ImageShape,
        image_steps: int,
        client: str = ANYBODY,
        priority: Priority = Priority.NORMAL,
        deadline_seconds: float | None = None,
        limits: Limits = UNLIMITED,
        once: Once | None = None,
        webhook: Webhook | None = None,
    ) -> Job:
        """Accepts a job: at once, or not at all, it is written down and its shards are enqueued.

        Args:
            request: complete.
            image: shape of the model's images.
            image_steps: of the whole job.
            client: whose job it is; clients take turns.
            priority: among the client's jobs, and its weight among others.
            deadline_seconds: from now; a job that has not ended by then fails.
            limits: on what is in flight, this job included.
            once: what the request is known by if it is sent again.
            webhook: what is called once the job has ended.

        Raises:
            AcceptedBefore: it was sent again.
            AnotherRequest: the client has used the key of `once` before, for another request.
            TooMuch: that would be more than the limits allow.
        """
        offer = self.offer(request, image, image_steps, client, priority, deadline_seconds, limits, once, webhook)
        answer: Any = self.connection.eval(scripts.ACCEPT, 2, *offer.arguments)
        return offer.accepted(answer)

    def offer(
        self,
        request: SampleRequest | InpaintRequest,
        image: ImageShape,
        image_steps: int,
        client: str = ANYBODY,
        priority: Priority = Priority.NORMAL,
        deadline_seconds: float | None = None,
        limits: Limits = UNLIMITED,
        once: Once | None = None,
        webhook: Webhook | None = None,
    ) -> "Offer":
        """What `submit` would put into Redis, for those who do so themselves, by `scripts.ACCEPT`."""
        now = time.time()
        size, ttl = max(self.settings.shard_size, -(-request.count // MAX_SHARDS)), self.settings.result_ttl_seconds
        job = Job(
            id=secrets.token_hex(12),
            state=JobState.QUEUED,
            request=request,
            image=image,
            shards=-(-request.count // size),
            shard_size=size,
            image_steps=image_steps,
            image_steps_done=0,
            created_at=now,
            started_at=None,
            ended_at=None,
            result_ttl=ttl,
            error=None,
            client=client,
            priority=priority,
            deadline=None if deadline_seconds is None else now + deadline_seconds,
        )
        return Offer(job, limits, self.rq.key, self._rq_record, once, webhook)

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
        return self._on_time(self._read(job_id))

    def _on_time(self, job: Job) -> Job:
        """The job; ended if its deadline has passed."""
        if job.deadline is None or job.state.final or time.time() < job.deadline:
            return job
        done = f"{job.image_steps_done:,} of {job.image_steps:,} image-steps"
        seconds = round(job.deadline - job.created_at, 3)
        self.end(job, JobState.FAILED, f"its deadline of {seconds:g} s passed with {done} done")
        return self._read(job.id)

    def seconds_left(self, job: Job, look: bool = True) -> float | None:
        """When a job will have ended, in seconds from now; None if that cannot be told.

        With `look` false, by what the forecast knows already.
        """
        if job.state.final:
            return None
        task = _task(job)
        return self.forecast.seconds(task, job.request.model, min(job.evaluations, task.remaining), look)

    def position(self, job: Job, look: bool = True) -> int | None:
        """How many jobs that wait go before a queued one; None for one that does not wait."""
        return self.forecast.position(_task(job), look) if job.state == JobState.QUEUED else None

    def listing(
        self,
        client: str,
        states: Container[JobState],
        models: Container[str] | None,
        limit: int,
        after: Place | None = None,
    ) -> tuple[list[Job], Place | None]:
        """A page of a client's jobs, newest first, and where the next page begins; None after the last.

        Args:
            client: whose jobs.
            states: those that are wanted.
            models: likewise; None for all.
            limit: of jobs on the page. It may be shorter, where few of many jobs are wanted.
            after: where the page before ended.
        """
        jobs: list[Job] = []
        for _ in range(0, MOST_LOOKED_AT, at_once := max(limit + 1, 20)):
            places = self._places(client, after, at_once)
            for place, found in zip(places, self._read_all([job_id for _, job_id in places]), strict=True):
                job = found and self._on_time(found)
                if job and job.state in states and (models is None or job.request.model in models):
                    if len(jobs) == limit:
                        return jobs, after
                    jobs.append(job)
                after = place
            if len(places) < at_once:
                return jobs, None
        return jobs, after

    def _places(self, client: str, after: Place | None, most: int) -> list[Place]:
        """The next jobs of a client, newest first; some may be forgotten already."""
        newest = "+inf" if after is None else repr(after[0])
        with self.connection.pipeline() as pipeline:
            for key in (shards.unended_key(client), shards.ended_key(client)):
                pipeline.zrange(
                    key, newest, "-inf", desc=True, byscore=True, offset=0, num=most + 1, withscores=True
                )  # one more, since the first may be `after` itself
            unended, ended = pipeline.execute()
        places = [(created_at, job_id.decode()) for job_id, created_at in (*unended, *ended)]
        return sorted((place for place in places if after is None or place < after), reverse=True)[:most]

    def cancel(self, job_id: str) -> Job:
        """Cancels a job: what waits is removed at once, what runs leaves its slots before their next step.

        Raises:
            JobNotFound: there is none.
            JobEnded: it has ended already.
        """
        job = self.get(job_id)
        if not self.end(job, JobState.CANCELLED, "cancelled by the client"):
            raise JobEnded(f"job {job_id} has ended already: it is {self.get(job_id).state}")
        return self.get(job_id)

    def end(self, job: Job, state: JobState, error: str, keep: int | None = None) -> bool:
        """Ends a job short of its result; says whether it had not ended before.

        Its shards are removed, but for the number `keep`, which RQ's registry of failed jobs shows to operators.
        """
        ended = self.connection.eval(scripts.END, 0, job.id, state.value, time.time(), job.result_ttl, error)
        shards.discard(self.rq, job.id, job.shards, keep)
        return bool(ended)

    def depth(self) -> Depth:
        """What waits or runs."""
        active: Any = self.connection.zrange(shards.ACTIVE, 0, -1, withscores=True)
        with self.connection.pipeline(transaction=False) as pipeline:
            for job_id, _ in active:
                pipeline.hget(shards.job_key(job_id.decode()), "image_steps")
                pipeline.hvals(shards.progress_key(job_id.decode()))
            answers = pipeline.execute()
        totals = [int(total or 0) for total in answers[0::2]]
        done = [sum(map(int, progress)) for progress in answers[1::2]]
        return Depth(
            jobs=len(active),
            image_steps=sum(max(0, t - d) for t, d in zip(totals, done, strict=True)),
            oldest_age_seconds=max(0.0, time.time() - active[0][1]) if active else 0.0,
        )

    def totals(self) -> Mapping[str, int]:
        """Counters since the beginning: images, image_steps, jobs_accepted, jobs_finished and so on."""
        totals: Any = self.connection.hgetall(shards.TOTALS)
        return {name.decode(): int(value) for name, value in totals.items()}

    def workers(self) -> int:
        """How many workers are alive."""
        worker_keys = Worker.all_keys(connection=self.connection, queue=self.rq)
        return self.connection.exists(*worker_keys) if worker_keys else 0

    def worker_statuses(self) -> list[WorkerStatus]:
        """The workers that are alive, by name."""
        keys: Any = Worker.all_keys(connection=self.connection, queue=self.rq)
        with self.connection.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.hmget(key, STATUS, "last_heartbeat")
            answers = pipeline.execute()
        statuses = [
            WorkerStatus(name=key.rpartition(":")[2], last_seen=seen.decode(), **json.loads(status))
            for key, (status, seen) in zip(keys, answers, strict=True)
            if status is not None and seen is not None
        ]
        return sorted(statuses, key=lambda status: status.name)

    def _read(self, job_id: str) -> Job:
        (job,) = self._read_all([job_id])
        if job is None:
            raise JobNotFound(job_id)
        return job

    def _read_all(self, job_ids: Sequence[str]) -> list[Job | None]:
        with self.connection.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hgetall(shards.job_key(job_id))
                pipeline.hvals(shards.progress_key(job_id))
            answers = pipeline.execute()
        records = zip(job_ids, answers[0::2], answers[1::2], strict=True)
        return [job_of(*record) if b"request" in record[1] else None for record in records]


def _task(job: Job) -> Task:
    left = max(0, job.image_steps - job.image_steps_done)
    return Task(job.client, job.priority, job.created_at, left, job.id, job.state == JobState.QUEUED)


def _flat(record: Mapping[str, Any]) -> str:
    """Fields and values in turn, as JSON: one argument, which is cheaper than many."""
    return json.dumps([str(part) for item in record.items() for part in item])


def _state(state: bytes | None, started_at: bytes | None) -> JobState:
    if state is not None:
        return JobState(state.decode())
    return JobState.QUEUED if started_at is None else JobState.RUNNING


def job_of(job_id: str, record: Mapping[bytes, bytes], progress: list[bytes]) -> Job:
    """A job, from what Redis has under `shards.job_key` and `shards.progress_key`.

    Raises:
        JobNotFound: it has nothing.
    """
    if b"request" not in record:
        raise JobNotFound(job_id)

    def number(name: bytes) -> float | None:
        return float(record[name]) if name in record else None

    return Job(
        id=job_id,
        state=_state(record.get(b"state"), record.get(b"started_at")),
        request=REQUEST.validate_json(record[b"request"]),
        image=ImageShape.model_validate_json(record[b"image"]),
        shards=int(record[b"shards"]),
        shard_size=int(record[b"shard_size"]),
        image_steps=int(record[b"image_steps"]),
        image_steps_done=sum(map(int, progress)),
        created_at=float(record[b"created_at"]),
        started_at=number(b"started_at"),
        ended_at=number(b"ended_at"),
        result_ttl=int(record[b"result_ttl"]),
        error=record.get(b"error", b"").decode() or None,
        client=record[b"client"].decode(),
        priority=Priority(record[b"priority"].decode()),
        deadline=number(b"deadline"),
    )
