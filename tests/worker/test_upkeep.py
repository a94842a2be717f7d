"""What went astray is found again."""

import time
from collections.abc import Callable, Sequence

import pytest
from redis import Redis
from rq.job import Job as RQJob
from rq.registry import StartedJobRegistry

from tests.worker.conftest import NewWorker, deaths, expire
from worker import upkeep
from worker.queue import keys, scripts, shards
from worker.queue.job import Job, JobState
from worker.queue.jobs import JobQueue
from worker.queue.shards import ShardJob


def test_a_dead_worker_costs_a_retry_and_the_last_one_the_job(
    queue: JobQueue, submit: Callable[..., Job], new_worker: NewWorker
) -> None:
    job = submit()
    for attempt in range(shards.RETRIES + 1):
        assert not queue.get(job.id).state.final
        new_worker()._claim()
        assert deaths(queue, job) == attempt
        expire(queue)
        upkeep.look_after(queue, 2)
    failed = queue.get(job.id)
    assert failed.state == JobState.FAILED
    assert failed.error == "a worker died on every one of 11 attempts"
    assert queue.rq.failed_job_registry.get_job_ids() == [shards.shard_id(job.id, 0)]


def test_what_was_taken_by_a_worker_that_died_at_once_goes_back(queue: JobQueue, submit: Callable[..., Job]) -> None:
    job = submit()
    assert shards.take(queue.rq, None) == [shards.shard_id(job.id, 0)]
    assert queue.rq.job_ids == []
    upkeep.look_after(queue, 60)
    assert queue.rq.job_ids == [], "it may be about to start"
    time.sleep(0.01)
    upkeep.look_after(queue, 0)
    assert queue.rq.job_ids == [shards.shard_id(job.id, 0)]
    assert deaths(queue, job) == 0
    assert shards.take(queue.rq, None) == [shards.shard_id(job.id, 0)]


def test_what_rqs_own_tools_put_back_is_done(
    queue: JobQueue, submit: Callable[..., Job], new_worker: NewWorker, redis: Redis
) -> None:
    """`rq info` cleans up in its own process, by RQ's rules, and knows nothing of lines."""
    job = submit(8)
    new_worker()._claim()
    expire(queue)
    StartedJobRegistry(queue.rq.name, redis, RQJob, serializer=queue.rq.serializer).cleanup()
    assert shards.take(queue.rq, None) == []
    new_worker().work(burst=True)
    assert queue.get(job.id).state == JobState.FINISHED
    assert queue.rq.job_ids == []


def test_who_empties_rqs_queue_ends_the_jobs(
    queue: JobQueue, submit: Callable[..., Job], new_worker: NewWorker, redis: Redis
) -> None:
    job = submit(8)
    shards.rq_queue(redis).empty()
    new_worker().work(burst=True)
    new_worker().clean_registries()
    upkeep.look_after(queue, 2)
    failed = queue.get(job.id)
    assert failed.state == JobState.FAILED
    assert failed.error == "its shard was removed from the queue"
    assert queue.depth().jobs == 0


def test_a_job_may_end_while_it_is_looked_at(
    queue: JobQueue, submit: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is written down before its shards are removed: in between these look like none of ours."""
    ending, other = submit(), submit()
    shard = shards.shard_id(ending.id, 0)
    queue.connection.zrem(keys.ACTIVE, ending.id)
    read = shards.fetch_all

    def fetch_all(connection: Redis, rq_ids: Sequence[str]) -> list[ShardJob | None]:
        found = read(connection, rq_ids)
        shards.discard(queue.rq, ending.id, 1)
        return found

    monkeypatch.setattr(shards, "fetch_all", fetch_all)
    upkeep.look_after(queue, 2)
    assert queue.rq.job_ids == [shards.shard_id(other.id, 0)]
    assert not ShardJob.exists(shard, queue.connection)


def test_what_this_release_cannot_read_is_no_stranger(queue: JobQueue, submit: Callable[..., Job]) -> None:
    job = submit(8)
    queue.connection.hset(keys.of(job.id), "request", '{"kind": "of the future"}')
    queue.connection.rpush(queue.rq.key, "stranger")
    upkeep.look_after(queue, 2)
    assert shards.shard_id(job.id, 0) in queue.rq.job_ids
    assert ShardJob.exists(shards.shard_id(job.id, 0), queue.connection)


def test_what_this_release_cannot_read_is_left_to_others(
    queue: JobQueue, submit: Callable[..., Job], new_worker: NewWorker
) -> None:
    """Though its deadline has passed, and its last worker died."""
    job, worker = submit(deadline_seconds=0.1), new_worker()
    shard = shards.shard_id(job.id, 0)
    queue.connection.hset(keys.of(job.id), "request", '{"kind": "of the future"}')
    queue.connection.hset(f"rq:job:{shard}", "retries_left", 0)
    shards.take(queue.rq, None)
    assert worker.leases.start([shard], held=()).leases
    time.sleep(0.1)
    expire(queue)
    worker._next_upkeep = float("inf")
    worker._beat()
    upkeep.look_after(queue, 2)
    assert shards.take(queue.rq, None) == [shard]


@pytest.mark.parametrize("lives", [False, True], ids=["killed", "alive"])
def test_nothing_is_left_of_a_job_whose_end_was_cut_short(
    queue: JobQueue, submit: Callable[..., Job], new_worker: NewWorker, redis: Redis, lives: bool
) -> None:
    """The service may die after it wrote down that a job is cancelled, and a worker that holds a shard of it too."""
    job = submit(16)
    worker = new_worker()
    worker._claim()
    assert len(worker._claims) == 2
    redis.eval(scripts.END, 0, job.id, "cancelled", time.time(), 60, "")
    if lives:
        worker._next_upkeep = float("inf")
        worker._beat()
        assert not worker._claims
    expire(queue)
    upkeep.look_after(queue, 2)
    assert queue.rq.job_ids == []
    assert redis.keys("rq:job:*") == []
    assert queue.rq.started_job_registry.get_job_count(cleanup=False) == 0


def test_nothing_is_left_of_what_was_to_wait_for_slots_when_the_end_of_its_job_was_cut_short(
    queue: JobQueue, submit: Callable[..., Job], new_worker: NewWorker, redis: Redis
) -> None:
    other, job = submit(2), submit(2)
    redis.hset(ShardJob.key_for(shards.shard_id(job.id, 0)), "retries_left", shards.RETRIES - shards.SUSPECT_DEATHS)
    worker = new_worker()
    worker._claim()
    assert [lease.shard.job_id for lease in worker._started] == [job.id]
    redis.eval(scripts.END, 0, job.id, "cancelled", time.time(), 60, "")
    worker._forget_job(job.id)
    assert not worker._started
    expire(queue)
    upkeep.look_after(queue, 2)
    assert not redis.exists(ShardJob.key_for(shards.shard_id(job.id, 0)))
    assert queue.rq.job_ids == [shards.shard_id(other.id, 0)], "which nobody keeps here"
