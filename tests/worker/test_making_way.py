"""Shards in hand that make way for those of others."""

from collections.abc import Callable

import numpy as np
import pytest
from redis.exceptions import ConnectionError as Away

from models.card import ModelCard
from models.score import ScoreModel
from models.store import ModelStore
from tests.worker.conftest import LONG, Ask, NewWorker, deaths, expected
from worker import batching
from worker.batching import BatchingWorker
from worker.device.batch import Batch
from worker.queue import shards
from worker.queue.job import Job
from worker.queue.jobs import JobQueue
from worker.queue.results import Results
from worker.queue.server import Memory
from worker.settings import WorkerSettings

Submit = Callable[..., Job]


@pytest.fixture(autouse=True)
def _network_for_pixels_alone(request: pytest.FixtureRequest) -> None:
    """Whose turn it is has nothing to do with scores."""
    if "tiny_model" not in request.fixturenames:
        request.getfixturevalue("no_network")


@pytest.fixture
def worker(new_worker: NewWorker, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch) -> BatchingWorker:
    """A worker with slots for one shard, which may have to make way at once."""
    monkeypatch.setattr(batching, "SLICE_FACTOR", 0)
    return new_worker(settings=settings.model_copy(update={"slots": 4, "slice_seconds": 0.0}))


def look(worker: BatchingWorker) -> list[str]:
    """Ids of the jobs in hand, after the worker has looked for what waits."""
    worker._next_look = worker._next_way = worker._next_beat = 0.0
    worker._talk()
    return [claim.job.id for claim in worker._claims.values()]


def begin(worker: BatchingWorker, job: Job, steps: int = 5) -> None:
    assert look(worker) == [job.id]
    for _ in range(steps):
        worker._step()


def finish(worker: BatchingWorker, queue: JobQueue, *jobs: Job) -> list[str]:
    """Steps until the jobs have ended; their ids, in the order in which they did. A look takes longer than a step."""
    ended: list[str] = []
    while len(ended) < len(jobs):
        look(worker)
        for _ in range(5):
            worker._step()
        ended += [job.id for job in jobs if job.id not in ended and queue.get(job.id).state.final]
    return ended


def test_a_long_shard_makes_way_for_another_client_and_goes_on_later(
    submit: Submit, queue: JobQueue, worker: BatchingWorker, tiny_card: ModelCard, tiny_model: ScoreModel
) -> None:
    long = submit(client="a", sampler=LONG)
    begin(worker, long)
    short = submit(client="b", seed=2)
    assert look(worker) == [short.id]
    assert queue.rq.job_ids == [shards.shard_id(long.id, 0)]
    assert queue.get(long.id).image_steps_done == 20
    assert finish(worker, queue, long, short) == [short.id, long.id]
    assert worker.batch.image_steps == long.image_steps + short.image_steps, "nothing is done twice"
    for job in (long, short):
        images = Results(queue.connection).images(queue.get(job.id))
        assert np.array_equal(images, expected(job, tiny_card, tiny_model))
        assert deaths(queue, job) == 0


def test_two_clients_with_long_shards_take_turns(submit: Submit, queue: JobQueue, worker: BatchingWorker) -> None:
    jobs = [submit(client=client, sampler=LONG) for client in ("a", "b")]
    turns, done = [], []
    while not done:
        turns += look(worker)
        for _ in range(20):
            worker._step()
        done = [job for job in jobs if queue.get(job.id).state.final]
    one, other = (job.id for job in jobs)
    assert turns[:9] == [one, other, other, one, one, other, other, one, one], "who has had as much stays"
    finish(worker, queue, *jobs)
    assert worker.batch.image_steps == 2 * jobs[0].image_steps


def test_a_clients_own_jobs_of_no_known_pace_wait_for_each_other_unless_more_urgent(
    submit: Submit, queue: JobQueue, worker: BatchingWorker
) -> None:
    first = submit(client="a", sampler=LONG)
    begin(worker, first)
    held = list(worker._claims.values())
    second, low = submit(client="a"), submit(client="a", priority="low")
    look(worker)
    assert list(worker._claims.values()) == held
    high = submit(client="a", priority="high")
    assert look(worker) == [high.id]
    assert finish(worker, queue, first, second, low, high) == [high.id, first.id, second.id, low.id]


