import os
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest
from rq.job import JobStatus

from models.card import ModelCard
from models.sampling.plan import plan
from models.sampling.sample import sample
from models.sampling.settings import FollowScores
from models.score import ScoreModel
from worker import shards
from worker.batching import BatchingWorker
from worker.queue import Job, JobQueue, JobState
from worker.requests import InpaintRequest, SampleRequest
from worker.results import Results
from worker.settings import WorkerSettings

Ask = Callable[..., tuple[SampleRequest, int]]
NewWorker = Callable[[], BatchingWorker]
LONG = FollowScores(name="follow_scores", steps=400)


@pytest.fixture
def submit(queue: JobQueue, tiny_card: ModelCard, ask: Ask) -> Callable[..., Job]:
    def make(*args: object, **kwargs: object) -> Job:
        request, image_steps = ask(*args, **kwargs)
        return queue.submit(request, tiny_card.image, image_steps)

    return make


def expected(job: Job, card: ModelCard, model: ScoreModel) -> np.ndarray:
    return sample(model, plan(job.request.sampler, card)[1], job.request.count, job.request.seed)


def test_jobs_come_out_as_if_they_had_run_alone(
    submit, queue: JobQueue, new_worker: NewWorker, tiny_card: ModelCard, tiny_model: ScoreModel
) -> None:
    jobs = [submit(count=c, seed=c) for c in (1, 10, 3)]
    new_worker().work(burst=True)
    for job in jobs:
        finished = queue.get(job.id)
        assert finished.state == JobState.FINISHED
        assert finished.image_steps_done == finished.image_steps
        images = Results(queue.connection).images(finished)
        assert np.array_equal(images, expected(job, tiny_card, tiny_model))
        assert np.array_equal(Results(queue.connection).image(finished, job.request.count - 1), images[-1])
    assert queue.totals()["images"] == 14
    assert queue.totals()["jobs_finished"] == 3
    assert queue.depth().jobs == 0


def test_an_inpainting_keeps_what_is_not_masked(
    submit, queue: JobQueue, new_worker: NewWorker, tiny_card: ModelCard, ask: Ask
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 4:] = 1
    request, image_steps = ask(count=3)
    inpaint = InpaintRequest.model_construct(
        **{**dict(request), "kind": "inpaint"}, image=image.tobytes(), mask=mask.tobytes()
    )
    job = queue.submit(inpaint, tiny_card.image, image_steps)
    new_worker().work(burst=True)
    images = Results(queue.connection).images(queue.get(job.id))[..., 0]
    assert (images[:, :, :4] == image[:, :4]).all()
    assert not (images[0, :, 4:] == images[1, :, 4:]).all()


def test_an_id_pushed_three_times_runs_once(submit, queue: JobQueue, new_worker: NewWorker) -> None:
    job = submit(count=1)
    for _ in range(2):
        queue.connection.rpush(queue.rq.key, shards.shard_id(job.id, 0))
    new_worker().work(burst=True)
    assert queue.get(job.id).state == JobState.FINISHED
    assert queue.totals()["images"] == 1


def test_what_a_dead_worker_held_is_done_again_with_the_same_pixels(
    submit, queue: JobQueue, new_worker: NewWorker, tiny_card: ModelCard, tiny_model: ScoreModel
) -> None:
    job = submit(count=4)
    dead = new_worker()
    dead._claim(wait=False)
    dead._step()
    time.sleep(2.1)  # its lease
    new_worker().work(burst=True)
    images = Results(queue.connection).images(queue.get(job.id))
    assert np.array_equal(images, expected(job, tiny_card, tiny_model))


def test_a_worker_that_lost_its_lease_writes_nothing(submit, queue: JobQueue, new_worker: NewWorker) -> None:
    job = submit(count=1)
    zombie = new_worker()
    zombie._claim(wait=False)
    (claim,) = zombie._claims.values()
    queue.connection.zrem(claim.rq_job.started_job_registry.key, claim.execution.composite_key)
    while zombie._claims:
        zombie._step()
    assert not queue.get(job.id).state.final
    assert not queue.connection.exists(shards.images_key(job.id))


