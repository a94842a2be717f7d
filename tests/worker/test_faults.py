"""What cannot be fulfilled, and what breaks a worker: each fails alone."""

import json
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
import torch
from redis import Redis
from rq.serializers import JSONSerializer

from models.card import ModelCard
from tests.worker.conftest import LONG, Ask, NewWorker, deaths, expected
from worker import upkeep
from worker.batching import BatchingWorker
from worker.device.lane import DeviceFailed
from worker.queue import keys, shards
from worker.queue.job import Job, JobState
from worker.queue.jobs import JobQueue
from worker.queue.results import Results
from worker.queue.shards import ShardJob


def test_a_bad_request_fails_at_once_and_with_its_reason(
    queue: JobQueue, new_worker: NewWorker, tiny_card: ModelCard, ask: Ask
) -> None:
    request, image_steps = ask(count=10)
    job = queue.accept(queue.offer(request.model_copy(update={"model": "gone"}), tiny_card.image, image_steps))
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


def break_network(worker: BatchingWorker, when: Callable[[torch.Tensor], bool], monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Makes the network of `tiny` throw whenever `when` says so of its input."""
    worker.batch.warm_up("tiny")
    (lane,) = worker.batch._lanes.values()
    network = lane.engine.model.network
    real = network.forward

    def forward(x, condition):  # type: ignore[no-untyped-def]
        if when(x):
            raise RuntimeError("illegal instruction")
        return real(x, condition)

    monkeypatch.setattr(network, "forward", forward)


def test_what_breaks_the_batch_fails_alone(
    submit, queue: JobQueue, new_worker: NewWorker, tiny_card, tiny_model, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    jobs = [submit(count=2, seed=seed) for seed in range(3)]
    worker = new_worker()
    break_network(worker, lambda x: bool(x.isnan().any()), monkeypatch)
    worker._claim()
    worker._step()
    poison(worker, jobs[1])
    while worker._claims:
        worker._step()
    assert [queue.get(job.id).state for job in jobs] == ["finished", "failed", "finished"]
    assert queue.get(jobs[1].id).error == "it cannot be sampled: illegal instruction"
    for job in (jobs[0], jobs[2]):
        images = Results(queue.connection).images(queue.get(job.id))
        assert np.array_equal(images, expected(job, tiny_card, tiny_model))
        assert ShardJob.fetch(shards.shard_id(job.id, 0), queue.connection, JSONSerializer).retries_left == 10
    assert queue.rq.failed_job_registry.get_job_ids() == [shards.shard_id(jobs[1].id, 0)]
    assert queue.rq.started_job_registry.get_job_count(cleanup=False) == 0


def poison(worker: BatchingWorker, job: Job) -> None:
    """Makes the first image of a job NaN."""
    claim = next(claim for claim in worker._claims.values() if claim.job.id == job.id)
    engine = claim.part.lane.engine
    engine._x[engine.chains.index(claim.part.chains[0])] = float("nan")


def test_a_job_whose_scores_diverge_fails_on_its_way(submit, queue: JobQueue, new_worker: NewWorker) -> None:
    bad, good = submit(count=6, sampler=LONG), submit(count=1)
    worker = new_worker()
    worker._claim()
    worker._step()
    poison(worker, bad)
    worker._next_beat = 0.0
    worker._step()
    failed = queue.get(bad.id)
    assert failed.state == JobState.FAILED
    assert failed.error is not None
    assert "image 0 became NaN" in failed.error
    assert "smaller step_size" in failed.error
    worker._beat()
    assert {claim.job.id for claim in worker._claims.values()} == {good.id}, "its other shard has left too"


def test_of_a_job_that_fails_nothing_is_left_however_it_was_split_meanwhile(
    submit, queue: JobQueue, new_worker: NewWorker, redis: Redis
) -> None:
    """Its shards are in hand here and there, and wait; the record that a worker has of it knows not all of them."""
    bad = submit(count=24, sampler=LONG)
    worker, other = new_worker(), new_worker()
    worker._claim()
    other._claim()
    assert [len(one._claims) for one in (worker, other)] == [2, 2]
    assert max(claim.job.shards for claim in worker._claims.values()) < queue.get(bad.id).shards == 5
    worker._step()
    poison(worker, bad)
    worker._next_beat = 0.0
    worker._step()
    assert queue.get(bad.id).state == JobState.FAILED
    for one in (worker, other):
        one._beat()
        assert not one._claims
    upkeep.look_after(queue, 2)
    (kept,) = redis.keys("rq:job:*")
    assert kept.decode() == ShardJob.key_for(shards.shard_id(bad.id, 0)), "what operators are shown"
    assert redis.ttl(kept) > 0
    assert queue.rq.started_job_registry.get_job_count(cleanup=False) == 0


def test_a_device_that_fails_ends_the_worker_and_costs_one_retry(
    submit, queue: JobQueue, new_worker: NewWorker, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    job = submit(count=2)
    worker = new_worker()
    break_network(worker, lambda _: True, monkeypatch)
    with pytest.raises(DeviceFailed, match="illegal instruction"):
        worker.work(burst=True)
    (waiting,) = queue.rq.get_jobs()
    assert waiting.retries_left == shards.RETRIES - 1
    assert not queue.get(job.id).state.final
    new_worker().work(burst=True)
    assert queue.get(job.id).state == JobState.FINISHED


@pytest.mark.parametrize("works", [True, False])
def test_a_device_that_is_found_broken_between_two_steps_ends_the_worker_too(
    submit, queue: JobQueue, new_worker: NewWorker, monkeypatch, works: bool
) -> None:  # type: ignore[no-untyped-def]
    """A GPU tells of an error when it is next asked for anything, such as room for a shard."""
    submit(count=2)
    worker = new_worker()
    worker.batch.warm_up("tiny")
    (lane,) = worker.batch._lanes.values()

    def admit(_chains: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(lane.engine, "admit", admit)
    monkeypatch.setattr("worker.batching.works", lambda _: works)
    with pytest.raises(RuntimeError, match="illegal memory") as raised:
        worker.work(burst=True)
    assert isinstance(raised.value, DeviceFailed) != works
    if not works:
        (waiting,) = queue.rq.get_jobs()
        assert waiting.retries_left == shards.RETRIES - 1


def test_what_kills_its_workers_fails_and_takes_no_neighbour_with_it(
    submit, queue: JobQueue, new_worker: NewWorker, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    killer, *others = (submit(count=2, seed=seed) for seed in range(3))
    for _ in range(2 * shards.RETRIES):
        worker = new_worker()
        held = worker._claims
        break_network(worker, lambda _, held=held: killer.id in {c.job.id for c in held.values()}, monkeypatch)
        with suppress(DeviceFailed):
            worker.work(burst=True)
    assert queue.get(killer.id).state == JobState.FAILED
    assert "the last of 11 attempts failed" in (queue.get(killer.id).error or "")
    for job in others:
        assert queue.get(job.id).state == JobState.FINISHED
        assert deaths(queue, job) == 3, "with it; then it was alone"


def test_a_shard_that_may_kill_its_worker_waits_until_it_is_alone(
    submit, queue: JobQueue, new_worker: NewWorker
) -> None:
    jobs = [submit(count=2, seed=seed) for seed in range(3)]
    queue.connection.hset(f"rq:job:{shards.shard_id(jobs[1].id, 0)}", "retries_left", shards.RETRIES - 3)
    worker = new_worker()

    def held() -> list[str]:
        return [claim.job.id for claim in worker._claims.values()]

    worker._claim()
    assert held() == [jobs[0].id]
    worker._claim()
    assert held() == [jobs[0].id], "nor is anything taken that it would have to wait for"
    while held() == [jobs[0].id]:
        worker._step()
    worker._claim()
    assert held() == [jobs[1].id]
    while worker._claims:
        worker._step()
        if worker._claims:
            worker._claim()
            assert held() == [jobs[1].id]
    worker._claim()
    assert held() == [jobs[2].id]


def test_a_shard_that_waits_to_be_alone_is_given_up_with_its_job_and_not_charged_for_others(
    submit, queue: JobQueue, new_worker: NewWorker
) -> None:
    jobs = [submit(count=2, seed=seed, sampler=LONG) for seed in range(3)]
    for job in jobs[1:]:
        queue.connection.hset(f"rq:job:{shards.shard_id(job.id, 0)}", "retries_left", shards.RETRIES - 3)
    worker = new_worker()
    worker._claim()
    assert [lease.shard.job_id for lease in worker._started] == [jobs[1].id]
    queue.cancel(jobs[1].id)
    worker._hear({"channel": keys.ENDED, "data": jobs[1].id})
    worker._talk()
    assert [lease.shard.job_id for lease in worker._started] == [jobs[2].id]
    worker._give_up("the device is gone")
    assert [deaths(queue, job) for job in (jobs[0], jobs[2])] == [1, 3]
    assert queue.rq.count == 2


def test_what_another_release_wrote_down_fails_alone(submit, queue: JobQueue, new_worker: NewWorker) -> None:
    unknown, known = submit(count=8), submit(count=2)
    key = keys.of(unknown.id)
    request = json.loads(queue.connection.hget(key, "request"))
    queue.connection.hset(key, "request", json.dumps(request | {"of_the_future": 1}))
    new_worker().work(burst=True)
    assert queue.get(known.id).state == JobState.FINISHED
    assert queue.connection.hmget(key, "state", "error")[0] == b"failed"
    assert b"another release" in queue.connection.hget(key, "error")
    upkeep.look_after(queue, 2)
    assert queue.rq.job_ids == []
    assert queue.depth().jobs == 0
