"""What is told of a job on its way: progress, previews, and the frames that are kept."""

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from redis import Redis

from models.card import ImageShape, ModelCard
from models.plan import plan
from models.samplers.heun import Heun
from models.samplers.table import snapshots
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.sample import run
from models.score import ScoreModel
from worker import batching
from worker.batching import BatchingWorker
from worker.device.batch import Batch, Refused
from worker.queue import keys, shards
from worker.queue.job import Job
from worker.queue.jobs import JobQueue
from worker.queue.results import MAX_PREVIEW, Results, previewed

NewWorker = Callable[[], BatchingWorker]
Submit = Callable[..., Job]


@pytest.fixture
def submit(queue: JobQueue, tiny_card: ModelCard, ask) -> Submit:  # type: ignore[no-untyped-def]
    def make(count: int = 6, frames: int = 0, **options: object) -> Job:
        request, image_steps = ask(count=count, **options)
        return queue.accept(queue.offer(request.model_copy(update={"frames": frames}), tiny_card.image, image_steps))

    return make


def watch(queue: JobQueue, job: Job) -> None:
    queue.connection.set(keys.of(job.id, "watched"), 1, ex=60)


def frames_alone(model: ScoreModel, card: ModelCard, job: Job) -> np.ndarray:
    """The frames of a job that nothing happens to: uint8 [count, frames, h, w, c]."""
    _, table = plan(job.request.sampler, card)
    keep = snapshots(len(table), job.request.frames)
    chains = [Chain(table, job.request.seed, i, keep=keep) for i in range(job.request.count)]
    run(Engine(model, 4), chains)
    return np.stack([torch.stack(chain.frames).numpy() for chain in chains])


def test_frames_are_stored_with_the_results(
    submit: Submit, queue: JobQueue, new_worker: NewWorker, tiny_card: ModelCard, tiny_model: ScoreModel, redis: Redis
) -> None:
    job, single, plain = submit(frames=5), submit(frames=1), submit()
    new_worker().work(burst=True)
    results = Results(queue.connection)
    found = results.frames(queue.get(job.id))
    assert np.array_equal(found, frames_alone(tiny_model, tiny_card, job))
    assert np.array_equal(found[:, -1], results.images(queue.get(job.id)))
    assert results.frames(queue.get(single.id)).shape == (6, 1, 8, 8, 1)
    assert not redis.exists(keys.of(plain.id, "frames"), keys.of(single.id, "frames"))
    assert 0 < redis.ttl(keys.of(job.id, "frames")) <= job.result_ttl


@pytest.mark.parametrize("steps", [1, 4, 9, 13, 20])
def test_frames_survive_a_worker_that_hands_back(  # type: ignore[no-untyped-def]
    submit: Submit, queue: JobQueue, new_worker, tiny_card: ModelCard, tiny_model: ScoreModel, settings, steps: int
) -> None:
    """Six images in two shards on three slots: some are finished, some on their way, some not begun."""
    job = submit(frames=6)
    first = new_worker(Batch(settings.store(), 3, "cpu"))
    first._claim()
    for _ in range(steps):
        first._step()
    first._hand_back()
    new_worker().work(burst=True)
    assert np.array_equal(Results(queue.connection).frames(queue.get(job.id)), frames_alone(tiny_model, tiny_card, job))


def test_frames_of_a_worker_that_died_are_made_again(
    submit: Submit, queue: JobQueue, new_worker: NewWorker, tiny_card, tiny_model, redis: Redis, until
) -> None:
    job = submit(count=3, frames=4)
    dead = new_worker()
    dead._claim()
    for _ in range(6):
        dead._step()
    redis.zadd(queue.rq.started_job_registry.key, {dead._claims[f"{job.id}-0"].lease.execution.composite_key: 1})
    shards.reclaim(queue.rq, 2)
    new_worker().work(burst=True)
    assert np.array_equal(Results(queue.connection).frames(queue.get(job.id)), frames_alone(tiny_model, tiny_card, job))


def test_nothing_is_kept_of_a_job_that_is_cancelled(submit: Submit, queue: JobQueue, new_worker, redis: Redis) -> None:
    job = submit(count=12, frames=3)
    worker = new_worker()
    watch(queue, job)
    worker._claim()
    for _ in range(3):
        worker._beat()
        worker._step()
    assert len(worker._claims) == 2
    while worker._claims:
        worker._step()
    assert redis.exists(keys.of(job.id, "frames"), keys.of(job.id, "images"), keys.of(job.id, "previews")) == 3
    queue.cancel(job.id)  # whose third shard waits
    left = {key.decode().rpartition(":")[2] for key in redis.keys(f"scoreserve:job:{job.id}:*")}
    assert left <= {"events", "progress"}
    assert all(redis.ttl(key) > 0 for key in redis.keys(f"scoreserve:job:{job.id}*"))