def test_a_cancelled_job_leaves_its_slots_and_its_neighbours_alone(
    submit, queue: JobQueue, new_worker: NewWorker, tiny_card: ModelCard, tiny_model: ScoreModel
) -> None:
    cancelled, neighbour = submit(count=4, sampler=LONG), submit(count=2)
    worker = new_worker()
    worker._claim(wait=False)
    worker._step()
    queue.cancel(cancelled.id)
    worker._beat()
    assert worker.batch.free == 6
    while worker._claims:
        worker._step()
    images = Results(queue.connection).images(queue.get(neighbour.id))
    assert np.array_equal(images, expected(neighbour, tiny_card, tiny_model))
    assert queue.get(cancelled.id).state == JobState.CANCELLED


def test_a_stopped_worker_hands_back_what_it_cannot_finish(
    submit, queue: JobQueue, new_worker: NewWorker, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(count=4, sampler=LONG)
    worker = new_worker()
    worker.settings = settings.model_copy(update={"grace_seconds": 0.0})
    steps = iter(range(1000))
    real = worker.batch.step

    def step():  # type: ignore[no-untyped-def]
        if next(steps) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return real()

    monkeypatch.setattr(worker.batch, "step", step)
    worker.work(burst=True)
    assert queue.rq.job_ids == [shards.shard_id(job.id, 0)]
    (waiting,) = queue.rq.get_jobs()
    assert waiting.get_status() == JobStatus.QUEUED
    assert waiting.retries_left == shards.RETRIES
    assert queue.rq.started_job_registry.get_job_count(cleanup=False) == 0


def test_a_stopped_worker_finishes_what_it_can(
    submit, queue: JobQueue, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, later = submit(count=8), submit(count=8)
    worker = new_worker()
    real, seen = worker.batch.step, []

    def step():  # type: ignore[no-untyped-def]
        if not seen:
            os.kill(os.getpid(), signal.SIGTERM)
        seen.append(1)
        return real()

    monkeypatch.setattr(worker.batch, "step", step)
    worker.work(burst=False)
    assert queue.get(job.id).state == JobState.FINISHED
    assert queue.get(later.id).state == JobState.QUEUED


def test_a_bad_request_fails_at_once_and_with_its_reason(
    queue: JobQueue, new_worker: NewWorker, tiny_card: ModelCard, ask: Ask
) -> None:
    request, image_steps = ask(count=10)
    job = queue.submit(request.model_copy(update={"model": "gone"}), tiny_card.image, image_steps)
    new_worker().work(burst=True)
    failed = queue.get(job.id)
    assert failed.state == JobState.FAILED
    assert failed.error is not None
    assert "no model gone" in failed.error
    assert queue.rq.job_ids == []
    assert queue.totals()["jobs_failed"] == 1


def test_only_known_kinds_are_run(queue: JobQueue, new_worker: NewWorker, tmp_path) -> None:  # type: ignore[no-untyped-def]
    queue.rq.enqueue("os.mkdir", str(tmp_path / "made"))
    new_worker().work(burst=True)
    assert not (tmp_path / "made").exists()
    assert queue.rq.job_ids == []


def test_a_device_error_is_tried_again(
    submit, queue: JobQueue, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(count=2)
    worker = new_worker()
    real, failures = worker.batch.step, iter([True, False])

    def step():  # type: ignore[no-untyped-def]
        if next(failures, False):
            raise RuntimeError("out of memory")
        return real()

    monkeypatch.setattr(worker.batch, "step", step)
    worker.work(burst=True)
    assert queue.get(job.id).state == JobState.FINISHED


def test_results_live_as_long_as_they_should(
    submit, queue: JobQueue, settings: WorkerSettings, new_worker: NewWorker
) -> None:
    queue.settings = settings.model_copy(update={"result_ttl_seconds": 2})
    job = submit(count=5)
    new_worker().work(burst=True)
    assert queue.totals()["jobs_finished"] == 1
    time.sleep(2.5)
    new_worker().clean_registries()
    left = [key for key in queue.connection.keys("*") if job.id.encode() in key]
    assert left == []
    assert queue.rq.finished_job_registry.get_job_count(cleanup=False) == 0
