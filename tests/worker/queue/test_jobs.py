import time
from collections.abc import Callable

import numpy as np
import pytest
from rq import Worker
from rq.serializers import JSONSerializer

from worker.queue import keys, scripts, shards
from worker.queue.idempotency import Once
from worker.queue.job import JobNotFound, JobState
from worker.queue.jobs import JobEnded, JobQueue
from worker.queue.offer import InFlight, Limits, TooMuch
from worker.queue.requests import SampleRequest

Ask = Callable[..., tuple[SampleRequest, int]]


def test_a_job_waits_as_one_shard_that_is_cut_when_it_is_taken(queue: JobQueue, tiny_card, ask: Ask) -> None:  # type: ignore[no-untyped-def]
    request, image_steps = ask(count=10)
    job = queue.accept(queue.offer(request, tiny_card.image, image_steps))
    assert job.state == JobState.QUEUED
    assert (job.shards, job.image_steps, job.image_steps_done) == (1, image_steps, 0)
    assert [(s.first, s.count) for s in waiting(queue)] == [(0, 10)]
    assert shards.take(queue.rq, None) == [shards.shard_id(job.id, 0)]
    assert [(s.first, s.count) for s in waiting(queue)] == [(4, 6)]
    assert shards.take(queue.rq, None, free=8) == [shards.shard_id(job.id, number) for number in (1, 2)]
    found = shards.ShardJob.fetch_many([shards.shard_id(job.id, n) for n in range(3)], queue.connection, JSONSerializer)
    assert [(s.shard.first, s.shard.count) for s in found if s] == [(0, 4), (4, 4), (8, 2)]
    assert (queue.get(job.id).request, queue.get(job.id).shards) == (request, 3)


def waiting(queue: JobQueue) -> list[shards.Shard]:
    return [rq_job.shard for rq_job in queue.rq.get_jobs()]


def test_a_job_whose_acceptance_is_sent_again_is_there_once(queue: JobQueue, redis, tiny_card, ask: Ask) -> None:  # type: ignore[no-untyped-def]
    """As a connection does that broke after the command and before the answer."""
    request, image_steps = ask(count=3)
    offer = queue.offer(request, tiny_card.image, image_steps, once=Once("key", "fingerprint"))

    def known() -> dict[bytes, bytes]:
        return {key: redis.dump(key) for key in redis.keys("scoreserve:*") + redis.keys("rq:*")}

    queue.accept(offer)
    before = known()
    assert queue.accept(offer).id == offer.job.id
    assert known() == before


def test_depth_counts_what_has_not_ended(queue: JobQueue, tiny_card, ask: Ask) -> None:  # type: ignore[no-untyped-def]
    assert queue.depth().jobs == 0
    first, second = (queue.accept(queue.offer(*_with_image(ask(count=c), tiny_card))) for c in (3, 5))
    depth = queue.depth()
    assert (depth.jobs, depth.image_steps) == (2, first.image_steps + second.image_steps)
    queue.cancel(first.id)
    assert queue.depth().image_steps == second.image_steps


def test_cancelling_leaves_nothing_waiting(queue: JobQueue, tiny_card, ask: Ask) -> None:  # type: ignore[no-untyped-def]
    job = queue.accept(queue.offer(*_with_image(ask(count=10), tiny_card)))
    other = queue.accept(queue.offer(*_with_image(ask(count=2), tiny_card)))
    cancelled = queue.cancel(job.id)
    assert cancelled.state == JobState.CANCELLED
    assert queue.rq.job_ids == [shards.shard_id(other.id, 0)]
    assert queue.totals()["jobs_cancelled"] == 1
    with pytest.raises(JobEnded, match="cancelled"):
        queue.cancel(job.id)


def test_what_waits_besides_a_large_job_stays_as_it_was(queue: JobQueue, tiny_card, ask: Ask) -> None:  # type: ignore[no-untyped-def]
    before, large, after = (queue.accept(queue.offer(*_with_image(ask(count=c), tiny_card))) for c in (10, 100, 5000))
    waiting = queue.rq.job_ids
    queue.cancel(large.id)
    assert queue.rq.job_ids == [shard for shard in waiting if not shard.startswith(large.id)]
    queue.cancel(after.id)
    assert queue.rq.job_ids == [shards.shard_id(before.id, 0)]


def test_an_ended_job_expires(queue: JobQueue, redis, tiny_card, ask: Ask) -> None:  # type: ignore[no-untyped-def]
    job = queue.accept(queue.offer(*_with_image(ask(), tiny_card)))
    assert redis.ttl(keys.of(job.id)) == -1
    queue.cancel(job.id)
    assert 0 < redis.ttl(keys.of(job.id)) <= job.result_ttl


def test_unknown_jobs(queue: JobQueue) -> None:
    with pytest.raises(JobNotFound):
        queue.get("0" * 24)
    with pytest.raises(JobNotFound):
        queue.cancel("0" * 24)


def test_dead_workers_do_not_count(queue: JobQueue) -> None:
    worker = Worker([queue.rq], connection=queue.connection)
    worker.register_birth()
    assert queue.workers() == 1
    queue.connection.delete(worker.key)  # as its time to live does
    assert queue.workers() == 0


