"""What waits for Redis, beside the steps: these go on, and nothing is lost or done twice."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from redis.client import Pipeline
from redis.exceptions import ConnectionError as Away

from models.card import ModelCard
from models.score import ScoreModel
from tests.worker.conftest import LONG, NewWorker, deaths, expected
from worker import upkeep
from worker.batching import BatchingWorker
from worker.beside.errands import Errands
from worker.claims import Claim
from worker.queue import keys, shards
from worker.queue.job import Job, JobState
from worker.queue.jobs import JobQueue
from worker.queue.results import Results

Submit = Callable[..., Job]


@pytest.fixture
def errands() -> Iterator[Errands]:
    made = Errands()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def worker(new_worker: NewWorker) -> Iterator[BatchingWorker]:
    """With a thread for its errands."""
    made = new_worker()
    made.errands.start()
    yield made
    made.errands.stop()


class Gate:
    """A call that is not answered before the gate opens."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call, self.calls = call, 0
        self.opened = threading.Event()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        found = self.call(*arguments, **named)
        assert self.opened.wait(60)
        return found


def turns(worker: BatchingWorker, until: Callable[[], object]) -> None:
    """Steps, and talks, until something holds."""
    while not until():
        worker._advance()
        worker._talk()


def never() -> None:
    raise AssertionError("it has not failed")


def test_errands_are_carried_out_in_order_and_followed_up_by_who_collects(errands: Errands) -> None:
    done: list[tuple[int, str]] = []
    for number in range(20):
        errands.begin(lambda number=number: (number, threading.current_thread().name), done.append, never)
    errands.wait()
    assert done == [(number, "errands") for number in range(20)]
    assert errands.under_way == 0
    followed: list[threading.Thread] = []
    errands.begin(lambda: None, lambda _: followed.append(threading.current_thread()), never)
    errands.wait()
    assert followed == [threading.current_thread()]


def test_to_collect_waits_for_nothing(errands: Errands) -> None:
    gate, done = Gate(lambda: 1), []
    errands.begin(gate, done.append, never)
    errands.collect()
    assert (done, errands.under_way) == ([], 1)
    gate.opened.set()
    errands.wait()
    assert done == [1]


def test_one_that_fails_harms_no_other_and_is_told(errands: Errands) -> None:
    def away() -> None:
        raise Away

    done: list[Any] = []
    errands.begin(away, done.append, lambda: done.append("failed"))
    errands.begin(lambda: "answer", done.append, never)
    with pytest.raises(Away):
        errands.wait()
    assert done == ["failed", "answer"]
    errands.wait()


def test_what_was_begun_is_carried_out_before_the_thread_ends(errands: Errands) -> None:
    done: list[int] = []
    errands.begin(lambda: 1, done.append, never)
    errands.stop()
    assert not errands.started
    errands.wait()
    assert done == [1]


def test_steps_go_on_while_images_are_written_down(
    submit: Submit,
    queue: JobQueue,
    worker: BatchingWorker,
    monkeypatch: pytest.MonkeyPatch,
    tiny_card: ModelCard,
    tiny_model: ScoreModel,
) -> None:
    short, long = submit(count=4), submit(count=2, sampler=LONG)
    worker._talk()
    assert len(worker._claims) == 2
    finish = Gate(worker.leases.finish)
    monkeypatch.setattr(worker.leases, "finish", finish)
    turns(worker, lambda: finish.calls)
    steps = worker.batch.image_steps
    for _ in range(10):
        worker._advance()
        worker._talk()
    assert worker.batch.image_steps == steps + 10 * 2
    assert [claim.job.id for claim in worker._claims.values()] == [long.id]
    assert list(worker._made) == [shards.shard_id(short.id, 0)], "until Redis has said that it has them"
    finish.opened.set()
    turns(worker, lambda: not worker._made)
    assert finish.calls == 1
    assert queue.get(short.id).state == JobState.FINISHED
    images = Results(queue.connection).images(queue.get(short.id))
    assert np.array_equal(images, expected(short, tiny_card, tiny_model))
    queue.cancel(long.id)


