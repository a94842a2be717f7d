"""A store is cleaned of what no job has any more."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.worker.conftest import NewWorker
from tests.worker.storing.conftest import Submit
from worker import upkeep
from worker.queue import keys, stores
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
    done: list[str] = []
    first.writers.do(lambda: done.append(""))
    second.writers.do(lambda: done.append(""))
    until(lambda: len(done) == 2)
    assert len(cleaned) == 2, "neither the other, nor twice in a minute"
