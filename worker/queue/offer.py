"""An offer: a job that has not been accepted yet, and what may stand against it. Torch-free."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pydantic_core import to_json
from rq import Queue
from rq.utils import utcformat

from models.card import ImageShape
from worker.queue.idempotency import AcceptedBefore, AnotherRequest, Once
from worker.queue.job import Job

MAX_SHARD_BYTES = (
    2**20
)  # of the pixels of a shard, which are stored and read at once; unless that is less than shard_size


@dataclass(frozen=True)
class Limits:
    """The most that may be in flight, which is accepted and still to do, or kept; None for no limit.

    Args:
        client_image_steps: of the client.
        image_steps: of all clients.
        jobs: of all clients.
        client_bytes: of images of the client, those in flight and those that are not forgotten yet.
    """

    client_image_steps: int | None = None
    image_steps: int | None = None
    jobs: int | None = None
    client_bytes: int | None = None


UNLIMITED = Limits()


@dataclass(frozen=True)
class InFlight:
    """What is in flight, or kept, while a job asks for room.

    Args:
        client_image_steps: of the client.
        image_steps: of all clients.
        jobs: of all clients.
        client_bytes: of images that the client has kept.
        seconds: until enough of them is forgotten; -1 if nobody knows.
    """

    client_image_steps: int
    image_steps: int
    jobs: int
    client_bytes: int = 0
    seconds: int = 0


class Drained(Exception):
    """A job was not accepted, since an operator lets its model take no new requests."""


class TooMuch(Exception):
    """A job was not accepted.

    Args:
        against: the limit that stands against it: of the `client`, the `queue`, its `jobs`, or of what may be `kept`.
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
        rq_record: as `shards.rq_record` returns it, made `flat`.
        once: what the request is known by if it is sent again.
        webhook: what is called once the job has ended, as the service writes it down.
    """

    job: Job
    limits: Limits
    rq_queue: str
    rq_record: bytes
    once: Once | None = None
    webhook: str | None = None

    @property
    def largest(self) -> int:
        """Images that a shard is not made larger than: what they look like is stored at once."""
        pictures = self.job.image.size * max(1, self.job.request.frames)
        return max(self.job.shard_size, MAX_SHARD_BYTES // pictures)

    @property
    def arguments(self) -> list[Any]:
        """Keys and arguments of `scripts.ACCEPT`."""
        job = self.job
        record = {
            "request": job.request.model_dump_json(),
            "image": _json(job.image),
            "count": job.request.count,
            "largest": self.largest,
            "shards": job.shards,
            "shard_size": job.shard_size,
            "image_steps": job.image_steps,
            "rows": job.rows,
            "bytes": job.bytes,
            "created_at": job.created_at,
            "virtual_finish": job.virtual_finish,
            "result_ttl": job.result_ttl,
            "model": job.request.model,
            "client": job.client,
            "priority": job.priority.value,
            "rank": job.priority.rank,
            "weight": job.priority.weight,
        }
        if job.store is not None:
            record["store"] = job.store
        if self.once is not None:
            record["once"] = self.once.name
        if self.webhook is not None:
            record["webhook"] = self.webhook
        most = (self.limits.client_image_steps, self.limits.image_steps, self.limits.jobs)
        arguments = [
            job.id,
            job.created_at,
            job.client,
            job.image_steps,
            *(-1 if limit is None else limit for limit in most),
            job.request.count,
            job.result_ttl,
            "" if job.deadline is None else job.deadline,
            "" if self.once is None else self.once.fingerprint,
            utcformat(datetime.fromtimestamp(job.created_at, UTC)),
        ]
        own = to_json([str(argument) for argument in arguments])
        most_bytes = -1 if self.limits.client_bytes is None else self.limits.client_bytes
        return [self.rq_queue, Queue.redis_queues_keys, own, flat(record), self.rq_record, most_bytes]

    def accepted(self, answer: Sequence[Any]) -> Job:
        """The job, if that is what the script has answered.

        Raises:
            AcceptedBefore, AnotherRequest: its key was used before.
            Drained: its model takes no new requests.
            TooMuch: there is too much in flight.
        """
        against, *counts = answer
        if against == b"before":
            job_id, fingerprint = counts[0].decode().split()
            raise (
                AcceptedBefore(job_id) if self.once and self.once.fingerprint == fingerprint else AnotherRequest(job_id)
            )
        if against == b"drained":
            raise Drained(self.job.request.model)
        if against:
            raise TooMuch(against.decode(), self.job, InFlight(*counts), self.limits)
        return self.job


def flat(record: Mapping[str, Any]) -> bytes:
    """Fields and values in turn, as JSON: one argument, which is cheaper than many."""
    return to_json([str(part) for item in record.items() for part in item])


@lru_cache
def _json(image: ImageShape) -> str:
    return image.model_dump_json()
