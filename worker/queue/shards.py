"""Shards: the RQ jobs that a job consists of. What is private to RQ is here, in worker.leases, .holder and .upkeep.

Torch-free: the service enqueues a job as one shard, and workers claim as much of it as they have room for.
"""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import Queue, Retry
from rq.exceptions import DeserializationError, InvalidJobOperation
from rq.job import Job as RQJob
from rq.serializers import JSONSerializer
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from worker.queue import scripts
from worker.queue.job import Job

QUEUE = "scoreserve"
FUNCTION = "scoreserve.fulfil"  # a label: workers never resolve it to code
RETRIES = 10  # how many dead workers a shard survives
SUSPECT_DEATHS = 3  # of workers that held a shard; after so many it may be what kills them
AT_ONCE = 500  # shards that one script removes, which nothing else in Redis can interrupt


def shard_id(job_id: str, number: int) -> str:
    """The RQ job of a shard."""
    return f"{job_id}-{number}"


@dataclass(frozen=True)
class Shard:
    """The part of a job that is one RQ job: `count` of its images, from image `first` on."""

    job_id: str
    number: int
    first: int
    count: int
    result_ttl: int

    @property
    def id(self) -> str:
        """Its id in RQ."""
        return shard_id(self.job_id, self.number)

    @property
    def sound(self) -> bool:
        """Whether it could be one, by its types and bounds."""
        numbers = self.number, self.first, self.count, self.result_ttl
        whole = isinstance(self.job_id, str) and all(type(number) is int for number in numbers)
        return whole and self.number >= 0 and self.first >= 0 and self.count >= 1

    def part_of(self, job: Job) -> bool:
        """Whether the job has such images."""
        return self.first + self.count <= job.request.count

    @property
    def ids(self) -> dict[str, str | int]:
        """What a log record about it says besides its message."""
        return {"job": self.job_id, "shard": self.number}


class ShardUnreadable(ValueError):
    """What RQ has of a shard is damaged.

    Args:
        rq_id: of the shard.
    """

    def __init__(self, rq_id: str) -> None:
        super().__init__(f"what RQ has of {rq_id} is damaged")
        self.rq_id = rq_id


class ShardJob(RQJob):
    """An RQ job whose failure is written together with that of the job it belongs to, in RQ's own transaction."""

    reason: str | None = None

    @property
    def shard(self) -> "Shard":
        """What the RQ job asks for.

        Raises:
            ValueError: it is none of ours.
        """
        try:
            if self.func_name != FUNCTION:
                raise ValueError(f"unknown request kind {self.func_name!r}")
            shard = Shard(**self.kwargs)
        except (DeserializationError, TypeError) as error:
            raise ValueError(f"RQ job {self.id} is no shard, or a damaged one") from error
        if not shard.sound or shard.id != self.id:
            raise ValueError(f"RQ job {self.id} is a damaged shard")
        return shard

    def _handle_failure(self, exc_string: str, pipeline: Pipeline, *args: Any, **kwargs: Any) -> None:
        super()._handle_failure(exc_string, pipeline, *args, **kwargs)
        shard = self.shard
        reason = self.reason or f"a worker died on every one of {RETRIES + 1} attempts"
        pipeline.eval(scripts.END, 0, shard.job_id, "failed", time.time(), shard.result_ttl, reason)


def fetch(connection: Redis, rq_id: str) -> ShardJob | None:
    """What RQ has of a shard; None if it has nothing.

    Raises:
        ShardUnreadable: it is damaged.
    """
    return fetch_many(connection, [rq_id])[0]


def fetch_many(connection: Redis, rq_ids: Sequence[str]) -> list[ShardJob | None]:
    """What RQ has of some shards, in one round trip; None for those of which it has nothing.

    Raises:
        ShardUnreadable: one is damaged.
    """
    try:
        found: Any = ShardJob.fetch_many(rq_ids, connection=connection, serializer=JSONSerializer)
    except Exception as error:  # whatever RQ makes of it
        if isinstance(error, RedisError) and "WRONGTYPE" not in str(error):
            raise
        if len(rq_ids) > 1:
            for rq_id in rq_ids:
                fetch_many(connection, [rq_id])
        raise ShardUnreadable(rq_ids[0]) from error
    return list(found)


def blank(connection: Redis, rq_id: str) -> ShardJob:
    """RQ's job of a shard, of which nothing was read but the queue that it is in."""
    job = ShardJob(rq_id, connection=connection, serializer=JSONSerializer)
    job.origin = QUEUE
    return job


def restored(connection: Redis, rq_id: str, record: Sequence[bytes] | None) -> ShardJob | None:
    """RQ's job of a shard, from its record, fields and values in turn; None if there is nothing.

    Raises:
        ShardUnreadable: it is damaged, or something else lies there, which is what no record says.
    """
    if record is None:
        raise ShardUnreadable(rq_id)
    if not record:
        return None
    job = blank(connection, rq_id)
    try:
        job.restore(dict(zip(record[0::2], record[1::2], strict=True)))
    except Exception as error:  # whatever RQ makes of it
        raise ShardUnreadable(rq_id) from error
    return job


def fetch_all(connection: Redis, rq_ids: Sequence[str]) -> list[ShardJob | None]:
    """What RQ has of some shards, in one round trip where nothing is damaged; None for what is damaged or not there."""
    with suppress(ShardUnreadable):
        return fetch_many(connection, rq_ids)
    found: list[ShardJob | None] = []
    for rq_id in rq_ids:
        try:
            found += fetch_many(connection, [rq_id])
        except ShardUnreadable:
            found.append(None)
    return found


