"""What a worker asks of Redis for the shards that it holds, and how often."""

import time

import pytest
from redis import Redis
from redis.client import Pipeline
from redis.connection import AbstractConnection

from tests.worker.conftest import LONG, NewWorker
from worker.queue.job import JobState
from worker.queue.jobs import JobQueue


def test_many_shards_are_finished_at_once_and_one_that_is_lost_is_not(
    submit, queue: JobQueue, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [submit(count=2, seed=seed) for seed in range(4)]
    worker = new_worker()
    worker._claim()
    lost = next(claim.lease for claim in worker._claims.values() if claim.job.id == jobs[1].id)
    queue.connection.zrem(lost.rq_job.started_job_registry.key, lost.execution.composite_key)
    calls: list[int] = []
    finish = worker.leases.finish
    monkeypatch.setattr(worker.leases, "finish", lambda done: calls.append(len(done)) or finish(done))
    while worker._claims:
        worker._step()
    assert calls == [4]
    states = [queue.get(job.id).state for job in jobs]
    assert [state == JobState.FINISHED for state in states] == [True, False, True, True]
    assert queue.totals()["images"] == 6


def test_shards_cost_three_round_trips_however_many_they_are(
    submit, queue: JobQueue, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To take them, to begin their leases, and to write down what they made."""
    worker = new_worker()
    worker._talk()
    worker.get_redis_server_version()  # which is asked once
    worker._next_beat = float("inf")
    sent: list[int] = []
    send = AbstractConnection.send_packed_command
    for count in (1, 4):
        jobs = [submit(count=1, seed=seed) for seed in range(count)]
        worker._next_look = 0.0
        sent.clear()
        with monkeypatch.context() as patch:
            patch.setattr(
                AbstractConnection, "send_packed_command", lambda *of, **how: sent.append(1) or send(*of, **how)
            )
            worker._claim()
            while worker._claims:
                worker._step()
        assert len(sent) == 3
        assert all(queue.get(job.id).state == JobState.FINISHED for job in jobs)


def test_a_job_began_when_its_images_did_and_not_when_that_was_told(
    submit, queue: JobQueue, new_worker: NewWorker
) -> None:
    short, long = submit(count=1), submit(count=1, sampler=LONG)
    worker = new_worker()
    worker._claim()
    begun = {claim.job.id: claim.lease.begun for claim in worker._claims.values()}
    time.sleep(0.05)
    while len(worker._claims) == 2:
        worker._step()
    assert queue.get(short.id).started_at == begun[short.id], "it was never told of while it ran"
    assert queue.get(long.id).state == JobState.QUEUED
    worker._beat()
    running = queue.get(long.id)
    assert (running.state, running.started_at) == (JobState.RUNNING, begun[long.id])


def test_a_beat_is_one_command_a_shard_which_makes_its_lease_last_and_none_that_is_lost(
    submit, queue: JobQueue, new_worker: NewWorker, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told, kept and asked of a shard."""
    worker, ran = new_worker(), []
    worker._beat()
    execute = Pipeline.execute_command
    monkeypatch.setattr(Pipeline, "execute_command", lambda *of, **how: ran.append(of) or execute(*of, **how))
    worker._beat()
    alone = len(ran)
    jobs = [submit(count=1, seed=seed, sampler=LONG) for seed in range(3)]
    worker._claim()
    ran.clear()
    kept, lost, other = (claim.lease for claim in worker._claims.values())
    registry, lease = kept.place
    queue.connection.zadd(registry, {lease: 1})
    queue.connection.persist(kept.execution.key)
    queue.connection.zrem(*lost.place)
    worker._beat()
    assert len(ran) == alone + 3 + 3, "and those that forget what is lost"
    assert queue.connection.zscore(registry, lease) > time.time()
    assert 0 < redis.ttl(kept.execution.key) <= worker.settings.lease_seconds
    assert queue.connection.zscore(*lost.place) is None
    assert [claim.lease for claim in worker._claims.values()] == [kept, other]
    assert [queue.get(job.id).state for job in jobs] == [JobState.RUNNING, JobState.QUEUED, JobState.RUNNING]