def test_who_has_had_less_by_weight_stays(submit: Submit, queue: JobQueue, worker: BatchingWorker) -> None:
    normal = submit(client="a", sampler=LONG)
    begin(worker, normal, steps=50)
    high = submit(client="b", priority="high", sampler=LONG)
    assert look(worker) == [high.id]
    for _ in range(390):
        worker._step()
    assert look(worker) == [high.id], "390 steps, an eighth of which are fewer than 50"
    for job in (normal, high):
        queue.cancel(job.id)


def test_a_time_in_which_nobody_else_waited_is_held_against_nobody(
    submit: Submit, queue: JobQueue, worker: BatchingWorker
) -> None:
    """Neither a client that had the worker to itself, nor one whose job waited behind its own."""
    first, behind = submit(client="a", sampler=LONG), submit(client="a", sampler=LONG)
    begin(worker, first, steps=300)
    worker._beat()
    late = submit(client="b", sampler=LONG)
    turns = []
    for _ in range(12):
        turns += look(worker)
        for _ in range(10):
            worker._step()
    assert turns.count(first.id) >= 5
    assert turns.count(late.id) >= 5
    for job in (first, behind, late):
        queue.cancel(job.id)


def test_nor_is_one_in_which_two_clients_had_room_beside_each_other(
    submit: Submit, queue: JobQueue, new_worker: NewWorker, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "SLICE_FACTOR", 0)
    worker = new_worker(settings=settings.model_copy(update={"slots": 8, "slice_seconds": 0.0}))
    early = [submit(client=client, sampler=LONG) for client in "ac"]
    assert len(look(worker)) == 2
    for _ in range(200):
        worker._step()
    worker._beat()
    late = submit(client="b", sampler=LONG)
    turns = []
    for _ in range(9):
        worker._step()
        turns.append(look(worker))
        for _ in range(10):
            worker._step()
    assert 2 <= sum(late.id in turn for turn in turns) <= 7
    for job in (*early, late):
        queue.cancel(job.id)


@pytest.mark.parametrize("reported", [False, True])
def test_what_was_in_hand_of_a_job_that_is_cancelled_is_not_charged(
    submit: Submit, queue: JobQueue, worker: BatchingWorker, reported: bool
) -> None:
    cancelled = submit(client="a", sampler=LONG)
    begin(worker, cancelled)
    if reported:
        worker._beat()
    other = submit(client="b", sampler=LONG)
    queue.cancel(cancelled.id)
    begin(worker, other, steps=10)
    again = submit(client="a")
    assert look(worker) == [again.id], "its client has had 5 steps, not 400"
    for job in (other, again):
        queue.cancel(job.id)


def test_what_would_not_free_a_slot_stays(submit: Submit, new_worker: NewWorker, settings: WorkerSettings) -> None:
    worker = new_worker(settings=settings.model_copy(update={"slots": 4, "slice_seconds": 0.0}))
    small = [submit(count=1, client="a", sampler=LONG) for _ in range(3)]
    large = submit(count=4, client="a", sampler=LONG)
    assert look(worker) == [*(job.id for job in small), large.id]
    for _ in range(5):
        worker._step()
    submit(count=1, client="b")
    assert worker.batch.active == 4
    held = list(worker._claims.values())
    look(worker)
    assert [claim for claim in held if claim not in worker._claims.values()] == held[3:]


def test_a_shard_in_hand_is_not_free_once_others_have_had_more(
    submit: Submit, queue: JobQueue, new_worker: NewWorker, settings: WorkerSettings
) -> None:
    worker = new_worker(settings=settings.model_copy(update={"slots": 8}))
    normal, low = submit(client="a", sampler=LONG), submit(client="b", priority="low", sampler=LONG)
    assert len(look(worker)) == 2
    for _ in range(300):
        worker._step()
    worker._beat()
    worker._beat()
    now, tag = float(queue.connection.get("scoreserve:now")), queue.connection.zscore("scoreserve:served", "a")
    assert now == 300 * 4 * 8, "what the client of the low job has had"
    assert tag == now + 100 * 4, "and of the other what is left of its shard is still to come"
    for job in (normal, low):
        queue.cancel(job.id)


