"""Redis is away, full or refuses: nothing is lost, and nobody else is robbed."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import OutOfMemoryError, ResponseError

from models.card import ModelCard
from models.score import ScoreModel
from tests.failover import pair
from tests.worker.conftest import LONG, Ask, NewWorker, deaths, expected, expire
from worker.batching import BatchingWorker
from worker.device.batch import Batch
from worker.queue import keys, shards
from worker.queue.job import JobState
from worker.queue.jobs import JobQueue
from worker.queue.results import Results
from worker.queue.server import connect, unavailable
from worker.settings import WorkerSettings


def test_when_redis_is_back_others_have_time_to_say_that_they_live(
    submit, queue: JobQueue, new_worker: NewWorker, redis: Redis
) -> None:
    first, second = new_worker(), new_worker()
    for worker in (first, second):
        submit(count=8, sampler=LONG)
        worker._claim()
    redis.config_set("maxmemory", 1)
    try:
        assert first._talk() is None
    finally:
        redis.config_set("maxmemory", 0)
    expire(queue)
    first._away_until = 1e-9
    assert first._talk() is not None
    second._next_upkeep = float("inf")  # what it does itself for others is no matter here
    second._beat()
    assert len(second._claims) == 2
    for claim in second._claims.values():
        assert deaths(queue, claim.job, claim.shard.number) == 0
    first._next_upkeep = 0.0
    expire(queue)
    first._beat()
    second._beat()
    assert not second._claims, "later they had better have said so"


def test_after_a_beat_that_took_long_nobodys_lease_is_reclaimed(
    submit, queue: JobQueue, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(count=4, sampler=LONG)
    worker = new_worker()
    worker._claim()
    late = 0.0
    clock = time.monotonic
    monkeypatch.setattr("worker.batching.time.monotonic", lambda: clock() + late)
    answer = Pipeline.execute

    def slow(pipeline: Pipeline) -> list[object]:
        nonlocal late
        late += 30.0
        return answer(pipeline)

    cleaned: list[int] = []
    monkeypatch.setattr(worker, "run_maintenance_tasks", lambda: cleaned.append(1))
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "execute", slow)
        worker._beat()
    assert not cleaned
    worker._beat()
    assert not cleaned
    late += 3.0
    worker._beat()
    assert cleaned


def test_a_worker_that_is_started_while_redis_is_full_waits(
    submit, queue: JobQueue, new_worker: NewWorker, redis: Redis
) -> None:
    job = submit(count=2)
    redis.config_set("maxmemory", 1)
    timer = threading.Timer(1, lambda: redis.config_set("maxmemory", 0))
    timer.start()
    try:
        assert new_worker().work(burst=True)
    finally:
        timer.join()
    assert queue.get(job.id).state == JobState.FINISHED


def test_a_worker_whose_start_was_cut_short_starts_again(
    submit, queue: JobQueue, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, worker = submit(count=2), new_worker()
    set_state, failed = worker.set_state, []

    def fail_once(*args: object) -> None:
        if not failed:
            failed.append(worker.pubsub_thread)
            raise OutOfMemoryError
        set_state(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(worker, "set_state", fail_once)
    assert worker.work(burst=True)
    (listener,) = failed
    assert listener is not None
    assert listener is not worker.pubsub_thread
    listener.join(10)
    assert not listener.is_alive()
    assert queue.get(job.id).state == JobState.FINISHED


def test_a_worker_that_waits_for_redis_can_be_stopped(
    new_worker: NewWorker, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = new_worker()
    monkeypatch.setattr(worker, "bootstrap", lambda *_: redis.rpush("anything", 1))
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    redis.config_set("maxmemory", 1)
    timer.start()
    try:
        assert not worker.work()
    finally:
        redis.config_set("maxmemory", 0)
        timer.join()


@pytest.mark.parametrize(("setting", "value"), [("maxmemory", 1), ("min-replicas-to-write", 1)])
def test_while_redis_takes_nothing_the_batch_goes_on_and_its_images_wait(
    submit,
    queue: JobQueue,
    new_worker: NewWorker,
    tiny_card: ModelCard,
    tiny_model: ScoreModel,
    redis: Redis,
    setting: str,
    value: int,
) -> None:
    jobs = [submit(count=4), submit(count=12, seed=2)]
    worker = new_worker()
    worker._talk()
    worker._next_beat = 0.0
    redis.config_set(setting, value)
    try:
        for _ in range(60):
            worker._advance()
            assert worker._talk() is None
            worker._away_until = 1e-9  # not so long
        for write in (worker._claim, lambda: shards.reclaim(queue.rq, 0)):
            with pytest.raises(ResponseError) as caught:
                write()
            assert unavailable(caught.value)
        assert len(queue.rq.job_ids) == 1, "what was not carried out left no trace"
        assert queue.connection.lrange(keys.of(jobs[1].id, "waiting"), 0, -1) == [b"1"]
        assert worker.batch.image_steps == 8 * 13
        assert not worker._claims
        assert len(worker._made) == len(worker._untold) == 2
    finally:
        redis.config_set(setting, 0)
    while queue.depth().jobs:
        worker._advance()
        worker._talk()
    for job in jobs:
        images = Results(queue.connection).images(queue.get(job.id))
        assert np.array_equal(images, expected(job, tiny_card, tiny_model))


def test_a_full_redis_can_be_emptied_by_cancelling(
    submit, queue: JobQueue, new_worker: NewWorker, redis: Redis
) -> None:
    done, job = submit(count=4), submit(count=4, sampler=LONG)
    worker = new_worker()
    worker._claim()
    redis.config_set("maxmemory", 1)
    try:
        while not worker._ended:
            worker._advance()
        assert worker._talk() is None
        assert queue.cancel(job.id).state == JobState.CANCELLED
        worker._hear({"channel": keys.ENDED, "data": job.id})
        worker._away_until = 1e-9
        assert worker._talk() is None
        assert [one.job.id for one in worker._in_hand] == [done.id]
    finally:
        redis.config_set("maxmemory", 0)


def test_after_a_failover_behind_its_address_work_goes_on_with_the_new_master(
    ask: Ask, settings: WorkerSettings, tiny_card: ModelCard, new_worker: NewWorker
) -> None:
    request, image_steps = ask(count=2)
    with pair() as servers:
        connection = connect(servers.url, timeout=10, attempts=2)
        batch = Batch(settings.store(), settings.slots, "cpu")
        worker = BatchingWorker(connection, batch, settings)
        assert worker._register()
        for _ in range(3):
            worker._advance()
            worker._talk()
        servers.demote()
        assert worker._talk() in (None, True)
        servers.move()
        queue = JobQueue(connect(f"unix://{servers._directory}/second", timeout=10, attempts=0), settings)
        job = queue.accept(queue.offer(request, tiny_card.image, image_steps))
        deadline = time.monotonic() + 60
        while not queue.get(job.id).state.final and time.monotonic() < deadline:
            worker._advance()
            worker._away_until = min(worker._away_until, 1e-9)
            worker._talk()
        assert queue.get(job.id).state == JobState.FINISHED
        worker.unsubscribe()
        connection.close()
        queue.connection.close()
