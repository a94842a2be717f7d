"""Steps that wait for nothing: neither for what is said to Redis, nor for what comes next."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from models.card import ModelCard
from models.score import ScoreModel
from tests.worker.conftest import LONG, NewWorker, expected
from worker.queue import shards
from worker.queue.job import Job, JobState
from worker.queue.jobs import JobQueue
from worker.queue.results import Results
from worker.steps import Steps

Until = Callable[..., None]
Submit = Callable[..., Job]


class Counter:
    """Something that is advanced, to a number or until it fails there."""

    def __init__(self, until: int, fails: bool = False) -> None:
        self.until, self.fails, self.at, self.woken = until, fails, 0, threading.Event()
        self.threads: set[str] = set()

    def advance(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.at += 1
        if self.fails and self.at == self.until:
            raise RuntimeError("it fails")

    def busy(self) -> bool:
        return self.at < self.until


@pytest.fixture
def started() -> Iterator[Callable[[Counter], Steps]]:
    """Starts steps, which are stopped in the end."""
    all_of_them: list[Steps] = []

    def start(counter: Counter) -> Steps:
        all_of_them.append(Steps(counter.advance, counter.busy, counter.woken.set))
        all_of_them[-1].start()
        return all_of_them[-1]

    yield start
    for steps in all_of_them:
        steps.stop()


def test_steps_go_on_while_others_do_something_else(started: Callable[[Counter], Steps], until: Until) -> None:
    counter = Counter(1000)
    started(counter)
    until(lambda: counter.at == 1000)
    assert counter.threads == {"steps"}
    assert not counter.woken.is_set()


def test_what_is_to_be_done_between_two_steps_is_done_by_their_thread_and_told(
    started: Callable[[Counter], Steps], until: Until
) -> None:
    counter = Counter(10**9)
    steps = started(counter)
    until(lambda: counter.at > 0)
    for _ in range(5):
        at, name = steps.between(lambda: (counter.at, threading.current_thread().name))
        assert name == "steps"
        assert counter.at >= at
    assert steps.between(lambda: steps.between(lambda: 5)) == 5
    with pytest.raises(ZeroDivisionError):
        steps.between(lambda: 1 // 0)
    before = counter.at
    until(lambda: counter.at > before)
    steps.stop()
    assert steps.between(threading.current_thread) is threading.main_thread()
    after = counter.at
    assert steps.between(lambda: counter.at) == after


def test_their_thread_has_no_more_threads_for_an_operation(
    submit: Submit, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(count=1)
    worker, had, given = new_worker(), torch.get_num_threads(), []
    monkeypatch.setattr(torch, "set_num_threads", lambda n: given.append((threading.current_thread().name, n)))
    worker.work(burst=True)
    assert ("steps", had) in given


def test_what_has_nothing_to_do_goes_on_when_there_is_something(
    started: Callable[[Counter], Steps], until: Until
) -> None:
    counter = Counter(0)
    steps = started(counter)

    def give() -> None:
        counter.until = 3

    steps.between(give)
    until(lambda: counter.at == 3)


def test_a_step_that_fails_is_the_last_and_is_told(started: Callable[[Counter], Steps]) -> None:
    counter = Counter(3, fails=True)
    steps = started(counter)
    assert counter.woken.wait(60)
    with pytest.raises(RuntimeError, match="it fails"):
        steps.check()
    counter.until = 10
    assert steps.between(lambda: counter.at) == 3


def test_the_batch_goes_on_while_redis_takes_its_time(
    submit: Submit,
    queue: JobQueue,
    new_worker: NewWorker,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    tiny_card: ModelCard,
    tiny_model: ScoreModel,
) -> None:
    jobs = [submit(count=4, sampler=LONG), submit(count=4, seed=2)]
    worker = new_worker()
    finish, steps = worker.leases.finish, []

    def slow(done: Any) -> list[int]:
        before = worker.batch.image_steps
        if not steps:
            until(lambda: worker.batch.image_steps > before + 40)
        steps.append(worker.batch.image_steps - before)
        return finish(done)

    monkeypatch.setattr(worker.leases, "finish", slow)
    worker.work(burst=True)
    assert steps[0] > 40
    for job in jobs:
        assert np.array_equal(Results(queue.connection).images(queue.get(job.id)), expected(job, tiny_card, tiny_model))


def test_a_slot_that_becomes_free_is_filled_at_the_very_next_step(
    submit: Submit, queue: JobQueue, new_worker: NewWorker, tiny_card: ModelCard, tiny_model: ScoreModel
) -> None:
    jobs = [submit(count=8, seed=seed) for seed in range(3)]
    worker = new_worker()
    worker.batch.warm_up("tiny")
    (lane,) = worker.batch._lanes.values()
    lane.image_steps_per_second = 1e9
    worker._talk()
    active, claims = [], []
    while not all(queue.get(job.id).state.final for job in jobs):
        worker._advance()
        active.append(worker.batch.active)
        worker._talk()
        claims.append(len(worker._claims))
    rows = jobs[0].image_steps // 8
    assert active == [8] * (3 * rows - 1) + [0]
    assert claims.index(4) + 1 == rows - 2, "of thirteen rows no more than the last two begin before others are chosen"
    for job in jobs:
        assert np.array_equal(Results(queue.connection).images(queue.get(job.id)), expected(job, tiny_card, tiny_model))


def test_a_queue_with_nothing_in_it_is_asked_once(
    submit: Submit, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(count=4, sampler=LONG)
    submit(count=1)
    worker = new_worker()
    worker._talk()
    taken: list[object] = []
    monkeypatch.setattr(shards, "take", lambda *_: taken.append(1) or [])
    monkeypatch.setattr("worker.batching.LOOK_SECONDS", 60)
    worker._next_look = 0.0
    for _ in range(30):
        worker._talk()
        worker._advance()
    assert len(worker._claims) == 1, "one was finished, and left its slot"
    assert len(taken) == 1


def test_what_has_begun_is_told_at_once_and_without_the_others(
    submit: Submit, queue: JobQueue, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, worker = submit(count=2, sampler=LONG), new_worker()
    worker._talk()
    monkeypatch.setattr(worker, "_beat", lambda: pytest.fail("nothing else is due"))
    worker._next_beat = float("inf")
    second = submit(count=2, sampler=LONG)
    worker._next_look = 0.0
    worker._talk()
    assert len(worker._claims) == 2
    assert [queue.get(job.id).state for job in (first, second)] == [JobState.RUNNING] * 2


def test_what_has_begun_and_is_watched_is_shown_soon(submit: Submit, queue: JobQueue, new_worker: NewWorker) -> None:
    job, worker = submit(count=2, sampler=LONG), new_worker()
    queue.connection.set(f"scoreserve:job:{job.id}:watched", 1, ex=60)
    worker._talk()
    assert worker._next_beat == 0.0


def test_a_shard_that_ends_before_it_can_be_laid_aside_is_finished(
    submit: Submit, queue: JobQueue, new_worker: NewWorker
) -> None:
    job, worker = submit(count=2), new_worker()
    worker._claim()
    (claim,) = worker._claims.values()
    while not worker._ended:
        worker._advance()
    worker._lay_aside(claim)
    assert queue.get(job.id).state == JobState.FINISHED
    worker._talk()
    assert queue.totals()["images"] == 2


def test_nothing_is_done_of_a_shard_while_it_is_laid_aside(
    submit: Submit, queue: JobQueue, new_worker: NewWorker, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would be done twice."""
    aside, other = (submit(count=4, sampler=LONG, seed=seed) for seed in range(2))
    worker = new_worker()
    worker._claim()
    claim = next(claim for claim in worker._claims.values() if claim.job.id == aside.id)
    give_back = worker.leases.give_back

    def slow(*given: Any) -> None:
        before = worker.batch.image_steps
        until(lambda: worker.batch.image_steps > before + 40)
        assert {c.part for c in worker._claims.values() if c.part.image_steps_done == claim.part.image_steps_done} == {
            claim.part
        }
        give_back(*given)

    monkeypatch.setattr(worker.leases, "give_back", slow)
    worker.steps.start()
    try:
        until(lambda: worker.batch.image_steps > 40)
        worker._lay_aside(claim)
    finally:
        worker.steps.stop()
    assert queue.get(aside.id).image_steps_done == claim.part.image_steps_done
    assert [c.job.id for c in worker._claims.values()] == [other.id]


def test_what_ends_in_the_very_step_in_which_nobody_wants_it_any_more_is_dropped(
    submit: Submit, queue: JobQueue, new_worker: NewWorker
) -> None:
    dropped, other = submit(count=2), submit(count=2, seed=2)
    worker = new_worker()
    worker._claim()
    worker._claims.pop(f"{dropped.id}-0")  # as is done first of a shard that is dropped
    while not worker._ended:
        worker._advance()
    assert [claim.job.id for claim in worker._ended] == [other.id]
    assert not worker.batch.parts