def test_steps_go_on_while_jobs_are_ended_whose_deadlines_have_passed(
    submit: Submit, queue: JobQueue, worker: BatchingWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = [submit(count=1, sampler=LONG, deadline_seconds=600) for _ in range(3)]
    long = submit(count=2, sampler=LONG)
    worker._talk()
    assert len(worker._claims) == 4
    queue.connection.zadd(keys.DEADLINES, {job.id: 1 for job in late})
    end = Gate(shards.discard)
    monkeypatch.setattr(shards, "discard", end)
    worker._next_beat = 0.0
    turns(worker, lambda: end.calls)
    steps = worker.batch.image_steps
    for _ in range(10):
        worker._advance()
        worker._talk()
    assert worker.batch.image_steps >= steps + 10 * 2
    assert end.calls == 1
    end.opened.set()
    turns(worker, lambda: not {claim.job.id for claim in worker._claims.values()} & {job.id for job in late})
    assert [queue.get(job.id).state for job in late] == [JobState.FAILED] * 3
    queue.cancel(long.id)


def test_what_could_not_be_told_is_told_again(
    submit: Submit, queue: JobQueue, worker: BatchingWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = submit(count=4), submit(count=2, sampler=LONG)
    worker._talk()

    def away(_: object) -> None:
        raise Away

    with monkeypatch.context() as patch:
        patch.setattr(worker.leases, "finish", away)
        turns(worker, lambda: worker._away_until)
    assert len(worker._made) == len(worker._untold) == 1
    worker._away_until = 1e-9
    turns(worker, lambda: not worker._made)
    assert queue.get(short.id).state == JobState.FINISHED
    assert worker.metrics.images.labels("tiny", "sample")._value.get() == 4
    queue.cancel(long.id)


@pytest.fixture
def claiming(submit: Submit, worker: BatchingWorker, monkeypatch: pytest.MonkeyPatch) -> tuple[Job, Job, Gate]:
    """A long job that is stepped, one that is just being claimed, and what holds that up."""
    long = submit(count=2, sampler=LONG)
    worker._talk()
    start = Gate(worker.leases.start)
    monkeypatch.setattr(worker.leases, "start", start)
    job = submit(count=4)
    worker._next_look = 0.0
    turns(worker, lambda: start.calls)
    return long, job, start


def test_steps_go_on_while_shards_are_claimed(
    claiming: tuple[Job, Job, Gate], queue: JobQueue, worker: BatchingWorker
) -> None:
    long, job, start = claiming
    steps = worker.batch.image_steps
    for _ in range(10):
        worker._next_look = 0.0
        worker._advance()
        worker._talk()
    assert worker.batch.image_steps == steps + 10 * 2
    assert worker.errands.under_way <= 2, "one claim at a time, and a beat"
    start.opened.set()
    turns(worker, lambda: len(worker._claims) == 2)
    turns(worker, lambda: len(worker._claims) == 1 and not worker._made)
    assert queue.get(job.id).state == JobState.FINISHED
    queue.cancel(long.id)


def test_a_job_that_ends_while_it_is_claimed_gets_no_slots(
    claiming: tuple[Job, Job, Gate], queue: JobQueue, worker: BatchingWorker
) -> None:
    long, job, start = claiming
    assert queue.cancel(job.id).state == JobState.CANCELLED
    worker._hear({"channel": keys.ENDED, "data": job.id})
    worker._talk()
    start.opened.set()
    turns(worker, lambda: "claim" not in worker._under_way)
    assert [claim.job.id for claim in worker._claims.values()] == [long.id]
    assert not worker._started
    queue.cancel(long.id)


def test_what_comes_to_wait_while_others_are_claimed_is_looked_for(
    claiming: tuple[Job, Job, Gate], submit: Submit, queue: JobQueue, worker: BatchingWorker
) -> None:
    """The answer to the claim knows nothing of it."""
    long, job, start = claiming
    late = submit(count=2)
    worker._hear({"channel": keys.WAITING, "data": "tiny"})
    worker._talk()
    worker._next_look = float("inf")
    start.opened.set()
    turns(worker, lambda: queue.get(late.id).state == JobState.FINISHED)
    assert queue.get(job.id).state == JobState.FINISHED
    queue.cancel(long.id)


def test_a_shard_makes_way_once_it_is_known_that_it_should(
    submit: Submit, queue: JobQueue, worker: BatchingWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = submit(count=4, client="a", sampler=LONG), submit(count=4, client="a", sampler=LONG)
    worker._talk()
    worker._slice_seconds = 0.0
    ask = Gate(shards.make_way)
    monkeypatch.setattr(shards, "make_way", ask)
    short = submit(client="b")
    worker._next_look = worker._next_way = 0.0
    turns(worker, lambda: ask.calls)
    steps = worker.batch.image_steps
    for _ in range(10):
        worker._next_look = worker._next_way = 0.0
        worker._advance()
        worker._talk()
    assert worker.batch.image_steps == steps + 10 * 8
    assert worker.errands.under_way <= 2, "it is asked once, and there is a beat"
    ask.opened.set()
    turns(worker, lambda: queue.get(short.id).state == JobState.FINISHED)
    assert all(not queue.get(job.id).state.final for job in long)
    for job in long:
        queue.cancel(job.id)


def answered(worker: BatchingWorker) -> None:
    """What was begun has its answers, which nobody has collected."""
    worker.errands.stop()
    worker.errands.start()


def put_back(queue: JobQueue, claim: Claim) -> None:
    """The lease of a shard is over, and whoever looked after the queue has put it back."""
    registry, lease = claim.lease.place
    queue.connection.zadd(registry, {lease: 1})
    upkeep.look_after(queue, 2)
    assert queue.rq.job_ids == [claim.shard.id]


@pytest.mark.parametrize("ends", [False, True], ids=["in slots", "ended"])
@pytest.mark.parametrize("beats", [False, True], ids=["no beat", "a beat that fails"])
def test_who_claims_a_shard_that_it_has_lost_has_it_once(
    submit: Submit,
    queue: JobQueue,
    worker: BatchingWorker,
    monkeypatch: pytest.MonkeyPatch,
    tiny_card: ModelCard,
    tiny_model: ScoreModel,
    beats: bool,
    ends: bool,
) -> None:
    """It was cut off from Redis for longer than its lease, or Redis knows only what was before that."""
    job, other = submit(count=4), submit(count=2, sampler=LONG)
    worker._talk()
    put_back(queue, worker._claims[shards.shard_id(job.id, 0)])

    def away(_: Pipeline) -> list[Any]:
        raise Away

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "execute", away)
        worker._next_beat = 0.0 if beats else float("inf")
        worker._next_look, worker._more = 0.0, True
        worker._talk()
        assert worker._under_way == ({"beat", "claim"} if beats else {"claim"})
        answered(worker)
    while ends and not worker._ended:
        worker._advance()
    assert (worker._talk() is None) == beats
    worker._away_until = min(worker._away_until, 1e-9)
    worker._next_beat = worker._next_look = 0.0
    turns(worker, lambda: queue.get(job.id).state.final)
    assert queue.get(job.id).state == JobState.FINISHED
    assert np.array_equal(Results(queue.connection).images(queue.get(job.id)), expected(job, tiny_card, tiny_model))
    assert deaths(queue, job) == 1
    assert [claim.part for claim in worker._claims.values()] == worker.batch.parts
    queue.cancel(other.id)


def test_what_a_lost_shard_had_made_does_not_stand_for_what_is_made_anew(
    submit: Submit, queue: JobQueue, worker: BatchingWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, other = submit(count=4), submit(count=2, sampler=LONG)
    worker._talk()
    lost = worker._claims[shards.shard_id(job.id, 0)]
    put_back(queue, lost)
    start, finish = Gate(worker.leases.start), Gate(worker.leases.finish)
    monkeypatch.setattr(worker.leases, "start", start)
    monkeypatch.setattr(worker.leases, "finish", finish)
    worker._next_beat, worker._next_look, worker._more = float("inf"), 0.0, True
    turns(worker, lambda: worker._made)
    assert worker._under_way == {"claim", "made"}
    start.opened.set()
    turns(worker, lambda: lost.shard.id in worker._claims)
    assert not worker._made
    turns(worker, lambda: worker._made)
    made = list(worker._made.values())
    finish.opened.set()
    answered(worker)
    worker.errands.collect()
    assert list(worker._made.values()) == made
    turns(worker, lambda: queue.get(job.id).state.final)
    assert queue.get(job.id).state == JobState.FINISHED
    queue.cancel(other.id)


def test_what_is_claimed_when_a_worker_is_to_stop_is_put_back(
    claiming: tuple[Job, Job, Gate], queue: JobQueue, worker: BatchingWorker
) -> None:
    long, job, start = claiming
    worker._shutdown()
    worker._talk()
    start.opened.set()
    turns(worker, lambda: not worker.errands.under_way)
    worker._talk()
    assert [claim.job.id for claim in worker._claims.values()] == [long.id]
    assert queue.rq.job_ids == [shards.shard_id(job.id, 0)]
    assert deaths(queue, job) == 0
    queue.cancel(long.id)


def test_what_is_claimed_when_the_device_fails_has_not_broken_it(
    claiming: tuple[Job, Job, Gate], queue: JobQueue, worker: BatchingWorker
) -> None:
    long, job, start = claiming
    start.opened.set()
    worker._give_up("the device is gone")
    assert (deaths(queue, long), deaths(queue, job)) == (1, 0)
    assert queue.rq.count == 2


def test_what_comes_next_is_claimed_before_slots_are_free(
    submit: Submit, queue: JobQueue, worker: BatchingWorker, tiny_card: ModelCard, tiny_model: ScoreModel
) -> None:
    jobs = [submit(count=8), submit(count=8, seed=2)]  # of a worker of eight slots
    worker.batch.soon_seconds = 1e9
    worker._talk()
    turns(worker, lambda: len({claim.job.id for claim in worker._claims.values()}) == 2)
    assert worker.batch.active == 8
    assert all(claim.part.image_steps_done < 4 * 13 for claim in worker._claims.values()), "none is done yet"
    assert worker.batch.free == 0, "it is for those that are in hand"
    turns(worker, lambda: queue.depth().jobs == 0)
    assert worker.batch.image_steps == sum(job.image_steps for job in jobs)
    for job in jobs:
        images = Results(queue.connection).images(queue.get(job.id))
        assert np.array_equal(images, expected(job, tiny_card, tiny_model))
