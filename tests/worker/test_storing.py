"""Images of large jobs lie in a store: written beside the steps, kept through whatever happens, and read from there."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from models.card import ModelCard
from models.samplers.euler import Euler
from models.score import ScoreModel
from tests.worker.conftest import Ask, NewWorker, deaths, expected, expire
from worker import upkeep, writers
from worker.batching import BatchingWorker
from worker.device.lane import DeviceFailed
from worker.queue import keys, stores
from worker.queue.job import Job, JobState
from worker.queue.jobs import JobQueue
from worker.queue.results import Results, encode
from worker.queue.stores import StoreAway, Stores, is_reference
from worker.settings import WorkerSettings
from worker.upkeep import forget_images, look_after

WITH_FRAMES = Euler(name="euler", levels=5)
Submit = Callable[..., Job]


@pytest.fixture
def settings(settings: WorkerSettings, directory_url: str) -> WorkerSettings:
    return settings.model_copy(update={"results_url": directory_url, "results_in_redis_bytes": 0})


@pytest.fixture
def with_frames(queue: JobQueue, tiny_card: ModelCard, ask: Ask) -> Job:
    """A job that keeps what its images looked like on their way."""
    request, image_steps = ask(count=6, sampler=WITH_FRAMES)
    return queue.accept(queue.offer(request.model_copy(update={"frames": 3}), tiny_card.image, image_steps))


class Outage:
    """A store that is away while it `lasts`, and counts who came in vain."""

    def __init__(self) -> None:
        self.lasts, self.tries = False, 0

    def check(self) -> None:
        if self.lasts:
            self.tries += 1
            raise StoreAway("it is away")


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    found = Outage()
    for kind in (stores.Directory, stores.Bucket):

        def write(store: Any, name: str, data: bytes, write: Any = kind.write) -> None:
            found.check()
            write(store, name, data)

        monkeypatch.setattr(kind, "write", write)
    monkeypatch.setattr(writers, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(writers, "LONGEST_PAUSE", 0.05)
    return found


def objects(directory: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in directory.rglob("*") if path.is_file()}


def turns(worker: BatchingWorker, until: Callable[..., None], condition: Callable[[], bool]) -> None:
    """Lets a worker take turns until a condition holds."""

    def turn() -> bool:
        worker._advance()
        worker._talk()
        return condition()

    until(turn)


@pytest.mark.parametrize("store", ["directory_url", "bucket_url"])
def test_images_and_frames_lie_in_the_store_and_redis_has_what_they_are_kept_under(
    store: str,
    request: pytest.FixtureRequest,
    submit: Submit,
    with_frames: Job,
    queue: JobQueue,
    new_worker: NewWorker,
    tiny_card: ModelCard,
    tiny_model: ScoreModel,
) -> None:
    queue.settings = queue.settings.model_copy(update={"results_url": request.getfixturevalue(store)})
    jobs = [submit(count=10), submit(count=1, seed=7)]
    assert new_worker().work(burst=True)
    results = Results(queue.connection)
    for job in jobs:
        ended = queue.get(job.id)
        assert (ended.state, ended.store) == (JobState.FINISHED, queue.settings.results_url)
        assert ended.image_steps_done == job.image_steps
        images = expected(job, tiny_card, tiny_model)
        assert np.array_equal(results.images(ended), images)
        assert np.array_equal(np.concatenate(list(results.pieces(ended))), images)
        for index in range(job.request.count):
            assert np.array_equal(results.image(ended, index), images[index])
        assert all(np.array_equal(shown, images) for shown in results.previews(ended))
        values = queue.connection.hvals(keys.of(job.id, "images"))
        assert len(values) == ended.shards
        assert all(map(is_reference, values))
    framed = queue.get(with_frames.id)
    frames = results.frames(framed)
    assert frames.shape == (6, 3, 8, 8, 1)
    assert np.array_equal(frames[:, -1], expected(framed, tiny_card, tiny_model))
    assert all(map(is_reference, queue.connection.hvals(keys.of(framed.id, "frames"))))
    assert queue.totals()["images"] == 17


def test_frames_are_the_same_wherever_they_lie(
    with_frames: Job, queue: JobQueue, new_worker: NewWorker, tiny_card: ModelCard
) -> None:
    queue.settings = queue.settings.model_copy(update={"results_url": None})
    other = queue.accept(queue.offer(with_frames.request, tiny_card.image, with_frames.image_steps))
    new_worker().work(burst=True)
    results, (kept, there) = Results(queue.connection), (queue.get(job.id) for job in (with_frames, other))
    assert (kept.store is None, there.store is None) == (False, True)
    assert np.array_equal(results.frames(kept), results.frames(there))


def test_small_jobs_stay_in_redis(submit: Submit, queue: JobQueue, new_worker: NewWorker, directory: Path) -> None:
    queue.settings = queue.settings.model_copy(update={"results_in_redis_bytes": 4 * 64})
    small, large = submit(count=4), submit(count=5)
    new_worker().work(burst=True)
    assert (queue.get(small.id).store, queue.get(large.id).store) == (None, queue.settings.results_url)
    assert {name.partition("/")[0] for name in objects(directory)} == {large.id}
    assert len(Results(queue.connection).images(queue.get(small.id))) == 4


def test_frames_count_for_what_a_job_makes(with_frames: Job, queue: JobQueue, tiny_card: ModelCard) -> None:
    made = 3 * 6 * 64
    for most, store in ((made, None), (made - 1, queue.settings.results_url)):
        queue.settings = queue.settings.model_copy(update={"results_in_redis_bytes": most})
        offer = queue.offer(with_frames.request, tiny_card.image, with_frames.image_steps)
        assert offer.job.store == store


def test_a_job_is_read_from_where_it_was_written(
    submit: Submit, queue: JobQueue, new_worker: NewWorker, tmp_path: Path, tiny_card: ModelCard, tiny_model: ScoreModel
) -> None:
    first = submit(count=5)
    (tmp_path / "elsewhere").mkdir()
    queue.settings = queue.settings.model_copy(update={"results_url": (tmp_path / "elsewhere").as_uri()})
    second = submit(count=5)
    queue.settings = queue.settings.model_copy(update={"results_url": None})
    new_worker().work(burst=True)
    assert len(objects(tmp_path / "elsewhere")) == queue.get(second.id).shards
    for job in (first, second):
        images = Results(queue.connection).images(queue.get(job.id))
        assert np.array_equal(images, expected(job, tiny_card, tiny_model))


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
    for claim in killed._ended:
        killed._settle([claim])
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
    killed._settle_written()
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
    assert worker._made
    assert worker.writers.written
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


def test_the_memory_of_redis_does_not_grow_with_images(
    submit: Submit, queue: JobQueue, redis: Redis, tiny_card: ModelCard
) -> None:
    """200 shards of 100 images: only what they are kept under is in Redis, 128 bytes of each at the most."""
    queue.settings = queue.settings.model_copy(update={"shard_size": 100})
    job = submit(count=20_000)
    store, images = Stores(), encode(np.zeros((100, 8, 8, 1), np.uint8))
    assert job.store is not None
    before = redis.info("memory")["used_memory_dataset"]
    for number in range(200):
        redis.hset(keys.of(job.id, "images"), str(number), store.put(job.store, job.id, number, images))
    assert redis.info("memory")["used_memory_dataset"] - before < 200 * 128
