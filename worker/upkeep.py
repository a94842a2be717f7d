"""Upkeep: what some worker does for all once in a lease, so that nothing accepted is forgotten. Torch-free."""

import logging
import time
from contextlib import suppress
from itertools import islice
from typing import Any

from redis import Redis
from rq.registry import FailedJobRegistry, FinishedJobRegistry
from rq.worker import Worker
from rq.worker_registration import clean_worker_registry

from worker.queue import keys, shards
from worker.queue.job import JobNotFound, JobState
from worker.queue.jobs import JobQueue
from worker.queue.shards import ShardJob
from worker.queue.stores import Store

log = logging.getLogger(__name__)

JOBS_AT_ONCE = 500  # that Redis is asked about
UNWANTED = JobState.FAILED.value.encode(), JobState.CANCELLED.value.encode()


def look_after(queue: JobQueue, lease_seconds: int) -> None:
    """Puts back what dead workers held and what went astray, removes what is not ours, and cleans RQ's registries."""
    for job_id in shards.mend(queue.rq, queue.settings.result_ttl_seconds):
        log.warning("job %s failed: its record is damaged", job_id, extra={"job": job_id})
    for shard_id in shards.reclaim(queue.rq, lease_seconds):
        _give_up(queue, shard_id)
    for job_id in _incomplete(queue):
        for shard_id in shards.repair(queue.rq, job_id):
            _give_up(queue, shard_id)
    _remove_strangers(queue)
    for registry in (FinishedJobRegistry, FailedJobRegistry):
        registry(queue.rq.name, queue.connection).cleanup()
    _count_out(queue, 4 * lease_seconds)
    clean_worker_registry(queue.rq)


def forget_images(connection: Redis, store: Store, ttl_seconds: float) -> int:
    """Removes from a store what no job has any more, and returns how many jobs that was of.

    Those are jobs that failed or were cancelled, and those that Redis has forgotten; but not what is younger than their
    time to live, should Redis have lost their records, or another have them. May last: listing and removing takes
    a bucket long.

    Raises:
        StoreAway: the store cannot be reached.
    """
    removed, found = 0, store.jobs()
    while some := list(islice(found, JOBS_AT_ONCE)):
        with connection.pipeline(transaction=False) as pipeline:
            for job_id in some:
                pipeline.hmget(keys.of(job_id), "created_at", "state")
            records = pipeline.execute()
        for job_id, (created_at, state) in zip(some, records, strict=True):
            if created_at is None:
                written_at = store.written_at(job_id)
                unwanted = written_at is not None and written_at < time.time() - ttl_seconds
            else:
                unwanted = state in UNWANTED
            if unwanted:
                store.remove(job_id)
                removed += 1
    return removed


def _count_out(queue: JobQueue, seconds: int) -> None:
    """Takes no worker for alive for longer than that without a sign of it, though the clock of Redis was set back."""
    with queue.connection.pipeline(transaction=False) as pipeline:
        for key in Worker.all_keys(connection=queue.connection, queue=queue.rq):
            pipeline.expire(key, seconds, lt=True)
        pipeline.execute()


def _incomplete(queue: JobQueue) -> list[str]:
    """Jobs of which fewer shards wait, run, or are done than they have. RQ's own tools may have moved them."""
    unended: Any = queue.connection.zrange(keys.ACTIVE, 0, -1)
    active = [job_id.decode() for job_id in unended]
    leases: Any = queue.connection.zrange(queue.rq.started_job_registry.key, 0, -1)
    running = [lease.decode().rpartition(":")[0].rpartition("-")[0] for lease in leases]
    with queue.connection.pipeline(transaction=False) as pipeline:
        for job_id in active:
            pipeline.hget(keys.of(job_id), "shards")
            pipeline.llen(keys.of(job_id, "waiting"))
            pipeline.hlen(keys.of(job_id, "images"))
        answers = pipeline.execute()
    counts = zip(active, answers[0::3], answers[1::3], answers[2::3], strict=True)
    return [job_id for job_id, all_, *there in counts if sum(there) + running.count(job_id) < int(all_ or 0)]


def _give_up(queue: JobQueue, shard_id: str) -> None:
    """Ends the job of a shard that RQ does not have any more, or has no retry for."""
    job_id, _, number = shard_id.rpartition("-")
    with suppress(JobNotFound, ValueError):  # what another release wrote down, its workers look after
        job = queue.get(job_id)
        log.warning(
            "job %s failed: shard %s was given up", job_id, shard_id, extra={"job": job_id, "shard": int(number)}
        )
        rq_job = shards.fetch(queue.connection, shard_id)
        reason = "its shard was removed from the queue"
        if rq_job is not None:
            reason = f"a worker died on every one of {shards.RETRIES + 1} attempts"
            with queue.connection.pipeline() as pipeline:
                rq_job.set_status("failed", pipeline)  # type: ignore[arg-type]
                rq_job._handle_failure(reason, pipeline)
                pipeline.execute()
        queue.end(job, JobState.FAILED, reason, keep=int(number))


def _remove_strangers(queue: JobQueue) -> None:
    """Takes from RQ's queue what nobody would ever take: what is no shard, or that of a job that has ended."""
    waiting = queue.rq.job_ids if queue.rq.count > _waiting(queue) else []
    wanted: dict[str, bool] = {}  # by job
    for rq_job in shards.fetch_all(queue.connection, waiting):
        if rq_job is not None and not _wanted(queue, rq_job, wanted):
            log.warning("%s is removed from the queue: it is no shard of a job that waits", rq_job.id)
            shards.remove(rq_job)


def _wanted(queue: JobQueue, rq_job: ShardJob, wanted: dict[str, bool]) -> bool:
    try:
        job_id = rq_job.shard.job_id
    except (ValueError, TypeError):
        return False
    if job_id not in wanted:
        wanted[job_id] = queue.connection.zscore(keys.ACTIVE, job_id) is not None
    return wanted[job_id]


def _waiting(queue: JobQueue) -> int:
    active: Any = queue.connection.zrange(keys.ACTIVE, 0, -1)
    with queue.connection.pipeline(transaction=False) as pipeline:
        for job_id in active:
            pipeline.llen(keys.of(job_id.decode(), "waiting"))
        return sum(pipeline.execute())
