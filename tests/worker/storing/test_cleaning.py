"""A store is cleaned of what no job has any more."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.worker.conftest import NewWorker
from tests.worker.storing.conftest import Submit, turns
from worker import upkeep
from worker.beside import writers
from worker.queue import keys, stores
from worker.queue.job import JobState
from worker.queue.jobs import JobQueue
from worker.queue.stores import Stores
from worker.upkeep import forget_images


def test_what_no_job_has_any_more_is_removed(
    submit: Submit,
    queue: JobQueue,
    new_worker: NewWorker,
    redis: Redis,
    request: pytest.FixtureRequest,
    results_url: str,
) -> None:
    queue.settings = queue.settings.model_copy(update={"results_url": results_url})
    done, cancelled, running, gone, strange = (submit(count=4, seed=seed) for seed in range(5))
    there = Stores()
    for job in (cancelled, running):
        there.put(results_url, job.id, 0, b"pixels")
    queue.cancel(cancelled.id)
    queue.connection.hset(keys.of(running.id), "started_at", 1.0)
    for job in (gone, strange):
        there.put(results_url, job.id, 0, b"pixels")
        redis.delete(keys.of(job.id))
    there.put(results_url, done.id, 0, b"pixels")
    redis.hset(keys.of(done.id), mapping={"state": "finished", "ended_at": 1.0})
    store = there.of(results_url)
    assert forget_images(queue.connection, store, 60) == 1
    assert set(store.jobs()) == {done.id, running.id, gone.id, strange.id}, "another Redis may know what is young"
    assert forget_images(queue.connection, store, -60) == 2
    assert set(store.jobs()) == {done.id, running.id}
    assert forget_images(queue.connection, store, -60) == 0


def test_many_jobs_are_looked_at_some_at_a_time(queue: JobQueue, directory_url: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(upkeep, "JOBS_AT_ONCE", 7)
    there = Stores()
    for number in range(20):
        there.put(directory_url, f"{number:024x}", 0, b"pixels")
    assert forget_images(queue.connection, there.of(directory_url), -60) == 20
    assert list(there.of(directory_url).jobs()) == []


def test_one_worker_a_minute_cleans_beside_its_steps_and_lives_on_if_it_cannot(
    queue: JobQueue, new_worker: NewWorker, redis: Redis, directory: Path, until: Callable[..., None], monkeypatch: Any
) -> None:
    cleaned: list[str] = []
    forget = upkeep.forget_images

    def watch(connection: Redis, store: stores.Store, seconds: float) -> int:
        cleaned.append("")
        return forget(connection, store, seconds)

    monkeypatch.setattr(upkeep, "forget_images", watch)
    first, second = new_worker(), new_worker()
    first._beat()
    until(lambda: len(cleaned) == 1)
    second._beat()
    first._beat()
    redis.delete(keys.CLEANED)
    directory.rename(directory.with_name("aside"))
    first._next_cleaning = 0.0
    first._beat()
    until(lambda: len(cleaned) == 2)
    until(lambda: not any(worker._cleaner and worker._cleaner.is_alive() for worker in (first, second)))
    assert len(cleaned) == 2, "neither the other, nor twice in a minute"


def test_a_cleaning_that_lasts_is_the_only_one_and_keeps_nothing_from_being_written(
    submit: Submit,
    queue: JobQueue,
    new_worker: NewWorker,
    redis: Redis,
    directory_url: str,
    until: Callable[..., None],
    monkeypatch: Any,
) -> None:
    Stores().put(directory_url, f"{0:024x}", 0, b"pixels")  # of which Redis knows nothing
    looked, goes_on = list[str](), threading.Event()

    def written_at(_: stores.Store, job_id: str) -> None:
        looked.append(job_id)
        goes_on.wait()

    monkeypatch.setattr(stores.Directory, "written_at", written_at)
    worker = new_worker()
    try:
        for _ in range(writers.THREADS + 1):
            worker._next_cleaning = 0.0  # a minute has passed, here and in Redis
            redis.delete(keys.CLEANED)
            worker._beat()
            until(lambda: bool(looked))
        worker._next_cleaning = float("inf")
        job = submit(count=4)
        turns(worker, until, lambda: queue.get(job.id).state == JobState.FINISHED)
    finally:
        goes_on.set()
    assert worker.writers.backlog == 0
    assert len(looked) == 1
