"""A job: what a client asked for, and how far it is. Torch-free."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, Field

from models.card import ImageShape
from worker.queue.priority import Priority
from worker.queue.requests import REQUEST, Request

Seconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]  # since the epoch; what a date can say
Record = tuple[str, Mapping[bytes, bytes], list[bytes]]  # of a job: its id, what is kept of it, and its progress
BROKEN: Mapping[bytes, bytes] = {b"broken": b""}  # in place of a record that is something else


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
    """What a client asked for, and how far it is.

    Args:
        shards: how many there are so far: a job begins as one, and whoever takes a part of one leaves another.
        shard_size: images that a shard is not made smaller than.
        image_steps: network evaluations of all images.
        rows: of each image's table; a row that is guided is two evaluations at once.
        virtual_finish: when it would have been done, had there been no others: what the client's jobs go by.
        store: address of where its images are written to; None if they are in Redis.
    """

    id: str
    state: JobState
    request: Request = Field(discriminator="kind")
    image: ImageShape
    shards: int = Field(ge=1)
    shard_size: int = Field(ge=1)
    image_steps: int = Field(ge=1)
    rows: int
    image_steps_done: int
    created_at: Seconds
    virtual_finish: Seconds
    started_at: Seconds | None
    ended_at: Seconds | None
    result_ttl: int = Field(ge=0, le=10**10)
    error: str | None
    client: str
    priority: Priority
    deadline: Seconds | None
    store: str | None = None

    @property
    def bytes(self) -> int:
        """Of all images that it makes, and of what they look like on their way, if that is kept."""
        return self.request.count * self.image.size * max(1, self.request.frames)

    @property
    def rows_left(self) -> int:
        """Rows still to come of an image that is as far as the others."""
        return -(-max(0, self.image_steps - self.image_steps_done) * self.rows // self.image_steps)


class JobNotFound(LookupError):
    """No such job: it never was, or its time to live has ended."""


class JobUnreadable(JobNotFound):
    """The record of a job is damaged, or was written by another release."""


def record_of(job_id: bytes, fields: Sequence[bytes] | None, progress: list[bytes] | None) -> Record:
    """What a script has answered of a job, its fields and values in turn, as `job_of` takes it."""
    if fields is None or progress is None:
        return job_id.decode(), BROKEN, []
    return job_id.decode(), dict(zip(fields[0::2], fields[1::2], strict=True)), progress


def job_of(job_id: str, record: Mapping[bytes, bytes], progress: list[bytes]) -> Job:
    """A job, from what Redis has under `keys.of`.

    Raises:
        JobNotFound: it has nothing.
        JobUnreadable: it has something else.
    """
    if not record:
        raise JobNotFound(job_id)
    try:
        return _job_of(job_id, record, progress)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise JobUnreadable(job_id) from error


def _job_of(job_id: str, record: Mapping[bytes, bytes], progress: list[bytes]) -> Job:
    def number(name: bytes) -> float | None:
        return float(record[name]) if name in record else None

    request, image_steps = REQUEST.validate_json(record[b"request"]), int(record[b"image_steps"])
    return Job(
        id=job_id,
        state=_state(record.get(b"state"), record.get(b"started_at")),
        request=request,
        image=ImageShape.model_validate_json(record[b"image"]),
        shards=int(record[b"shards"]),
        shard_size=int(record[b"shard_size"]),
        image_steps=image_steps,
        rows=int(record.get(b"rows", image_steps // request.count)),  # a release that guided nothing did not say it
        image_steps_done=int(record.get(b"done", 0)) + sum(map(int, progress)),
        created_at=float(record[b"created_at"]),
        virtual_finish=float(record.get(b"virtual_finish", record[b"created_at"])),  # an earlier release had none
        started_at=number(b"started_at"),
        ended_at=number(b"ended_at"),
        result_ttl=int(record[b"result_ttl"]),
        error=record.get(b"error", b"").decode() or None,
        client=record[b"client"].decode(),
        priority=Priority(record[b"priority"].decode()),
        deadline=number(b"deadline"),
        store=record[b"store"].decode() if b"store" in record else None,
    )


def _state(state: bytes | None, started_at: bytes | None) -> JobState:
    if state is not None:
        return JobState(state.decode())
    return JobState.QUEUED if started_at is None else JobState.RUNNING