def test_more_frames_than_evaluations_are_refused(settings, tiny_card: ModelCard, ask) -> None:  # type: ignore[no-untyped-def]
    request, _ = ask(sampler=Heun(name="heun", levels=3))
    with pytest.raises(Refused, match="6 frames were asked for, of 5 network evaluations"):
        Batch(settings.store(), 4, "cpu").admit(request.model_copy(update={"frames": 6}), 0, 1)


def test_what_is_on_its_way_and_waits_for_a_slot_is_not_shown_as_the_noise_that_it_is(settings, ask) -> None:  # type: ignore[no-untyped-def]
    batch = Batch(settings.store(), 4, "cpu")
    part = batch.admit(ask(count=4)[0], 0, 4)
    batch.watch([part])
    batch.step()
    shown, states = part.estimates(4), part.states(4)
    assert shown.any()
    batch.pause(part)
    assert np.array_equal(part.estimates(4), shown)
    assert np.array_equal(part.states(4), states)


def test_previews_are_made_for_who_watches_and_for_nobody_else(
    submit: Submit, queue: JobQueue, new_worker: NewWorker, redis: Redis
) -> None:
    watched, other = submit(count=4), submit(count=4, seed=2)
    watch(queue, watched)
    worker = new_worker()
    worker._claim()
    worker._step()
    for _ in range(2):
        worker._beat()
        worker._step()
    worker._beat()
    shown, chains = Results(queue.connection).previews(queue.get(watched.id))
    assert shown.shape == chains.shape == (4, 8, 8, 1)
    (claim,) = [claim for claim in worker._claims.values() if claim.job.id == watched.id]
    assert np.array_equal(shown, claim.part.estimates(4))
    assert np.array_equal(chains, claim.part.states(4))
    assert shown.any()
    assert not np.array_equal(shown, chains), "the noise is not gone yet"
    assert not redis.exists(keys.of(other.id, "previews"), keys.of(other.id, "chains"))
    assert [entry[b"event"] for _, entry in redis.xrange(keys.of(other.id, "events"))].count(b"preview") == 0
    redis.delete(keys.of(watched.id, "watched"))
    worker._beat()
    worker._step()
    assert not claim.part.lane.engine.watched
    worker._hand_back()


def test_reports_come_more_often_while_somebody_watches(
    submit: Submit, queue: JobQueue, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "BEAT_SECONDS", 1e6)  # on a machine that is busy half a second may pass
    watched, worker = submit(count=4), new_worker()
    worker._claim()
    worker._talk()
    assert worker._next_beat - time.monotonic() > 1e5
    watch(queue, watched)
    worker._next_beat = 0.0
    worker._talk()
    assert worker._next_beat - time.monotonic() < 1
    worker._hand_back()


def test_a_preview_is_put_together_from_all_shards(submit: Submit, queue: JobQueue, new_worker) -> None:  # type: ignore[no-untyped-def]
    """Ten images in three shards: the first is done, the second on its way, the third not begun."""
    job = submit(count=10)
    worker = new_worker()
    watch(queue, job)
    worker._claim()
    worker._beat()
    while len(worker._claims) == 2:
        first = next(iter(worker._claims.values()))
        for claim in list(worker._claims.values()):
            if claim is not first:
                worker._claims.pop(claim.shard.id)
                worker.batch.drop(claim.part)
        while first.shard.id in worker._claims:
            worker._step()
    for shown in Results(queue.connection).previews(queue.get(job.id)):
        assert shown.shape == (10, 8, 8, 1)
        assert shown[:4].any(axis=(1, 2, 3)).all()
        assert not shown[4:].any()


def test_a_preview_has_a_bounded_size(submit: Submit) -> None:
    job = submit(count=200)
    assert previewed(job) == MAX_PREVIEW
    large = job.model_copy(update={"image": ImageShape(channels=3, height=256, width=256)})
    assert previewed(large) == 5
    assert previewed(job.model_copy(update={"image": ImageShape(channels=4, height=4096, width=4096)})) == 1


def test_progress_tells_the_noise_level_of_the_slowest_image(
    submit: Submit, queue: JobQueue, new_worker: NewWorker, tiny_card: ModelCard, redis: Redis
) -> None:
    job = submit(count=4)
    worker = new_worker()
    worker._claim()
    worker._step()
    worker._beat()
    queued, running = [entry for _, entry in redis.xrange(keys.of(job.id, "events"))]
    assert queued == {b"event": b"progress", b"state": b"queued", b"done": b"0", b"sigma": b""}
    assert (running[b"state"], running[b"done"]) == (b"running", b"4")
    _, table = plan(job.request.sampler, tiny_card)
    assert float(running[b"sigma"]) == table.column("sigma")[1]
    worker._hand_back()
