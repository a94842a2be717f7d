"""A record in Redis that is damaged harms its own job, and no other: nobody dies of it, and nothing waits for it."""

import json
from collections.abc import Callable

import pytest
from redis import Redis

from tests.worker.conftest import NewWorker
from worker import upkeep
from worker.queue import keys, shards
from worker.queue.job import Job, JobNotFound, JobState
from worker.queue.jobs import JobQueue

Damage = Callable[[Redis, str], object]


def _unset(field: str) -> Damage:
    return lambda redis, job: redis.hdel(keys.of(job), field)


def _set(field: str, value: str | bytes) -> Damage:
    return lambda redis, job: redis.hset(keys.of(job), field, value)


def _of_another_type(what: keys.OfJob | None) -> Damage:
    def damage(redis: Redis, job: str) -> None:
        redis.delete(keys.of(job, what))
        redis.set(keys.of(job, what), "x")

    return damage


def _rq(field: str, value: str | bytes) -> Damage:
    return lambda redis, job: redis.hset(f"rq:job:{shards.shard_id(job, 0)}", field, value)


def _rq_of_another_type(redis: Redis, job: str) -> None:
    redis.delete(f"rq:job:{shards.shard_id(job, 0)}")
    redis.set(f"rq:job:{shards.shard_id(job, 0)}", "x")


def _data(**fields: object) -> Damage:
    def damage(redis: Redis, job: str) -> None:
        whole = {"job_id": job, "number": 0, "first": 0, "count": 2, "result_ttl": 60}
        redis.hset(
            f"rq:job:{shards.shard_id(job, 0)}",
            "data",
            json.dumps(["scoreserve.fulfil", None, [], {**whole, **fields}]),
        )

    return damage


RECORDS: dict[str, Damage] = {
    "gone": lambda redis, job: redis.delete(keys.of(job)),
    "of another type": _of_another_type(None),
    **{f"no {field}": _unset(field) for field in ("request", "image", "image_steps", "shards", "shard_size")},
    **{f"without {field}": _unset(field) for field in ("client", "model", "rank", "weight", "priority", "created_at")},
    "broken request": _set("request", b"{"),
    "request that is no text": _set("request", b"\xff\xfe"),
    "request of another kind": _set("request", '{"kind": "other"}'),
    "no image-steps": _set("image_steps", "0"),
    "image-steps in words": _set("image_steps", "many"),
    "no shards": _set("shards", "0"),
    "shards below zero": _set("shards", "-1"),
    "shard size of nothing": _set("shard_size", "0"),
    "weight in words": _set("weight", "heavy"),
    "weight of nothing": _set("weight", "0"),
    "priority that is none": _set("priority", "urgent"),
    "time that is none": _set("created_at", "nan"),
    "time without end": _set("created_at", "1e300"),
    "state that is none": _set("state", "lost"),
    "time to live without end": _set("result_ttl", "9" * 30),
}
SHARDS: dict[str, Damage] = {
    "no data": _rq("data", b""),
    "data that is no JSON": _rq("data", b"\x80\x04."),
    "data of another form": _rq("data", b"[]"),
    "a time that is none": _rq("created_at", b"yesterday"),
    "retries in words": _rq("retries_left", b"few"),
    "meta that is no JSON": _rq("meta", b"\xff"),
    "of another type": _rq_of_another_type,
    "of another function": _rq("data", b'["os.system", null, [], {}]'),
    "too many images": _data(count=10**12),
    "images in words": _data(count="2"),
    "of another number": _data(number=7),
    "beyond the end": _data(first=2),
    "of another job": _data(job_id="0" * 24),
    "with more fields": _data(more=1),
}
PROGRESS: dict[str, Damage] = {
    "progress in words": lambda redis, job: redis.hset(keys.of(job, "progress"), "0", "half"),
    "saved state": lambda redis, job: redis.hset(keys.of(job, "state"), "0", b"\x00" * 9),
    "waiting shards in words": lambda redis, job: redis.lset(keys.of(job, "waiting"), 0, "first"),
}
DAMAGES = {
    **{f"record: {name}": damage for name, damage in RECORDS.items()},
    **{f"shard: {name}": damage for name, damage in SHARDS.items()},
    **{f"besides: {name}": damage for name, damage in PROGRESS.items()},
}


@pytest.mark.parametrize("name", DAMAGES)
def test_others_are_done_and_nothing_waits(
    submit: Callable[..., Job], queue: JobQueue, redis: Redis, new_worker: NewWorker, name: str
) -> None:
    damaged, before = submit(count=2), submit(count=2)
    DAMAGES[name](redis, damaged.id)
    after = submit(count=2)
    queue.depth()
    queue.forecast.look()
    assert {after.id, before.id} <= {job.id for job in queue.listing(after.client, list(JobState), None, 20)[0]}
    worker = new_worker()
    for _ in range(3):
        worker.work(burst=True)
        upkeep.look_after(queue, 0)
        worker = new_worker()
    assert {queue.get(job.id).state for job in (before, after)} == {JobState.FINISHED}
    try:
        assert queue.get(damaged.id).state in (JobState.FINISHED, JobState.FAILED)
    except JobNotFound:
        assert redis.hget(keys.of(damaged.id), "error") if redis.type(keys.of(damaged.id)) == b"hash" else True
    assert queue.depth().jobs == 0
    assert queue.depth().image_steps == 0
    assert redis.hgetall(keys.LOAD) == {}
    assert queue.rq.job_ids == []
    assert redis.zcard(queue.rq.started_job_registry.key) == 0


def test_who_finds_nothing_but_what_is_damaged_looks_further(
    submit: Callable[..., Job], queue: JobQueue, redis: Redis, new_worker: NewWorker
) -> None:
    damaged, other = submit(count=8), submit(count=2)  # the first for all eight slots
    for number in range(2):
        redis.hset(f"rq:job:{damaged.id}-{number}", "created_at", "yesterday")
    new_worker().work(burst=True)
    assert queue.get(damaged.id).state == JobState.FAILED
    assert queue.get(other.id).state == JobState.FINISHED


def test_a_damaged_job_in_hand_is_dropped(
    submit: Callable[..., Job], queue: JobQueue, redis: Redis, new_worker: NewWorker
) -> None:
    damaged, other = submit(count=2), submit(count=2)
    worker = new_worker()
    worker._claim()
    assert len(worker._claims) == 2
    redis.hdel(keys.of(damaged.id), "weight")
    worker.work(burst=True)
    assert queue.get(other.id).state == JobState.FINISHED
    upkeep.look_after(queue, 0)
    assert queue.get(damaged.id).state == JobState.FAILED
    assert queue.depth().jobs == 0


@pytest.mark.parametrize("told", [b"{", b"[1]", b'{"tiny": 3}', b'{"tiny": ["a", 1]}', b"null", b"\xff"])
def test_what_a_worker_tells_that_cannot_be_read_hides_no_other(
    queue: JobQueue, redis: Redis, new_worker: NewWorker, told: bytes
) -> None:
    good, bad = new_worker(), new_worker()
    for worker in (good, bad):
        worker._register()
        worker._beat()
    try:
        redis.hset(bad.key, mapping={"pace": told, "scoreserve": told})
        assert [status.name for status in queue.worker_statuses()] == [good.name]
        queue.forecast.look()
    finally:
        for worker in (good, bad):
            worker.teardown()
