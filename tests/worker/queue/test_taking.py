"""How much is taken at once, of a job and of many."""

import pytest
from redis import Redis

from tests.worker.conftest import NewWorker
from tests.worker.queue.conftest import Submit
from worker.queue import keys, shards
from worker.queue.jobs import JobQueue
from worker.settings import WorkerSettings


def taken(queue: JobQueue, free: int, **fits: float) -> list[int]:
    """How many images the shards have that are taken for so many free slots."""
    found = shards.ShardJob.fetch_many(shards.take(queue.rq, None, free, fits), queue.connection, queue.rq.serializer)
    return [rq_job.shard.count for rq_job in found if rq_job is not None]


def test_of_a_large_job_as_much_is_taken_as_fits_the_worker(queue: JobQueue, submit: Submit) -> None:
    job = submit(100_000)
    steps = job.image_steps // 100_000
    assert job.shard_size == 10
    assert taken(queue, 8, tiny=300 * steps) == [300], "whatever is not in slots waits for them"
    assert taken(queue, 8, tiny=4 * steps) == [10], "and none are fewer than its shard size"
    assert taken(queue, 25, tiny=12 * steps) == [12, 12, 12]
    assert taken(queue, 25) == [10, 10, 10]
    assert taken(queue, 8, tiny=10**12) == [16_384], "nor are its pixels more than a mebibyte"


def test_what_is_left_is_shared_by_the_workers(
    queue: JobQueue, submit: Submit, monkeypatch: pytest.MonkeyPatch, redis: Redis
) -> None:
    submit(100)
    redis.sadd("rq:workers:scoreserve", *(f"rq:worker:{number}" for number in range(4)))
    try:
        assert taken(queue, 8, tiny=10**12) == [25]
        assert taken(queue, 8, tiny=10**12) == [25], "what is taken is still to do"
    finally:
        redis.delete("rq:workers:scoreserve")


def test_no_more_are_taken_at_once_than_take_a_moment(queue: JobQueue, submit: Submit) -> None:
    jobs = [submit(1, f"client {number}") for number in range(300)]
    first, then = shards.take(queue.rq, None, 1000), shards.take(queue.rq, None, 1000)
    assert len(first) == 256
    assert first + then == [shards.shard_id(job.id, 0) for job in jobs]


def test_a_worker_with_room_for_more_asks_again(
    submit: Submit, new_worker: NewWorker, settings: WorkerSettings
) -> None:
    for number in range(300):
        submit(1, f"client {number}")
    worker = new_worker(settings=settings.model_copy(update={"slots": 300}))
    worker._claim()
    assert worker.batch.active == 300


def test_what_was_begun_stays_whole(queue: JobQueue, submit: Submit) -> None:
    job = submit(40)
    assert taken(queue, 8, tiny=20 * job.image_steps // 40) == [20]
    (rq_job,) = shards.ShardJob.fetch_many([shards.shard_id(job.id, 0)], queue.connection, queue.rq.serializer)
    assert rq_job is not None
    with queue.connection.pipeline() as pipeline:
        pipeline.zrem(keys.TAKEN, rq_job.id)
        shards.again(queue.rq, rq_job, rq_job.shard, pipeline)
        pipeline.execute()
    assert taken(queue, 4) == [20]
    assert taken(queue, 4) == [4]