def test_a_large_job_costs_what_a_small_one_does(queue: JobQueue, tiny_card, ask: Ask) -> None:  # type: ignore[no-untyped-def]
    def seconds(count: int) -> tuple[float, float]:
        """To accept a job of so many images, and to cancel it."""
        begun = time.perf_counter()
        job = queue.accept(queue.offer(*_with_image(ask(count=count), tiny_card)))
        accepted = time.perf_counter()
        queue.cancel(job.id)
        return accepted - begun, time.perf_counter() - accepted

    def median(count: int) -> np.ndarray:
        return np.median([seconds(count) for _ in range(30)], axis=0)

    ratios = [median(100_000) / median(1) for _ in range(3)]
    assert (np.min(ratios, axis=0) < 3).all(), ratios


def test_what_waits_takes_as_much_memory_whatever_its_size(queue: JobQueue, redis, tiny_card, ask: Ask) -> None:  # type: ignore[no-untyped-def]
    def bytes_of_waiting(count: int) -> int:
        before = redis.info("memory")["used_memory"]
        for _ in range(1000):
            queue.accept(queue.offer(*_with_image(ask(count=count), tiny_card)))
        taken = redis.info("memory")["used_memory"] - before
        assert queue.rq.count == 1000
        redis.flushdb()
        return int(taken)

    assert bytes_of_waiting(100_000) < 20 * 2**20


def test_no_trace_is_left_of_a_large_job_that_was_begun_and_cancelled(
    queue: JobQueue, redis, tiny_card, ask: Ask
) -> None:  # type: ignore[no-untyped-def]
    job = queue.accept(queue.offer(*_with_image(ask(count=100_000), tiny_card)))
    assert job.shard_size == 10, "of 4 images each there would be 25,000"
    assert len(shards.take(queue.rq, None, free=500)) == 50
    queue.cancel(job.id)
    assert queue.rq.count == 0
    assert not redis.keys(f"rq:*{job.id}*")


def test_a_deadline_that_passed_ends_the_job_even_without_workers(queue: JobQueue, tiny_card, ask: Ask) -> None:  # type: ignore[no-untyped-def]
    job = queue.accept(queue.offer(*_with_image(ask(count=2), tiny_card), deadline_seconds=600))
    assert queue.get(job.id).state == JobState.QUEUED
    queue.connection.hset(keys.of(job.id), "deadline", job.created_at + 0.001)
    queue.connection.zadd(keys.DEADLINES, {job.id: 1})
    late = queue.get(job.id)
    assert late.state == JobState.FAILED
    assert late.error == "its deadline of 0.001 s passed with 0 of 26 image-steps done"
    assert queue.rq.job_ids == []
    assert queue.connection.zcard(keys.DEADLINES) == 0


def _with_image(asked, card):  # type: ignore[no-untyped-def]
    request, image_steps = asked
    return request, card.image, image_steps


def test_what_is_in_flight_is_what_is_still_to_do(queue: JobQueue, redis, tiny_card, ask: Ask) -> None:  # type: ignore[no-untyped-def]
    """Counted in one place, so that limits hold whoever looks; what the jobs themselves say is the check."""

    def load() -> dict[str, int]:
        return {name.decode(): int(value) for name, value in redis.hgetall(keys.LOAD).items()}

    def left() -> int:
        return sum(job.image_steps - job.image_steps_done for job in queue.listing(None, list(JobState), None, 20)[0])

    first = queue.accept(queue.offer(*_with_image(ask(count=10), tiny_card), client="a"))
    second = queue.accept(queue.offer(*_with_image(ask(count=2), tiny_card), client="b"))
    assert load() == {"a": 130, "b": 26, "all": 156}
    assert shards.take(queue.rq, None) == [shards.shard_id(first.id, 0)]
    shard = shards.Shard(first.id, 0, 0, 4, 60)
    for done in (20, 30, 10):  # what was killed begins again
        with queue.connection.pipeline() as pipeline:
            shards.report(shard, done, pipeline)
            pipeline.execute()
        assert load() == {"a": 130 - done, "b": 26, "all": 156 - done}
        assert load()["all"] == queue.depth().image_steps == left()
    values = [first.id, "finished", 0, 60, "", 0, b"x", 52, 4]
    assert queue.connection.eval(scripts.STORE, 0, *values) == 1
    assert load() == {"a": 78, "b": 26, "all": 104}
    assert queue.connection.eval(scripts.STORE, 0, *values) == 0
    queue.cancel(first.id)
    assert load() == {"b": 26, "all": 26}
    queue.cancel(second.id)
    assert load() == {}


@pytest.mark.parametrize(
    ("limits", "against"),
    [
        (Limits(client_image_steps=51), "client"),
        (Limits(client_image_steps=52, image_steps=77), "queue"),
        (Limits(client_image_steps=52, image_steps=78, jobs=2), "jobs"),
    ],
)
def test_what_is_too_much_is_not_accepted(  # type: ignore[no-untyped-def]
    queue: JobQueue, redis, tiny_card, ask: Ask, limits: Limits, against: str
) -> None:
    for client in ("a", "b"):
        queue.accept(queue.offer(*_with_image(ask(count=2), tiny_card), client=client))
    before = redis.dbsize()
    with pytest.raises(TooMuch) as refused:
        queue.accept(queue.offer(*_with_image(ask(count=2), tiny_card), client="a", limits=limits))
    assert (refused.value.against, refused.value.in_flight) == (against, InFlight(26, 52, 2, 128))
    assert redis.dbsize() == before
    enough = Limits(client_image_steps=52, image_steps=78, jobs=3)
    queue.accept(queue.offer(*_with_image(ask(count=2), tiny_card), client="a", limits=enough))
