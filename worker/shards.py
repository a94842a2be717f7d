"""Shards: the RQ jobs that a job consists of. What is private to RQ stays in this file and in worker.batching.

Torch-free: the service enqueues shards, workers claim them.
"""

import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from redis import Redis
from redis.client import Pipeline
from rq import Queue, Retry
from rq.exceptions import NoSuchJobError
from rq.job import Job as RQJob
from rq.queue import EnqueueData
from rq.serializers import JSONSerializer

from worker import scripts

QUEUE = "scoreserve"
FUNCTION = "scoreserve.fulfil"  # a label: workers never resolve it to code
RETRIES = 10  # how many dead workers a shard survives

ACTIVE = "scoreserve:active"  # sorted set of the jobs that have not ended, by time of creation
TOTALS = "scoreserve:totals"  # hash of counters since the beginning


def job_key(job_id: str) -> str:
    """Hash: what a job is, and how it ended."""
    return f"scoreserve:job:{job_id}"


def images_key(job_id: str) -> str:
    """Hash: shard number -> its images, uint8 pixels one after another."""
    return f"scoreserve:job:{job_id}:images"


def progress_key(job_id: str) -> str:
    """Hash: shard number -> its image-steps done."""
    return f"scoreserve:job:{job_id}:progress"


def state_key(job_id: str) -> str:
    """Hash: shard number -> what a stopped worker saved of it."""
    return f"scoreserve:job:{job_id}:state"


def shard_id(job_id: str, number: int) -> str:
    """The RQ job of a shard."""
    return f"{job_id}-{number}"


def keys(job_id: str) -> list[str]:
    """The keys of the scripts END and STORE."""
    return [job_key(job_id), images_key(job_id), progress_key(job_id), state_key(job_id), ACTIVE, TOTALS]


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


class ShardJob(RQJob):
    """An RQ job whose outcome is written together with the job it belongs to, in RQ's own transaction."""

    outcome: tuple[bytes, int, int] | None = None  # images, image-steps, number of images
    reason: str | None = None

    @property
    def shard(self) -> "Shard":
        """What the RQ job asks for.

        Raises:
            ValueError: it is none of ours.
        """
        if self.func_name != FUNCTION:
            raise ValueError(f"unknown request kind {self.func_name!r}")
        return Shard(**self.kwargs)

    def _handle_success(self, result_ttl: int, pipeline: Pipeline, *args: Any, **kwargs: Any) -> None:
        super()._handle_success(result_ttl, pipeline, *args, **kwargs)
        if self.outcome is None:
            raise RuntimeError("a shard was finished without its images")
        shard, (images, image_steps, count) = self.shard, self.outcome
        pipeline.eval(
            scripts.STORE, 6, *keys(shard.job_id),
            "finished", time.time(), shard.result_ttl, "", shard.job_id, shard.number, images, image_steps, count,
        )  # fmt: skip

    def _handle_failure(self, exc_string: str, pipeline: Pipeline, *args: Any, **kwargs: Any) -> None:
        super()._handle_failure(exc_string, pipeline, *args, **kwargs)
        shard = self.shard
        reason = self.reason or f"a worker died on every one of {RETRIES + 1} attempts"
        pipeline.eval(
            scripts.END, 6, *keys(shard.job_id), "failed", time.time(), shard.result_ttl, reason, shard.job_id
        )  # fmt: skip


def rq_queue(connection: Redis) -> Queue:
    """The RQ queue of all shards."""
    return Queue(QUEUE, connection=connection, job_class=ShardJob, serializer=JSONSerializer)


def report(shard: Shard, image_steps: int, pipeline: Pipeline, state: bytes = b"") -> None:
    """Adds the command that writes down a shard's progress, and its state if there is one.

    Its answer is 0 if nobody wants the shard any more.
    """
    keys = job_key(shard.job_id), progress_key(shard.job_id), state_key(shard.job_id)
    pipeline.eval(scripts.PROGRESS, 3, *keys, time.time(), shard.number, image_steps, state)


def enqueue(queue: Queue, shards: list[Shard], pipeline: Pipeline) -> None:
    """Adds the commands that enqueue the shards to a transaction."""
    data: list[EnqueueData] = [
        Queue.prepare_data(
            FUNCTION,
            kwargs=asdict(shard),
            job_id=shard.id,
            timeout=-1,
            result_ttl=shard.result_ttl,
            failure_ttl=shard.result_ttl,
            description=f"{shard.count} images of job {shard.job_id}",
            retry=Retry(max=RETRIES),
        )
        for shard in shards
    ]
    queue.enqueue_many(data, pipeline=pipeline)


def discard(queue: Queue, job_id: str, count: int, keep: int | None = None) -> None:
    """Removes the shards of a job, waiting or running, but for `keep`; workers notice at their next heartbeat."""
    ids = [shard_id(job_id, number) for number in range(count) if number != keep]
    for job in ShardJob.fetch_many(ids, connection=queue.connection, serializer=JSONSerializer):
        if job is not None:
            with suppress(ValueError, NoSuchJobError):  # RQ: an execution whose lease has ended is not found
                job.delete()
