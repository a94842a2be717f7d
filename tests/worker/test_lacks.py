"""A worker whose store lacks what another's has leaves it to that one; jobs fail only when nobody can run them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from models.card import ModelCard
from models.store import ModelStore
from tests.worker.conftest import Ask, NewWorker, deaths
from worker import lacks
from worker.batching import BatchingWorker
from worker.device.batch import Batch
from worker.queue.job import Job, JobState
from worker.queue.jobs import JobQueue, Lack
from worker.settings import WorkerSettings

PublishOther = Callable[..., ModelCard]


@pytest.fixture
def lacking(new_worker: NewWorker, models_dir: Path) -> BatchingWorker:
    """A worker that is alive and has only `tiny`, version 1."""
    worker = new_worker(Batch(ModelStore(models_dir), 8, "cpu"))
    worker.register_birth()
    worker._beat()
    return worker


@pytest.fixture
def having(new_worker: NewWorker, models_dir: Path, tmp_path: Path) -> BatchingWorker:
    """A worker that is alive, and whose store has besides what a test publishes into `tmp_path`."""
    worker = new_worker(Batch(ModelStore(models_dir, tmp_path), 8, "cpu"))
    worker.register_birth()
    worker._beat()
    return worker


def submit_to(queue: JobQueue, ask: Ask, card: ModelCard, count: int = 4) -> Job:
    request, image_steps = ask(count=count)
    update = {"model": card.name, "version": card.version, "weights_sha256": card.weights_sha256}
    return queue.accept(queue.offer(request.model_copy(update=update), card.image, image_steps))


def finish(worker: BatchingWorker) -> None:
    """Claims, and steps until nothing is in hand, or waits that this worker would take."""
    while worker._claim():
        while worker._claims:
            worker._step()


def later(worker: BatchingWorker, seconds: float) -> None:
    """As if that much time had passed since a worker found what it lacks."""
    known = worker.lacks
    known._pauses = {model: until - seconds for model, until in known._pauses.items()}
    known._known = {key: lacks.Known(one.lack, one.stamp, one.at - seconds) for key, one in known._known.items()}


@pytest.mark.parametrize("version", [1, 2])
def test_what_one_worker_lacks_another_does(
    queue: JobQueue,
    ask: Ask,
    lacking: BatchingWorker,
    having: BatchingWorker,
    publish_other: PublishOther,
    tmp_path: Path,
    version: int,
) -> None:
    card = publish_other(tmp_path, "other" if version == 1 else "tiny", version)
    job = submit_to(queue, ask, card, count=10)
    finish(lacking)
    waiting = queue.get(job.id)
    assert waiting.state == JobState.QUEUED
    assert waiting.error is None
    assert deaths(queue, job) == 0, "no retry is spent"
    finish(having)
    assert queue.get(job.id).state == JobState.FINISHED


@pytest.mark.parametrize("damage", ["a byte", "weights", "card", "other weights", "no such network"])
def test_what_one_worker_cannot_read_or_run_another_does(
    queue: JobQueue,
    ask: Ask,
    new_worker: NewWorker,
    having: BatchingWorker,
    publish_other: PublishOther,
    tmp_path: Path,
    damage: str,
) -> None:
    card = publish_other(tmp_path)
    copy = tmp_path / "copy"
    publish_other(copy, seed=2 if damage == "other weights" else 1)
    version = copy / "other" / "1"
    match damage:
        case "a byte":
            data = (version / "model.safetensors").read_bytes()
            (version / "model.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "weights":
            (version / "model.safetensors").unlink()
        case "card":
            (version / "card.json").write_text("{")
        case "no such network":
            theirs = card.model_copy(update={"network": card.network.model_copy(update={"kind": "theirs"})})
            (version / "card.json").write_text(theirs.model_dump_json())
    worker = new_worker(Batch(ModelStore(copy), 8, "cpu"))
    job = submit_to(queue, ask, card)
    finish(worker)
    assert queue.get(job.id).state == JobState.QUEUED, queue.get(job.id).error
    finish(having)
    assert queue.get(job.id).state == JobState.FINISHED


def test_a_job_fails_once_all_workers_have_said_that_they_lack_its_model(
    queue: JobQueue,
    ask: Ask,
    lacking: BatchingWorker,
    new_worker: NewWorker,
    publish_other: PublishOther,
    tmp_path: Path,
) -> None:
    job = submit_to(queue, ask, publish_other(tmp_path, version=7))
    second = new_worker()
    second.register_birth()
    finish(lacking)
    assert queue.get(job.id).state == JobState.QUEUED, "the other has not said anything yet"
    second._beat()
    later(lacking, lacks.PAUSE_SECONDS)
    finish(lacking)
    assert queue.get(job.id).state == JobState.QUEUED, "the other has not been asked"
    lacking._beat()
    finish(second)
    failed = queue.get(job.id)
    assert failed.state == JobState.FAILED
    assert failed.error is not None
    assert failed.error.startswith("no worker can run model other version 7: ")
    for worker in (lacking, second):
        assert f"worker {worker.name}: no model other version 7; there is: " in failed.error
    assert queue.rq.job_ids == []


def test_who_serves_only_others_is_not_waited_for(
    queue: JobQueue,
    ask: Ask,
    lacking: BatchingWorker,
    new_worker: NewWorker,
    settings: WorkerSettings,
    publish_other: PublishOther,
    tmp_path: Path,
) -> None:
    job = submit_to(queue, ask, publish_other(tmp_path))
    picky = new_worker(settings=settings.model_copy(update={"models": "tiny, more"}))
    picky.register_birth()
    picky._beat()
    finish(lacking)
    failed = queue.get(job.id)
    assert failed.state == JobState.FAILED
    assert f"worker {picky.name}: serves only tiny, more" in (failed.error or "")


def test_of_many_workers_some_are_named(
    queue: JobQueue,
    ask: Ask,
    lacking: BatchingWorker,
    new_worker: NewWorker,
    publish_other: PublishOther,
    tmp_path: Path,
) -> None:
    job = submit_to(queue, ask, publish_other(tmp_path))
    for _ in range(lacks.MOST_NAMED + 1):
        worker = new_worker()
        worker.register_birth()
        worker.lacks.add(job.request, "none here")
        worker._beat()
    finish(lacking)
    error = queue.get(job.id).error or ""
    assert error.count("worker ") == 1 + lacks.MOST_NAMED
    assert error.endswith("; and 2 more")


def test_meanwhile_other_models_are_done_and_nothing_makes_way(
    submit: Callable[..., Job],
    queue: JobQueue,
    ask: Ask,
    lacking: BatchingWorker,
    having: BatchingWorker,
    publish_other: PublishOther,
    tmp_path: Path,
) -> None:
    lacked, own = submit_to(queue, ask, publish_other(tmp_path)), submit(count=2, client="me")
    finish(lacking)
    assert [queue.get(job.id).state for job in (lacked, own)] == [JobState.QUEUED, JobState.FINISHED]
    assert lacking.lacks.taking(queue) == [], "of what waits nothing can be run here"
    finish(lacking)
    assert queue.rq.count == 1, "it was not taken again"
    later(lacking, lacks.PAUSE_SECONDS)
    assert lacking.lacks.taking(queue) is None


def test_others_are_told_of_what_is_lacking_as_long_as_it_is(
    queue: JobQueue,
    ask: Ask,
    lacking: BatchingWorker,
    having: BatchingWorker,
    publish_other: PublishOther,
    tmp_path: Path,
) -> None:
    def told() -> list[Lack]:
        lacking._beat()
        return next(status for status in queue.worker_statuses() if status.name == lacking.name).lacks

    submit_to(queue, ask, publish_other(tmp_path))
    assert told() == []
    finish(lacking)
    assert told() == [Lack(model="other", version=1, reason="no model other version 1; there is: tiny")]
    later(lacking, lacks.KEEP_SECONDS + 1)
    assert told() == []


def test_a_model_that_comes_later_is_run_at_once(
    queue: JobQueue,
    ask: Ask,
    new_worker: NewWorker,
    having: BatchingWorker,
    publish_other: PublishOther,
    tmp_path: Path,
) -> None:
    card, copy = publish_other(tmp_path), tmp_path / "copy"
    (copy / "other").mkdir(parents=True)
    worker = new_worker(Batch(ModelStore(copy), 8, "cpu"))
    job = submit_to(queue, ask, card)
    finish(worker)
    assert queue.get(job.id).state == JobState.QUEUED
    shutil.copytree(tmp_path / "other" / "1", copy / "other" / "1")
    finish(worker)
    assert queue.get(job.id).state == JobState.FINISHED
    assert worker.lacks.told() == []


def test_what_cannot_be_run_is_not_loaded_again_and_again(
    queue: JobQueue,
    ask: Ask,
    new_worker: NewWorker,
    having: BatchingWorker,
    publish_other: PublishOther,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card, copy = publish_other(tmp_path), tmp_path / "copy"
    publish_other(copy)
    weights = copy / "other" / "1" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    store = ModelStore(copy)
    read: list[str] = []
    real = store.weights
    monkeypatch.setattr(store, "weights", lambda card: read.append(card.name) or real(card))
    worker = new_worker(Batch(store, 8, "cpu"))
    submit_to(queue, ask, card)
    for _ in range(3):
        finish(worker)
        later(worker, lacks.PAUSE_SECONDS)
    assert read == ["other"]
    later(worker, lacks.KEEP_SECONDS)
    finish(worker)
    assert read == ["other", "other"]
