"""Images are written into their store beside the steps, and kept through whatever happens."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from models.card import ModelCard
from models.score import ScoreModel
from tests.worker.conftest import NewWorker, deaths, expected, expire
from tests.worker.storing.conftest import Outage, Submit, objects, turns
from worker.beside import writers
from worker.device.lane import DeviceFailed
from worker.queue import keys
from worker.queue.job import Job, JobState
from worker.queue.jobs import JobQueue
from worker.queue.results import Results
from worker.settings import WorkerSettings
from worker.upkeep import look_after


def test_steps_go_on_while_the_store_is_away_and_nothing_is_lost_or_done_twice(
    submit: Submit,
    queue: JobQueue,
    new_worker: NewWorker,
    outage: Outage,
    until: Callable[..., None],
    tiny_card: ModelCard,
    tiny_model: ScoreModel,
) -> None:
    large = submit(count=12)
    queue.settings = queue.settings.model_copy(update={"results_url": None})
    small = submit(count=3)
    worker, outage.lasts = new_worker(), True
    turns(worker, until, lambda: len(worker._made) == 3 and queue.get(small.id).state == JobState.FINISHED)
    assert worker.batch.active == 0, "what is made is in no slot"
    turns(worker, until, lambda: outage.tries > 20)
    worker._beat()
    assert queue.get(large.id).state == JobState.RUNNING
    assert queue.get(large.id).image_steps_done == large.image_steps
    assert queue.connection.hlen(keys.of(large.id, "images")) == 0
    expire(queue)
    worker._beat()
    look_after(queue, 2)
    assert [deaths(queue, large, number) for number in range(3)] == [0, 0, 0], "its lease is held"
    outage.lasts = False
    turns(worker, until, lambda: queue.get(large.id).state == JobState.FINISHED)
    assert worker.batch.image_steps == large.image_steps + small.image_steps
    assert not worker._made
    assert worker.writers.backlog == 0
    images = Results(queue.connection).images(queue.get(large.id))
    assert np.array_equal(images, expected(large, tiny_card, tiny_model))


def test_no_more_is_begun_than_may_wait_to_be_written(
    submit: Submit, queue: JobQueue, new_worker: NewWorker, outage: Outage, until: Callable[..., None], monkeypatch: Any
) -> None:
    monkeypatch.setattr(writers, "BACKLOG_BYTES", 10 * 64)
    job = submit(count=40)
    worker, outage.lasts = new_worker(), True
    turns(worker, until, lambda: worker.writers.full and not worker._claims)
    turns(worker, until, lambda: outage.tries > 20)
    assert 3 <= len(worker._made) <= 5, "the backlog, and what was in slots when it was reached"
    assert worker._look_due(float("inf")) is False
    outage.lasts = False
    assert worker.work(burst=True)
    assert queue.get(job.id).state == JobState.FINISHED
    assert worker.batch.image_steps == job.image_steps


def test_what_was_not_written_when_a_worker_stops_is_written_by_another(
    submit: Submit,
    with_frames: Job,
    queue: JobQueue,
    new_worker: NewWorker,
    settings: WorkerSettings,
    outage: Outage,
    until: Callable[..., None],
    tiny_card: ModelCard,
    tiny_model: ScoreModel,
) -> None:
    job = submit(count=4)
    first, outage.lasts = new_worker(settings=settings.model_copy(update={"grace_seconds": 0.0})), True
    turns(first, until, lambda: len(first._made) == 3)
    first._shutdown()
    first._talk()
    assert not first._made
    assert queue.rq.count == 3
    outage.lasts = False
    assert deaths(queue, job) == 0
    second = new_worker()
    assert second.work(burst=True)
    assert second.batch.image_steps == 0, "nothing is done twice"
    results = Results(queue.connection)
    for one in (job, with_frames):
        assert np.array_equal(results.images(queue.get(one.id)), expected(one, tiny_card, tiny_model))
    assert results.frames(queue.get(with_frames.id)).shape == (6, 3, 8, 8, 1)


def test_a_device_that_fails_takes_nothing_that_is_made_with_it(
    submit: Submit, queue: JobQueue, new_worker: NewWorker, outage: Outage, until: Callable[..., None], monkeypatch: Any
) -> None:
    job = submit(count=4)
    worker, outage.lasts = new_worker(), True
    turns(worker, until, lambda: len(worker._made) == 1)

    def fail() -> None:
        raise DeviceFailed("broken")

    monkeypatch.setattr(worker.batch, "step", fail)
    with pytest.raises(DeviceFailed):
        worker.work()
    outage.lasts = False
    assert deaths(queue, job) == 0, "it had nothing to do with it"
    second = new_worker()
    second.work(burst=True)
    assert (second.batch.image_steps, queue.get(job.id).state) == (0, JobState.FINISHED)


@pytest.mark.parametrize("message", [True, False])
def test_what_nobody_wants_any_more_is_not_written(
    submit: Submit,
    queue: JobQueue,
    new_worker: NewWorker,
    outage: Outage,
    until: Callable[..., None],
    directory: Path,
    message: bool,
) -> None:
    job = submit(count=8)
    worker, outage.lasts = new_worker(), True
    turns(worker, until, lambda: len(worker._made) == 2)
    queue.cancel(job.id)
    if message:
        worker._hear({"channel": keys.ENDED, "data": job.id})
        worker._read_mail()
    else:
        worker._beat()
    assert not worker._made
    outage.lasts = False
    assert worker.work(burst=True) is False
    assert objects(directory) == set()


def test_an_operator_stops_what_waits_to_be_written(
    submit: Submit, queue: JobQueue, new_worker: NewWorker, outage: Outage, until: Callable[..., None]
) -> None:
    job, worker, outage.lasts = submit(count=4), new_worker(), True
    turns(worker, until, lambda: len(worker._made) == 1)
    worker._mail.put({"command": "stop-job", "job_id": f"{job.id}-0"})
    worker._read_mail()
    assert queue.get(job.id).state == JobState.CANCELLED


def test_what_a_killed_worker_had_written_is_made_again_and_the_same(
    submit: Submit,
    queue: JobQueue,
    new_worker: NewWorker,
    until: Callable[..., None],
    directory: Path,
    tiny_card: ModelCard,
    tiny_model: ScoreModel,
) -> None:
    job = submit(count=8)
    killed = new_worker()
    killed._claim()
    killed._beat()
    until(lambda: killed._advance() or len(killed._ended) == 2)
    killed._settle_ended()
    until(lambda: len(killed.writers.written) == 2)
    written = objects(directory)
    assert len(written) == 2
    assert queue.get(job.id).state == JobState.RUNNING, "Redis has not been told"
    expire(queue)
    second = new_worker()
    look_after(queue, 2)
    assert second.work(burst=True)
    assert objects(directory) == written
    assert np.array_equal(Results(queue.connection).images(queue.get(job.id)), expected(job, tiny_card, tiny_model))
    killed._settle_made()
    assert queue.totals()["images"] == 8, "whose lease is lost writes nothing down"


def test_what_is_written_while_redis_is_away_is_told_later(
    submit: Submit, queue: JobQueue, new_worker: NewWorker, until: Callable[..., None], monkeypatch: Any
) -> None:
    job, worker = submit(count=4), new_worker()
    worker._claim()
    until(lambda: worker._advance() or bool(worker._ended))
    worker._settle_ended()
    until(lambda: bool(worker.writers.written))

    def away(*_: Any) -> int:
        raise RedisConnectionError("away")

    with monkeypatch.context() as patch:
        patch.setattr(worker.leases, "finish", away)
        assert worker._talk() is None
    assert len(worker._made) == len(worker._untold) == 1
    worker._away_until = 0.0
    worker._talk()
    assert queue.get(job.id).state == JobState.FINISHED
    assert not worker._made


def test_a_worker_that_is_killed_by_a_signal_while_it_writes_ends(
    submit: Submit, queue: JobQueue, new_worker: NewWorker, outage: Outage, monkeypatch: Any, settings: WorkerSettings
) -> None:
    """The store is away for longer than the grace time: the process does not wait for it."""
    submit(count=4)
    worker, outage.lasts = new_worker(settings=settings.model_copy(update={"grace_seconds": 0.2})), True
    talk = worker._talk

    def then_stop() -> bool | None:
        if worker._made and not worker._stop_requested:
            os.kill(os.getpid(), signal.SIGTERM)
        return talk()

    monkeypatch.setattr(worker, "_talk", then_stop)
    assert worker.work()
    assert queue.rq.started_job_registry.get_job_count(cleanup=False) == 0
    assert queue.rq.count == 1
