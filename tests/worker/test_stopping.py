"""A worker that is told to stop: what it finishes, saves and hands back."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from rq.job import JobStatus

from models.card import ModelCard
from models.samplers.follow_scores import FollowScores
from models.samplers.heun import Heun
from models.score import ScoreModel
from tests.worker.conftest import LONG, NewWorker, expected, expire
from worker.batching import BatchingWorker
from worker.device.lane import Part
from worker.queue import keys, shards
from worker.queue.job import JobState
from worker.queue.jobs import JobQueue
from worker.queue.results import Results
from worker.settings import WorkerSettings


def stop_at(worker: BatchingWorker, step_number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends this process a SIGTERM before a step of the worker, counted from its first shard."""
    real, steps = worker.batch.step, iter(range(100_000))

    def step():  # type: ignore[no-untyped-def]
        if worker.batch.parts and next(steps) == step_number:
            os.kill(os.getpid(), signal.SIGTERM)
        return real()

    monkeypatch.setattr(worker.batch, "step", step)


def test_another_worker_goes_on_where_a_stopped_one_was(
    submit,
    queue: JobQueue,
    new_worker: NewWorker,
    settings: WorkerSettings,
    tiny_card: ModelCard,
    tiny_model: ScoreModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = [submit(count=4, sampler=sampler) for sampler in (LONG, Heun(name="heun", levels=50))]
    first = new_worker()
    first.settings = settings.model_copy(update={"grace_seconds": 0.0})
    stop_at(first, 30, monkeypatch)
    first.work(burst=True)
    assert queue.rq.job_ids == [shards.shard_id(job.id, 0) for job in jobs]
    for waiting in queue.rq.get_jobs():
        assert waiting.get_status() == JobStatus.QUEUED
        assert waiting.retries_left == shards.RETRIES
    assert queue.rq.started_job_registry.get_job_count(cleanup=False) == 0
    done = [queue.get(job.id).image_steps_done for job in jobs]
    assert min(done) > 0
    assert sum(done) == first.batch.image_steps
    second = new_worker()
    second.work(burst=True)
    assert second.batch.image_steps == sum(job.image_steps for job in jobs) - sum(done), "nothing was done twice"
    assert queue.totals()["image_steps_computed"] == sum(job.image_steps for job in jobs)
    for job in jobs:
        images = Results(queue.connection).images(queue.get(job.id))
        assert np.array_equal(images, expected(job, tiny_card, tiny_model))
        assert not queue.connection.exists(keys.of(job.id, "state"))


def test_saved_state_goes_with_its_job(submit, queue: JobQueue, new_worker: NewWorker) -> None:
    job = submit(count=4, sampler=LONG)
    worker = new_worker()
    worker._claim()
    worker._step()
    worker._hand_back()
    assert queue.connection.hexists(keys.of(job.id, "state"), "0")
    queue.cancel(job.id)
    assert not queue.connection.exists(keys.of(job.id, "state"))


def test_a_worker_that_lost_its_lease_saves_nothing(submit, queue: JobQueue, new_worker: NewWorker) -> None:
    job = submit(count=4, sampler=LONG)
    zombie, heir = new_worker(), new_worker()
    zombie._claim()
    expire(queue)
    heir.clean_registries()
    heir._claim()
    for _ in range(5):
        heir._step()
    heir._hand_back()
    saved = queue.connection.hget(keys.of(job.id, "state"), "0")
    zombie._step()
    zombie._hand_back()
    assert not zombie._claims
    assert queue.connection.hget(keys.of(job.id, "state"), "0") == saved
    assert queue.rq.job_ids == [shards.shard_id(job.id, 0)]


def test_a_second_signal_ends_the_grace_time(
    submit, queue: JobQueue, new_worker: NewWorker, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(count=4, sampler=FollowScores(name="follow_scores", steps=100_000))
    worker = new_worker(settings=settings.model_copy(update={"grace_seconds": 10_000}))
    stop_at(worker, 3, monkeypatch)
    monkeypatch.setattr(worker, "_beat", lambda: os.kill(os.getpid(), signal.SIGTERM) if worker._stop_requested else 0)
    worker.work()
    assert len(queue.rq.job_ids) == 1, "within the grace time it would have been done"


def test_an_idle_worker_stops_at_once(new_worker: NewWorker, settings: WorkerSettings) -> None:
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.start()
    begun = time.monotonic()
    new_worker().work()
    assert time.monotonic() - begun < settings.grace_seconds
    timer.join()


def test_no_worker_is_held_up_by_what_listens_beside_it(new_worker: NewWorker) -> None:
    for _ in range(8):
        worker = new_worker()
        worker.work(burst=True)
        assert worker.pubsub_thread is not None
        assert not worker.pubsub_thread.is_alive()


def test_a_stopped_worker_finishes_what_it_can(
    submit, queue: JobQueue, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, later = submit(count=8), submit(count=8)
    worker = new_worker()
    stop_at(worker, 0, monkeypatch)
    worker.work(burst=False)
    assert queue.get(job.id).state == JobState.FINISHED
    assert queue.get(later.id).state == JobState.QUEUED


def test_a_worker_that_is_stopped_while_it_loads_a_model_takes_nothing_more(
    submit, queue: JobQueue, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        submit(count=2)
    worker = new_worker()
    admit = worker.batch.admit

    def load(*args: object) -> Part:
        worker._shutdown()
        return admit(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(worker.batch, "admit", load)
    worker._claim()
    assert len(worker._claims) == 1
    assert queue.rq.count == 1


def test_a_worker_that_was_started_to_ignore_ctrl_c_does_so(new_worker: NewWorker) -> None:
    """As by a shell, of what it runs in the background."""
    worker = new_worker()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker._install_signal_handlers()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) == worker.request_stop
