"""A worker from claim to finished job, and what it serves."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from redis import Redis
from rq.serializers import JSONSerializer

from models.card import ModelCard
from models.score import ScoreModel
from models.store import ModelStore
from tests.worker.conftest import LONG, Ask, NewWorker, expected, expire
from worker.claiming import FIRST_BEAT_SECONDS
from worker.device.batch import Batch
from worker.queue import keys, scripts, shards
from worker.queue.job import Job, JobState
from worker.queue.jobs import JobQueue
from worker.queue.requests import InpaintRequest
from worker.queue.results import Results
from worker.queue.shards import ShardJob
from worker.settings import WorkerSettings


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


def test_shards_by_time_have_the_pixels_of_small_ones(
    submit,
    queue: JobQueue,
    new_worker: NewWorker,
    settings: WorkerSettings,
    tiny_card: ModelCard,
    tiny_model: ScoreModel,
) -> None:
    job = submit(count=30)
    worker = new_worker(settings=settings.model_copy(update={"shard_seconds": 1.0}))
    worker.batch.warm_up("tiny")
    (lane,) = worker.batch._lanes.values()
    lane.image_steps_per_second = 11.5 * job.image_steps / 30
    worker._claim()
    assert [claim.shard.count for claim in worker._claims.values()] == [11], "8 of them have slots"
    worker._step()
    worker._beat()
    assert queue.get(job.id).image_steps_done == 8
    worker.work(burst=True)
    finished = queue.get(job.id)
    assert (finished.state, finished.image_steps_done) == (JobState.FINISHED, finished.image_steps)
    results, images = Results(queue.connection), expected(job, tiny_card, tiny_model)
    assert np.array_equal(results.images(finished), images)
    assert np.array_equal(np.concatenate(list(results.pieces(finished))), images)
    for index in range(30):
        assert np.array_equal(results.image(finished, index), images[index])
    assert np.array_equal(results.previews(finished)[0], images)


def test_what_a_release_before_wrote_down_is_done(
    submit,
    queue: JobQueue,
    new_worker: NewWorker,
    tiny_card: ModelCard,
    tiny_model: ScoreModel,
    redis: Redis,
    tmp_path,
) -> None:
    """All of its shards had records of their own from the beginning, and nothing said which images they have."""
    job = submit(count=10)
    assert len(shards.take(queue.rq, None, free=10)) == 3
    for number in range(3):
        shard = shards.shard_id(job.id, number)
        redis.rpush(queue.rq.key, shard)
        redis.rpush(keys.of(job.id, "waiting"), number)
        redis.zrem(keys.TAKEN, shard)
    redis.delete(keys.of(job.id, "ranges"), keys.of(job.id, "progress"), "scoreserve:served")
    redis.hdel(keys.of(job.id), "count", "largest")
    (tmp_path / "join.lua").write_text("-- luacheck: read_globals join\njoin(ARGV[1])\n")
    redis.eval(scripts.load(tmp_path / "join.lua"), 0, job.id)
    worker = new_worker()
    worker._claim()
    assert [(c.shard.first, c.shard.count) for c in worker._claims.values()] == [(0, 4), (4, 4)]
    worker.work(burst=True)
    finished = queue.get(job.id)
    assert (finished.state, finished.image_steps_done) == (JobState.FINISHED, finished.image_steps)
    assert sum(map(int, redis.hvals(keys.of(job.id, "progress")))) == job.image_steps, "which that release looks at"
    assert redis.hgetall("scoreserve:load") == {}
    results, images = Results(queue.connection), expected(job, tiny_card, tiny_model)
    assert np.array_equal(results.images(finished), images)
    assert np.array_equal(results.image(finished, 9), images[9])


def test_what_is_written_down_at_once_is_bounded(
    submit, queue: JobQueue, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.holder.SETTLED_BYTES", 2 * 2 * 64)
    jobs = [submit(count=2, seed=seed) for seed in range(4)]
    worker = new_worker()
    calls: list[int] = []
    finish = worker.leases.finish
    monkeypatch.setattr(worker.leases, "finish", lambda done: calls.append(len(done)) or finish(done))
    worker.work(burst=True)
    assert calls == [2, 2]
    assert all(queue.get(job.id).state == JobState.FINISHED for job in jobs)


def test_it_is_told_soon_that_a_job_runs(submit, queue: JobQueue, new_worker: NewWorker) -> None:
    worker = new_worker()
    worker._talk()
    job = submit(count=1, sampler=LONG)
    worker._next_look, worker._next_beat = 0.0, float("inf")
    worker._talk()
    assert worker._next_beat <= time.monotonic() + FIRST_BEAT_SECONDS
    time.sleep(FIRST_BEAT_SECONDS)
    worker._talk()
    assert queue.get(job.id).state == JobState.RUNNING


def test_slots_that_a_shard_in_hand_leaves_are_filled_at_once(
    submit, queue: JobQueue, new_worker: NewWorker, settings: WorkerSettings, ask: Ask, tiny_card: ModelCard
) -> None:
    """One that is larger than the slots ends image by image; who waits need not wait for its last."""
    whole = JobQueue(queue.connection, settings.model_copy(update={"shard_size": 12}))
    request, image_steps = ask(count=12)
    large, small = whole.accept(whole.offer(request, tiny_card.image, image_steps)), submit(count=2)
    worker = new_worker()
    worker._talk()
    assert [claim.job.id for claim in worker._claims.values()] == [large.id]
    worker._next_look = float("inf")
    while not worker.batch.free:
        worker._advance()
    worker._talk()
    assert [claim.job.id for claim in worker._claims.values()] == [large.id, small.id]


def test_where_nothing_else_waits_room_is_no_reason_to_look(submit, queue: JobQueue, new_worker: NewWorker) -> None:
    """Who comes later tells of it."""
    submit(count=1)
    submit(count=4, sampler=LONG)
    worker = new_worker()
    worker._talk()
    assert len(worker._claims) == 2
    looks = worker._next_look
    while len(worker._claims) == 2:
        worker._step()
    assert worker._next_look == looks
    for claim in list(worker._claims.values()):
        worker._drop(claim)
    assert not worker._look_due(looks - 0.001), "not even where nothing is left in hand"
    worker._mail.put({"command": keys.WAITING, "job_id": "tiny"})
    worker._read_mail()
    assert worker._next_look == 0
    assert worker._look_due(looks - 0.001)
    worker._next_look = 0.0
    submit(count=12, sampler=LONG)
    worker._talk()
    assert len(worker._claims) == 2, "another four images wait for room"
    worker._drop(next(iter(worker._claims.values())))
    assert worker._next_look == 0


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
    job = queue.accept(queue.offer(inpaint, tiny_card.image, image_steps))
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
    dead._claim()
    dead._step()
    time.sleep(2.1)  # its lease
    new_worker().work(burst=True)
    images = Results(queue.connection).images(queue.get(job.id))
    assert np.array_equal(images, expected(job, tiny_card, tiny_model))


def test_a_worker_that_lost_its_lease_writes_nothing(submit, queue: JobQueue, new_worker: NewWorker) -> None:
    job = submit(count=1)
    zombie = new_worker()
    zombie._claim()
    (claim,) = zombie._claims.values()
    queue.connection.zrem(claim.lease.rq_job.started_job_registry.key, claim.lease.execution.composite_key)
    while zombie._claims:
        zombie._step()
    assert not queue.get(job.id).state.final
    assert not queue.connection.exists(keys.of(job.id, "images"))


def test_a_cancelled_job_leaves_its_slots_and_its_neighbours_alone(
    submit, queue: JobQueue, new_worker: NewWorker, tiny_card: ModelCard, tiny_model: ScoreModel
) -> None:
    cancelled, neighbour = submit(count=4, sampler=LONG), submit(count=2)
    worker = new_worker()
    worker._claim()
    worker._step()
    queue.cancel(cancelled.id)
    worker._beat()
    assert worker.batch.free == 6
    while worker._claims:
        worker._step()
    images = Results(queue.connection).images(queue.get(neighbour.id))
    assert np.array_equal(images, expected(neighbour, tiny_card, tiny_model))
    assert queue.get(cancelled.id).state == JobState.CANCELLED


def test_cancelling_frees_the_slots_before_the_next_step_and_without_a_beat(
    submit, queue: JobQueue, new_worker: NewWorker, until, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    cancelled, neighbour = submit(count=4, sampler=LONG), submit(count=4, sampler=LONG)
    worker = new_worker()
    worker.bootstrap("WARNING")
    try:
        worker._talk()
        worker._advance()
        worker._next_beat = float("inf")
        queue.cancel(cancelled.id)
        until(lambda: worker._mail.qsize() > 0)
        with monkeypatch.context() as patch:
            patch.setattr(queue.connection, "execute_command", lambda *_, **__: pytest.fail("no round trip is needed"))
            worker._read_mail()
        assert [claim.job.id for claim in worker._claims.values()] == [neighbour.id]
        assert worker.batch.free == 4
    finally:
        worker._hand_back()
        worker.teardown()


def test_a_new_job_wakes_an_idle_worker(
    submit, queue: JobQueue, new_worker: NewWorker, until, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("worker.batching.LOOK_SECONDS", 60)

    def ask_and_stop() -> None:
        for _ in range(3):
            job = submit(count=1)
            until(lambda job=job: queue.get(job.id).state.final)
        time.sleep(0.5)  # until it is asleep: Python sees a signal that comes just before that only when it wakes
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(0.5, ask_and_stop)
    worker = new_worker()
    worker.batch.warm_up("tiny")
    timer.start()
    begun = time.monotonic()
    worker.work()
    timer.join()
    assert time.monotonic() - begun < 50
    assert queue.totals()["jobs_finished"] == 3


def test_a_running_job_is_stopped_at_its_deadline(submit, queue: JobQueue, new_worker: NewWorker) -> None:
    late, other = submit(count=4, sampler=LONG, deadline_seconds=600), submit(count=2)
    worker = new_worker()
    worker._claim()
    worker._step()
    worker._beat()
    assert len(worker._claims) == 2
    queue.connection.hset(keys.of(late.id), "deadline", late.created_at + 0.001)
    queue.connection.zadd(keys.DEADLINES, {late.id: 1})
    worker._beat()
    failed = queue.get(late.id)
    assert failed.state == JobState.FAILED
    assert failed.error == "its deadline of 0.001 s passed with 4 of 1,600 image-steps done"
    worker._beat()
    assert [claim.job.id for claim in worker._claims.values()] == [other.id]


def test_progress_of_a_worker_that_lost_its_lease_is_not_written_down(
    submit, queue: JobQueue, new_worker: NewWorker
) -> None:
    job = submit(count=8, sampler=LONG)
    zombie, heir = new_worker(), new_worker()
    zombie._claim()
    zombie._step()
    expire(queue)
    heir.clean_registries()
    heir._claim()
    for _ in range(5):
        heir._step()
    heir._beat()
    done = queue.get(job.id).image_steps_done
    assert done == heir.batch.image_steps
    zombie._beat()
    assert queue.get(job.id).image_steps_done == done
    assert not zombie._claims
    assert len(heir._claims) == 2


def test_results_live_as_long_as_they_should(
    submit, queue: JobQueue, settings: WorkerSettings, new_worker: NewWorker, redis: Redis
) -> None:
    queue.settings = settings.model_copy(update={"result_ttl_seconds": 2})
    job = submit(count=5)
    new_worker().work(burst=True)
    assert queue.totals()["jobs_finished"] == 1
    time.sleep(2.5)
    new_worker().clean_registries()
    left = [key for key in redis.keys("*") if job.id.encode() in key]
    assert left == []
    assert queue.rq.finished_job_registry.get_job_count(cleanup=False) == 0


@pytest.fixture
def other(models_dir, publish_other, tmp_path) -> ModelCard:  # type: ignore[no-untyped-def]
    card: ModelCard = publish_other(tmp_path)
    return card


def submit_to(queue: JobQueue, ask: Ask, card: ModelCard, version: int = 1) -> Job:
    request, image_steps = ask(count=4)
    update = {"model": card.name, "version": version, "weights_sha256": card.weights_sha256}
    return queue.accept(queue.offer(request.model_copy(update=update), card.image, image_steps))


def test_a_worker_claims_only_shards_of_its_models(
    queue: JobQueue, settings: WorkerSettings, new_worker, ask: Ask, tiny_card: ModelCard, other: ModelCard, tmp_path
) -> None:  # type: ignore[no-untyped-def]
    jobs = [submit_to(queue, ask, card) for card in (tiny_card, other)]
    new_worker(settings=settings.model_copy(update={"models_dir": tmp_path, "models": "other, more"})).work(burst=True)
    assert [queue.get(job.id).state for job in jobs] == ["queued", "finished"]
    new_worker(settings=settings.model_copy(update={"models": "tiny"})).work(burst=True)
    assert queue.get(jobs[0].id).state == "finished"


def test_models_without_room_beside_each_other_take_turns(
    queue: JobQueue, new_worker, ask: Ask, publish_other, tmp_path
) -> None:  # type: ignore[no-untyped-def]
    cards = [publish_other(tmp_path, name, seed=len(name)) for name in ("one", "second", "third")]
    jobs = [submit_to(queue, ask, card) for _ in range(2) for card in cards]
    store = ModelStore(tmp_path)
    new_worker(Batch(store, 8, "cpu", memory=1)).work(burst=True)
    for job, card in zip(jobs, cards * 2, strict=True):
        images = Results(queue.connection).images(queue.get(job.id))
        assert np.array_equal(images, expected(job, card, ScoreModel.load(store, card)))
        (rq_job,) = ShardJob.fetch_many([shards.shard_id(job.id, 0)], queue.connection, JSONSerializer)
        assert rq_job is not None
        assert rq_job.retries_left == shards.RETRIES


def test_a_new_version_is_served_without_a_restart(
    queue: JobQueue, new_worker, ask: Ask, publish_other, tmp_path
) -> None:  # type: ignore[no-untyped-def]
    first = publish_other(tmp_path)
    worker = new_worker(Batch(ModelStore(tmp_path), 8, "cpu"))
    jobs = [submit_to(queue, ask, first)]
    worker.work(burst=True)
    second = publish_other(tmp_path, version=2, seed=7)
    jobs += [submit_to(queue, ask, first), submit_to(queue, ask, second, version=2)]
    worker.work(burst=True)
    old, again, new = (Results(queue.connection).images(queue.get(job.id)) for job in jobs)
    assert np.array_equal(old, again)
    assert not np.array_equal(old, new)