def test_what_failed_was_done_and_is_charged(submit: Submit, queue: JobQueue, worker: BatchingWorker) -> None:
    failing = submit(client="a", sampler=LONG)
    other = submit(client="b")  # or nothing would be kept of what clients have had
    begin(worker, failing, steps=50)
    (claim,) = worker._claims.values()
    claim.part.lane.engine._x.fill_(float("nan"))
    worker._next_beat = 0.0
    worker._step()
    assert queue.get(failing.id).state == "failed"
    assert queue.connection.zscore("scoreserve:served", "a") >= 50 * 4
    queue.cancel(other.id)


def test_nobody_makes_way_while_redis_is_half_full(
    submit: Submit, queue: JobQueue, worker: BatchingWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = submit(client="a", sampler=LONG)
    begin(worker, long)
    short = submit(client="b")
    for used, job in ((51, long), (49, short)):
        monkeypatch.setattr(worker.queue, "memory", lambda used=used: Memory(used=used, limit=100))
        assert look(worker) == [job.id]


def test_nobody_makes_way_while_there_are_slots(
    submit: Submit, new_worker: NewWorker, settings: WorkerSettings
) -> None:
    worker = new_worker(settings=settings.model_copy(update={"slice_seconds": 0.0}))
    long = submit(client="a", sampler=LONG)
    begin(worker, long)
    held = list(worker._claims.values())
    short = submit(client="b")
    assert look(worker) == [long.id, short.id]
    assert held[0] in worker._claims.values()


def test_a_shard_is_in_hand_for_a_while_first(
    submit: Submit, new_worker: NewWorker, settings: WorkerSettings, until: Callable[..., None]
) -> None:
    worker = new_worker(settings=settings.model_copy(update={"slots": 4, "slice_seconds": 1.0}))
    long = submit(client="a", sampler=LONG)
    begin(worker, long)
    short = submit(client="b")
    assert look(worker) == [long.id]
    until(lambda: look(worker) == [short.id])


@pytest.mark.parametrize(("factor", "least", "most"), [(50, 5.0, 15.0), (10**6, 30.0, 30.0)])
def test_moving_large_states_takes_little_of_the_time_and_a_slow_redis_is_not_slow_for_ever(
    factor: int,
    least: float,
    most: float,
    submit: Submit,
    new_worker: NewWorker,
    settings: WorkerSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "SLICE_FACTOR", factor)
    worker = new_worker(settings=settings.model_copy(update={"slots": 4, "slice_seconds": 0.0}))
    begin(worker, submit(client="a", sampler=LONG))
    real = worker.leases.give_back

    def slow(*given: object) -> None:
        batching.time.sleep(0.1)
        real(*given)  # type: ignore[arg-type]

    worker.leases.give_back = slow  # type: ignore[method-assign]
    submit(client="b")
    look(worker)
    assert least <= worker._slice_seconds <= most


def test_how_often_it_is_asked_who_makes_way_does_not_depend_on_how_often_jobs_come(
    submit: Submit, worker: BatchingWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(worker, submit(client="a", sampler=LONG))
    asked: list[object] = []
    monkeypatch.setattr(shards, "make_way", lambda *given: asked.append(given))
    monkeypatch.setattr(batching, "LOOK_SECONDS", 60)
    worker._next_way = 0.0
    for _ in range(5):
        worker._next_look = 0.0  # as a message does
        worker._talk()
    assert len(asked) == 1


def test_a_shard_that_cannot_be_laid_aside_goes_on(
    submit: Submit,
    queue: JobQueue,
    worker: BatchingWorker,
    tiny_card: ModelCard,
    tiny_model: ScoreModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long = submit(client="a", sampler=LONG)
    begin(worker, long)
    short = submit(client="b")

    def away(*_: object) -> None:
        raise Away("Redis is away")

    with monkeypatch.context() as patch:
        patch.setattr(worker.leases, "give_back", away)
        assert look(worker) == [long.id]
    worker._step()
    assert worker.batch.active == 4
    worker._away_until = 0.0
    finish(worker, queue, long, short)
    images = Results(queue.connection).images(queue.get(long.id))
    assert np.array_equal(images, expected(long, tiny_card, tiny_model))
    assert worker.batch.image_steps == long.image_steps + short.image_steps


def test_a_suspect_shard_does_not_make_way(
    submit: Submit, queue: JobQueue, worker: BatchingWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = submit(client="a", sampler=LONG)
    begin(worker, long)
    submit(client="b")
    (claim,) = worker._claims.values()
    claim.lease.rq_job.retries_left = 0
    assert look(worker) == [long.id]


@pytest.mark.parametrize(("memory", "makes_way"), [(float("inf"), True), (1, False)])
def test_no_model_is_moved_out_of_memory_for_a_turn(
    memory: float,
    makes_way: bool,
    queue: JobQueue,
    new_worker: NewWorker,
    ask: Ask,
    publish_other,
    tmp_path,
    settings: WorkerSettings,
) -> None:  # type: ignore[no-untyped-def]
    cards = [publish_other(tmp_path, name, seed=len(name)) for name in ("one", "second")]
    batch = Batch(ModelStore(tmp_path), 4, "cpu", memory=memory)
    worker = new_worker(batch, settings.model_copy(update={"slice_seconds": 0.0}))
    jobs = []
    for card in cards:
        request, image_steps = ask(count=4, sampler=LONG)
        update = {"model": card.name, "version": 1, "weights_sha256": card.weights_sha256}
        jobs.append(
            queue.accept(queue.offer(request.model_copy(update=update), card.image, image_steps, client=card.name))
        )
        if len(jobs) == 1:
            begin(worker, jobs[0])
    assert look(worker) == [jobs[makes_way].id]


def test_images_in_hand_that_wait_let_others_have_the_next_slots(
    submit: Submit,
    queue: JobQueue,
    new_worker: NewWorker,
    settings: WorkerSettings,
    tiny_card: ModelCard,
    tiny_model: ScoreModel,
) -> None:
    worker = new_worker(settings=settings.model_copy(update={"slots": 4, "shard_seconds": 1.0, "slice_seconds": 1e9}))
    worker.batch.warm_up("tiny")
    (lane,) = worker.batch._lanes.values()
    large = submit(count=40, client="a")
    lane.image_steps_per_second = float(large.image_steps)
    assert look(worker) == [large.id]
    (claim,) = worker._claims.values()
    assert (claim.shard.count, len(claim.part.waiting)) == (40, 36)
    for _ in range(3):
        worker._step()
    own, others = submit(count=2, client="a"), [submit(count=2, client=client, seed=2) for client in "bcd"]
    worker._next_in = 0.0
    assert look(worker) == [large.id, others[0].id, others[1].id], "as many as there are slots"
    worker._next_in = 0.0
    assert look(worker) == [large.id, others[0].id, others[1].id], "and no more until those have slots"
    ended = finish(worker, queue, large, own, *others)
    assert max(ended.index(job.id) for job in others) < ended.index(large.id)
    for job in (large, *others):
        assert np.array_equal(Results(queue.connection).images(queue.get(job.id)), expected(job, tiny_card, tiny_model))
        assert deaths(queue, job) == 0


def test_nobody_waits_for_slots_that_are_not_free_soon(
    submit: Submit, new_worker: NewWorker, settings: WorkerSettings
) -> None:
    worker = new_worker(settings=settings.model_copy(update={"slots": 4, "shard_seconds": 1.0, "slice_seconds": 1.0}))
    worker.batch.warm_up("tiny")
    (lane,) = worker.batch._lanes.values()
    large = submit(count=8, client="a", sampler=LONG)
    lane.image_steps_per_second = float(large.image_steps)
    assert look(worker) == [large.id]
    submit(count=2, client="b")
    lane.image_steps_per_second = 4 * 399.0
    worker._next_in = 0.0
    assert look(worker) == [large.id], "400 rows take more than a second"