def remove(job: RQJob) -> None:
    """Removes what RQ has of a shard, or of what is none, which may have gone meanwhile: jobs end at any time."""
    try:
        job.delete()
    except (InvalidJobOperation, ValueError):  # RQ finds no status by now, or none that it knows
        job.connection.delete(job.key)


def rq_queue(connection: Redis) -> Queue:
    """The RQ queue of all shards."""
    return Queue(QUEUE, connection=connection, job_class=ShardJob, serializer=JSONSerializer)


def report(
    shard: Shard,
    image_steps: int,
    pipeline: Pipeline,
    state: bytes = b"",
    sigma: float | None = None,
    lease: tuple[str, str] | None = None,
    begun: float | None = None,
    seconds: int | None = None,
) -> None:
    """Adds the command that writes down a shard's progress, its state if there is one, and the noise level it is at.

    Its answer is 0 if nobody wants the shard any more, -1 if the lease is lost, 2 if somebody wants to see previews.

    Args:
        shard: whose.
        image_steps: done so far.
        pipeline: to which the command is added.
        state: to go on from.
        sigma: noise level.
        lease: RQ's registry of started jobs, and what stands there while the lease lasts; without, nobody's is asked.
        begun: when the shard was, in seconds since the epoch; by default now.
        seconds: that the lease is to last from now on; by default it ends when it did.
    """
    level, since = "" if sigma is None else sigma, "" if begun is None else begun
    fields = shard.job_id, time.time(), shard.number, image_steps, state, level, since
    pipeline.eval(scripts.PROGRESS, 0, *fields, *(lease or ()), *([] if seconds is None else [seconds]))


def show(shard: Shard, estimates: bytes, states: bytes, pipeline: Pipeline) -> None:
    """Adds the command that shows what a shard's images will look like, and what they look like by now."""
    pipeline.eval(scripts.SHOW, 0, shard.job_id, time.time(), shard.number, estimates, states)


def rq_record(queue: Queue, result_ttl: int) -> dict[str, str]:
    """What RQ writes down of a shard that waits, apart from the times, the data and the description."""
    job = queue.create_job(
        FUNCTION, timeout=-1, result_ttl=result_ttl, failure_ttl=result_ttl, retry=Retry(max=RETRIES)
    )
    job.origin = queue.name
    record = job.to_dict(include_meta=False) | {"status": "queued"}
    return {name: str(record[name]) for name in record.keys() - {"data", "description", "created_at"}}


def take(
    queue: Queue, models: Sequence[str] | None, free: int = 1, fits: Mapping[str, float] = MappingProxyType({})
) -> list[str]:
    """Takes the shards that are next, all of one model, as `scripts.TAKE` says; returns their ids.

    Args:
        queue: of all shards.
        models: those that shards may be taken of; None for all.
        free: slots that they are to fill, and at least one shard.
        fits: model -> image-steps that a shard may have; of others they are as small as their job is cut.
    """
    room = free, json.dumps(dict(fits)), RETRIES - SUSPECT_DEATHS
    named = queue.key, WORKERS_BY_QUEUE_KEY % queue.name
    taken: Any = queue.connection.eval(scripts.TAKE, 2, *named, json.dumps(models), *room)
    return [shard.decode() for shard in taken]


def make_way(queue: Queue, models: Sequence[str] | None, held: Sequence[tuple[Shard, int]]) -> tuple[int, str] | None:
    """Which of some shards should make way for the next that waits, as `scripts.MAKE_WAY` says.

    Args:
        queue: of all shards.
        models: those that the next may be of; None for all.
        held: shards, and image-steps done of each.

    Returns:
        Its place among them, and the model of the one that waits; None if none should.
    """
    fields = [field for shard, image_steps in held for field in (shard.job_id, shard.number, image_steps)]
    found: Any = queue.connection.eval(scripts.MAKE_WAY, 0, json.dumps(models), *fields)
    return None if found is None else (int(found[0]), found[1].decode())


def again(queue: Queue, job: RQJob, shard: Shard, pipeline: Pipeline) -> None:
    """Adds the commands that put a shard back to where it was taken from."""
    queue._prepare_for_queue(job)
    queue._persist_job(job, pipeline)
    pipeline.eval(scripts.AGAIN, 1, queue.key, shard.job_id, shard.number)


def reclaim(queue: Queue, lease_seconds: int) -> list[str]:
    """Puts back what dead workers held; returns the ids of shards that have no retry left."""
    dead: Any = queue.connection.eval(scripts.RECLAIM, 2, queue.key, queue.started_job_registry.key, lease_seconds)
    return [shard.decode() for shard in dead]


def repair(queue: Queue, job_id: str) -> list[str]:
    """Puts back the shards of a job that are nowhere; returns the ids of those that RQ has given up."""
    dead: Any = queue.connection.eval(scripts.REPAIR, 2, queue.key, queue.started_job_registry.key, job_id)
    return [shard.decode() for shard in dead]


def mend(queue: Queue, ttl_seconds: int) -> list[str]:
    """Ends jobs whose record is damaged or gone, though they have not ended; returns their ids."""
    reason = "what the queue had of it was damaged: ask again"
    damaged: Any = queue.connection.eval(scripts.MEND, 0, time.time(), ttl_seconds, reason)
    return [job_id.decode() for job_id in damaged]


def discard(queue: Queue, job_id: str, count: int, keep: int | None = None) -> None:
    """Removes the shards of a job that has ended, waiting or running, but for the number `keep`."""
    registries = queue.started_job_registry.key, queue.finished_job_registry.key, queue.failed_job_registry.key
    queue.connection.eval(scripts.UNQUEUE, 1, queue.key, job_id, count)
    for first in range(0, count, AT_ONCE):
        numbers = first, min(first + AT_ONCE, count), -1 if keep is None else keep
        queue.connection.eval(scripts.DISCARD, 3, *registries, job_id, *numbers)
