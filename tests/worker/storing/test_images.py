"""Images of large jobs lie in a store, and are read from there."""

from pathlib import Path

import numpy as np
import pytest
from redis import Redis

from models.card import ModelCard
from models.score import ScoreModel
from tests.worker.conftest import NewWorker, expected
from tests.worker.storing.conftest import Submit, objects
from worker.queue import keys
from worker.queue.job import Job, JobState
from worker.queue.jobs import JobQueue
from worker.queue.results import Results, encode
from worker.queue.stores import Stores, is_reference


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
