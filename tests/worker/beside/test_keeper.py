import time
from collections.abc import Callable, Iterator

import pytest

from models.card import ModelCard
from tests.worker.conftest import LONG, deaths, expire
from worker import upkeep
from worker.batching import BatchingWorker
from worker.beside import keeper
from worker.beside.keeper import Keeper
from worker.device.lane import Part
from worker.queue.job import Job, JobState
from worker.queue.jobs import JobQueue
from worker.queue.shards import RETRIES, ShardJob

SLOW = 3.0  # seconds, longer than a lease of 2 s


@pytest.fixture
def slow(new_worker: Callable[..., BatchingWorker], queue: JobQueue) -> BatchingWorker:
    """A worker whose first step takes longer than its lease, after which another worker looks for dead ones."""
    worker = new_worker()
    step, took = worker.batch.step, False

    def slow_step() -> list[Part]:
        nonlocal took
        if worker._claims and not took:
            took = True
            time.sleep(SLOW)
            upkeep.look_after(queue, 2)
        return step()

    worker.batch.step = slow_step  # type: ignore[method-assign]
    return worker


@pytest.fixture
def job(queue: JobQueue, tiny_card: ModelCard, ask: Callable) -> Job:
    request, image_steps = ask(count=2)
    return queue.accept(queue.offer(request, tiny_card.image, image_steps))


def test_a_step_that_is_longer_than_the_lease_does_not_lose_it(job: Job, slow: BatchingWorker, queue: JobQueue) -> None:
    retries: list[int] = []
    settle = slow._settle

    def look(claim) -> None:  # type: ignore[no-untyped-def]
        retries.append(ShardJob.fetch(claim.shard.id, queue.connection, slow.serializer).retries_left)
        settle(claim)

    slow._settle = look  # type: ignore[method-assign]
    slow.work(burst=True)
    assert queue.get(job.id).state == JobState.FINISHED
    assert retries == [RETRIES]
    assert queue.totals()["image_steps_computed"] == job.image_steps


def test_leases_that_begin_beside_a_step_are_kept_while_it_lasts(
    submit: Callable[..., Job], queue: JobQueue, new_worker: Callable[..., BatchingWorker]
) -> None:
    worker = new_worker()
    held = Keeper(queue.connection, worker._held, worker.key, 60, 180)
    long = submit(count=2, sampler=LONG)
    worker._talk()
    job = submit(count=2)
    worker.errands.start()
    worker._next_look, worker._next_beat = 0.0, float("inf")
    worker._talk()
    worker.errands.stop()
    assert "claim" in worker._under_way, "it is answered, and not collected"
    assert [lease.shard.job_id for lease in worker._held()] == [job.id, long.id]
    expire(queue)
    held.extend()
    upkeep.look_after(queue, 2)
    assert [deaths(queue, one) for one in (long, job)] == [0, 0]
    worker._talk()
    assert [lease.shard.job_id for lease in worker._held()] == [long.id, job.id], "each once"
    while queue.depth().jobs:
        worker._step()
    assert not worker._held()


def test_who_loads_a_model_or_has_long_steps_may_take_longer(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Keeper(queue.connection, list, "worker", 2, 6, lambda: step)
    step = 1.0
    assert held.patience == keeper.STALLED_SECONDS
    held.loading(True)
    assert held.patience == keeper.LOADING_SECONDS > keeper.STALLED_SECONDS
    before = held._turn
    held.loading(False)
    assert held._turn > before, "or it would hang that has just loaded"
    step = 60.0
    assert held.patience == keeper.STALLED_STEPS * 60.0


def test_a_worker_tells_when_it_loads(job: Job, new_worker: Callable[..., BatchingWorker]) -> None:
    told: list[bool] = []
    worker = new_worker()
    worker.batch.on_load = told.append
    assert worker.batch.longest_step == 0.0
    worker._claim()
    assert told == [True, False]
    assert worker.batch.longest_step > 0.0


def test_who_takes_turns_again_after_it_hung_or_was_frozen_is_kept_again(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    held = Keeper(queue.connection, list, "worker", 2, 6)
    told: list[str] = []

    def rounds() -> Iterator[bool]:
        for _ in range(2):
            told.append("turns")
            held.turn()
            yield False
            told.append("hangs")
            held._turn -= 2 * held.patience
            yield False
            told.append("hangs on")
            yield False
        yield True

    wait = rounds()
    monkeypatch.setattr(held._stopped, "wait", lambda _: next(wait))
    monkeypatch.setattr(held, "extend", lambda: told.append("kept"))
    held.run()
    assert told == ["turns", "kept", "hangs", "hangs on"] * 2
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 2, "each time once"


def test_a_worker_that_hangs_loses_its_leases(
    job: Job, slow: BatchingWorker, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "STALLED_SECONDS", 0.1)
    monkeypatch.setattr(keeper, "STALLED_STEPS", 0)  # however slow the machine is
    slow.work(burst=True)
    assert queue.get(job.id).state == JobState.FINISHED
    assert queue.totals()["image_steps_computed"] > job.image_steps
