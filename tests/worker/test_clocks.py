"""Clocks that are set back, or that differ: nothing lasts for as long as the step."""

import time
from collections.abc import Callable

import pytest
from redis import Redis

from tests.clocks import set_back
from tests.worker.conftest import LONG, NewWorker, deaths
from worker import upkeep
from worker.queue import shards
from worker.queue.job import Job, JobState
from worker.queue.jobs import JobQueue
from worker.settings import WorkerSettings

HOUR = 3600.0
Submit = Callable[..., Job]


def test_what_a_dead_worker_held_comes_back_though_the_clock_is_set_back(
    submit: Submit, queue: JobQueue, redis: Redis, new_worker: NewWorker, until: Callable[..., None]
) -> None:
    job = submit(count=8, sampler=LONG)
    dead, living = new_worker(), new_worker()
    assert shards.take(queue.rq, None), "and it died before it began it"
    dead._claim()
    assert len(dead._claims) == 1
    living._beat()  # has looked after the queue just now
    set_back(redis, HOUR)
    living._next_upkeep = 0.0

    def back() -> bool:
        living._beat()
        return len(queue.rq.job_ids) == queue.get(job.id).shards == 2

    until(back)


def test_a_dead_worker_does_not_pass_for_alive_though_the_clock_is_set_back(
    queue: JobQueue, redis: Redis, new_worker: NewWorker
) -> None:
    dead, living = new_worker(), new_worker()
    for worker in (dead, living):
        worker.register_birth()
        worker._beat()
    set_back(redis, HOUR)
    upkeep.look_after(queue, 2)
    living._beat()
    assert queue.workers() == 2
    assert 0 < redis.ttl(dead.key) <= 8
    for worker in (dead, living):
        worker.register_death()


def test_a_worker_whose_clock_is_wrong_keeps_its_leases(
    submit: Submit, queue: JobQueue, new_worker: NewWorker, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(count=4, sampler=LONG)
    lease = int(HOUR / 6)  # longer than a busy machine takes for what follows
    worker = new_worker(settings=settings.model_copy(update={"lease_seconds": lease}))
    real = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() - HOUR)
        for module in ("rq.executions", "rq.registry"):
            patch.setattr(f"{module}.current_timestamp", lambda: int(real() - HOUR))
        worker._claim()
        upkeep.look_after(queue, 2)
        worker._beat()
        worker._held()[0].extend(lease, (pipeline := queue.connection.pipeline()))
        pipeline.execute()
        upkeep.look_after(queue, 2)
    assert deaths(queue, job) == 0
    worker._beat()
    assert len(worker._claims) == 1


def test_a_deadline_passes_though_the_clock_is_set_back(
    submit: Submit, queue: JobQueue, redis: Redis, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(count=4, sampler=LONG, deadline_seconds=60)
    worker = new_worker()
    worker._claim()
    set_back(redis, HOUR)
    real = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() - HOUR)
        worker._beat()
        assert not queue.get(job.id).state.final
        redis.hincrbyfloat("scoreserve:clock", "last", 60)  # as much time goes by
        worker._beat()
        assert queue.get(job.id).state == JobState.FAILED


def test_a_deadline_does_not_pass_because_a_clock_is_ahead(submit: Submit, queue: JobQueue) -> None:
    job = submit(count=4, deadline_seconds=60)
    real = time.time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + HOUR)
        assert queue.get(job.id).state == JobState.QUEUED


def test_upkeep_is_done_by_one_worker_within_a_lease(queue: JobQueue, redis: Redis, new_worker: NewWorker) -> None:
    first, second, done = new_worker(), new_worker(), list[JobQueue]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upkeep, "look_after", lambda queue, _: done.append(queue))
        for worker in (first, second, first):
            worker.clean_registries()
        assert done == [first.queue]
        set_back(redis, HOUR)
        second.clean_registries()
        assert done == [first.queue]
        redis.hincrbyfloat("scoreserve:clock", "last", 2)
        second.clean_registries()
        assert done == [first.queue, second.queue]
