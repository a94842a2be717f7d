import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
import torch
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import OutOfMemoryError, ResponseError
from rq.job import JobStatus
from rq.serializers import JSONSerializer

from models.card import ModelCard
from models.sampling.plan import plan
from models.sampling.sample import sample
from models.sampling.settings import FollowScores, Heun
from models.score import ScoreModel
from models.store import ModelStore
from worker import shards, upkeep
from worker.batch import Batch
from worker.batching import BatchingWorker
from worker.job import Job, JobState
from worker.lane import DeviceFailed, Part
from worker.queue import JobQueue, unavailable
from worker.requests import InpaintRequest, SampleRequest
from worker.results import Results
from worker.settings import WorkerSettings
from worker.shards import ShardJob

Ask = Callable[..., tuple[SampleRequest, int]]
NewWorker = Callable[[], BatchingWorker]
LONG = FollowScores(name="follow_scores", steps=400)


@pytest.fixture
def submit(queue: JobQueue, tiny_card: ModelCard, ask: Ask) -> Callable[..., Job]:
    def make(deadline_seconds: float | None = None, **kwargs: object) -> Job:
        request, image_steps = ask(**kwargs)
        return queue.submit(request, tiny_card.image, image_steps, deadline_seconds=deadline_seconds)

    return make


def expected(job: Job, card: ModelCard, model: ScoreModel) -> np.ndarray:
    return sample(model, plan(job.request.sampler, card)[1], job.request.count, job.request.seed)


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
    job = queue.submit(inpaint, tiny_card.image, image_steps)
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
    assert not queue.connection.exists(shards.images_key(job.id))


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
        until(lambda: worker._mail.qsize() > 0, 5)
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
            until(lambda job=job: queue.get(job.id).state.final, 20)
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
    queue.connection.hset(shards.job_key(late.id), "deadline", late.created_at + 0.001)
    queue.connection.zadd(shards.DEADLINES, {late.id: late.created_at + 0.001})
    worker._beat()
    failed = queue.get(late.id)
    assert failed.state == JobState.FAILED
    assert failed.error == "its deadline of 0.001 s passed with 4 of 1,600 image-steps done"
    worker._beat()
    assert [claim.job.id for claim in worker._claims.values()] == [other.id]


def stop_at(worker: BatchingWorker, step_number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends this process a SIGTERM before a step of the worker, counted from its first shard."""
    real, steps = worker.batch.step, iter(range(100_000))

    def step():  # type: ignore[no-untyped-def]
        if worker.batch.parts and next(steps) == step_number:
            os.kill(os.getpid(), signal.SIGTERM)
        return real()

    monkeypatch.setattr(worker.batch, "step", step)


def test_another_worker_goes_on_where_a_stopped_one_was(
    submit,
    queue: JobQueue,
    new_worker: NewWorker,
    settings: WorkerSettings,
    tiny_card: ModelCard,
    tiny_model: ScoreModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = [submit(count=4, sampler=sampler) for sampler in (LONG, Heun(name="heun", levels=50))]
    first = new_worker()
    first.settings = settings.model_copy(update={"grace_seconds": 0.0})
    stop_at(first, 30, monkeypatch)
    first.work(burst=True)
    assert queue.rq.job_ids == [shards.shard_id(job.id, 0) for job in jobs]
    for waiting in queue.rq.get_jobs():
        assert waiting.get_status() == JobStatus.QUEUED
        assert waiting.retries_left == shards.RETRIES
    assert queue.rq.started_job_registry.get_job_count(cleanup=False) == 0
    done = [queue.get(job.id).image_steps_done for job in jobs]
    assert min(done) > 0
    assert sum(done) == first.batch.image_steps
    second = new_worker()
    second.work(burst=True)
    assert second.batch.image_steps == sum(job.image_steps for job in jobs) - sum(done), "nothing was done twice"
    assert queue.totals()["image_steps_computed"] == sum(job.image_steps for job in jobs)
    for job in jobs:
        images = Results(queue.connection).images(queue.get(job.id))
        assert np.array_equal(images, expected(job, tiny_card, tiny_model))
        assert not queue.connection.exists(shards.state_key(job.id))


def test_saved_state_goes_with_its_job(submit, queue: JobQueue, new_worker: NewWorker) -> None:
    job = submit(count=4, sampler=LONG)
    worker = new_worker()
    worker._claim()
    worker._step()
    worker._hand_back()
    assert queue.connection.hexists(shards.state_key(job.id), "0")
    queue.cancel(job.id)
    assert not queue.connection.exists(shards.state_key(job.id))


def test_a_worker_that_lost_its_lease_saves_nothing(submit, queue: JobQueue, new_worker: NewWorker) -> None:
    job = submit(count=4, sampler=LONG)
    zombie, heir = new_worker(), new_worker()
    zombie._claim()
    (claim,) = zombie._claims.values()
    queue.connection.zadd(claim.lease.rq_job.started_job_registry.key, {claim.lease.execution.composite_key: 1})
    heir.clean_registries()
    heir._claim()
    for _ in range(5):
        heir._step()
    heir._hand_back()
    saved = queue.connection.hget(shards.state_key(job.id), "0")
    zombie._step()
    zombie._hand_back()
    assert not zombie._claims
    assert queue.connection.hget(shards.state_key(job.id), "0") == saved
    assert queue.rq.job_ids == [shards.shard_id(job.id, 0)]


def test_a_second_signal_ends_the_grace_time(
    submit, queue: JobQueue, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(count=4, sampler=FollowScores(name="follow_scores", steps=100_000))
    worker = new_worker()
    stop_at(worker, 3, monkeypatch)
    monkeypatch.setattr(worker, "_beat", lambda: os.kill(os.getpid(), signal.SIGTERM) if worker._stop_requested else 0)
    begun = time.monotonic()
    worker.work()
    assert time.monotonic() - begun < 10, "the grace time is 20 seconds"
    assert len(queue.rq.job_ids) == 1


def test_an_idle_worker_stops_at_once(new_worker: NewWorker) -> None:
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.start()
    begun = time.monotonic()
    new_worker().work()
    assert time.monotonic() - begun < 2
    timer.join()


def test_a_stopped_worker_finishes_what_it_can(
    submit, queue: JobQueue, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, later = submit(count=8), submit(count=8)
    worker = new_worker()
    stop_at(worker, 0, monkeypatch)
    worker.work(burst=False)
    assert queue.get(job.id).state == JobState.FINISHED
    assert queue.get(later.id).state == JobState.QUEUED


def test_a_bad_request_fails_at_once_and_with_its_reason(
    queue: JobQueue, new_worker: NewWorker, tiny_card: ModelCard, ask: Ask
) -> None:
    request, image_steps = ask(count=10)
    job = queue.submit(request.model_copy(update={"model": "gone"}), tiny_card.image, image_steps)
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


def deaths(queue: JobQueue, job: Job, shard: int = 0) -> int:
    (rq_job,) = ShardJob.fetch_many([shards.shard_id(job.id, shard)], queue.connection, JSONSerializer)
    assert rq_job is not None
    assert rq_job.retries_left is not None
    return shards.RETRIES - rq_job.retries_left


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
    worker._hear({"channel": shards.ENDED, "data": jobs[1].id})
    worker._talk()
    assert [lease.shard.job_id for lease in worker._started] == [jobs[2].id]
    worker._give_up("the device is gone")
    assert [deaths(queue, job) for job in (jobs[0], jobs[2])] == [1, 3]
    assert queue.rq.count == 2


def test_progress_of_a_worker_that_lost_its_lease_is_not_written_down(
    submit, queue: JobQueue, new_worker: NewWorker
) -> None:
    job = submit(count=8, sampler=LONG)
    zombie, heir = new_worker(), new_worker()
    zombie._claim()
    zombie._step()
    for claim in zombie._claims.values():
        queue.connection.zadd(claim.lease.rq_job.started_job_registry.key, {claim.lease.execution.composite_key: 1})
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


def test_when_redis_is_back_others_have_time_to_say_that_they_live(
    submit, queue: JobQueue, new_worker: NewWorker, redis: Redis
) -> None:
    first, second = new_worker(), new_worker()
    for worker in (first, second):
        submit(count=8, sampler=LONG)
        worker._claim()
    registry = queue.rq.started_job_registry.key
    redis.config_set("maxmemory", 1)
    try:
        assert first._talk() is None
    finally:
        redis.config_set("maxmemory", 0)
    queue.connection.zadd(registry, {lease: 1 for lease in queue.connection.zrange(registry, 0, -1)})
    first._away_until = 1e-9
    assert first.should_run_maintenance_tasks
    assert first._talk() is not None
    second._next_upkeep = float("inf")  # what it does itself for others is no matter here
    second._beat()
    assert len(second._claims) == 2
    for claim in second._claims.values():
        assert deaths(queue, claim.job, claim.shard.number) == 0
    first._next_upkeep = 0.0
    queue.connection.zadd(registry, {lease: 1 for lease in queue.connection.zrange(registry, 0, -1)})
    first._beat()
    second._beat()
    assert not second._claims, "later they had better have said so"


def test_after_a_beat_that_took_long_nobodys_lease_is_reclaimed(
    submit, queue: JobQueue, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(count=4, sampler=LONG)
    worker = new_worker()
    worker._claim()
    late = 0.0
    clock = time.monotonic
    monkeypatch.setattr("worker.batching.time.monotonic", lambda: clock() + late)
    answer = Pipeline.execute

    def slow(pipeline: Pipeline) -> list[object]:
        nonlocal late
        late += 30.0
        return answer(pipeline)

    cleaned: list[int] = []
    monkeypatch.setattr(worker, "run_maintenance_tasks", lambda: cleaned.append(1))
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "execute", slow)
        worker._beat()
    assert not cleaned
    worker._beat()
    assert not cleaned
    late += 3.0
    worker._beat()
    assert cleaned


def test_a_worker_that_is_started_while_redis_is_full_waits(
    submit, queue: JobQueue, new_worker: NewWorker, redis: Redis
) -> None:
    job = submit(count=2)
    redis.config_set("maxmemory", 1)
    timer = threading.Timer(1, lambda: redis.config_set("maxmemory", 0))
    timer.start()
    try:
        assert new_worker().work(burst=True)
    finally:
        timer.join()
    assert queue.get(job.id).state == JobState.FINISHED


def test_a_worker_whose_start_was_cut_short_starts_again(
    submit, queue: JobQueue, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, worker = submit(count=2), new_worker()
    set_state, failed = worker.set_state, []

    def fail_once(*args: object) -> None:
        if not failed:
            failed.append(worker.pubsub_thread)
            raise OutOfMemoryError
        set_state(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(worker, "set_state", fail_once)
    assert worker.work(burst=True)
    (listener,) = failed
    assert listener is not None
    assert listener is not worker.pubsub_thread
    listener.join(10)
    assert not listener.is_alive()
    assert queue.get(job.id).state == JobState.FINISHED


def test_a_worker_that_waits_for_redis_can_be_stopped(
    new_worker: NewWorker, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = new_worker()
    monkeypatch.setattr(worker, "bootstrap", lambda *_: redis.rpush("anything", 1))
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    redis.config_set("maxmemory", 1)
    timer.start()
    try:
        assert not worker.work()
    finally:
        redis.config_set("maxmemory", 0)
        timer.join()


def test_what_another_release_wrote_down_fails_alone(submit, queue: JobQueue, new_worker: NewWorker) -> None:
    unknown, known = submit(count=8), submit(count=2)
    key = shards.job_key(unknown.id)
    request = json.loads(queue.connection.hget(key, "request"))
    queue.connection.hset(key, "request", json.dumps(request | {"of_the_future": 1}))
    new_worker().work(burst=True)
    assert queue.get(known.id).state == JobState.FINISHED
    assert queue.connection.hmget(key, "state", "error")[0] == b"failed"
    assert b"another release" in queue.connection.hget(key, "error")
    upkeep.look_after(queue, 2)
    assert queue.rq.job_ids == []
    assert queue.depth().jobs == 0


def test_a_worker_that_is_stopped_while_it_loads_a_model_takes_nothing_more(
    submit, queue: JobQueue, new_worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        submit(count=2)
    worker = new_worker()
    admit = worker.batch.admit

    def load(*args: object) -> Part:
        worker._shutdown()
        return admit(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(worker.batch, "admit", load)
    worker._claim()
    assert len(worker._claims) == 1
    assert queue.rq.count == 1


@pytest.mark.parametrize(("setting", "value"), [("maxmemory", 1), ("min-replicas-to-write", 1)])
def test_while_redis_takes_nothing_the_batch_goes_on_and_its_images_wait(
    submit,
    queue: JobQueue,
    new_worker: NewWorker,
    tiny_card: ModelCard,
    tiny_model: ScoreModel,
    redis: Redis,
    setting: str,
    value: int,
) -> None:
    jobs = [submit(count=4), submit(count=12, seed=2)]
    worker = new_worker()
    worker._talk()
    redis.config_set(setting, value)
    try:
        for _ in range(60):
            worker._advance()
            assert worker._talk() is None
            worker._away_until = 1e-9  # not so long
        for write in (worker._claim, lambda: shards.reclaim(queue.rq, 0)):
            with pytest.raises(ResponseError) as caught:
                write()
            assert unavailable(caught.value)
        assert len(queue.rq.job_ids) == 2, "what was not carried out left no trace"
        assert queue.connection.llen(shards.waiting_key(jobs[1].id)) == 2
        assert worker.batch.image_steps == 8 * 13
        assert len(worker._claims) == len(worker._ended) == 2
    finally:
        redis.config_set(setting, 0)
    while queue.depth().jobs:
        worker._advance()
        worker._talk()
    for job in jobs:
        images = Results(queue.connection).images(queue.get(job.id))
        assert np.array_equal(images, expected(job, tiny_card, tiny_model))


def test_a_full_redis_can_be_emptied_by_cancelling(
    submit, queue: JobQueue, new_worker: NewWorker, redis: Redis
) -> None:
    done, job = submit(count=4), submit(count=4, sampler=LONG)
    worker = new_worker()
    worker._claim()
    redis.config_set("maxmemory", 1)
    try:
        while not worker._ended:
            worker._advance()
        assert worker._talk() is None
        assert queue.cancel(job.id).state == JobState.CANCELLED
        worker._hear({"channel": shards.ENDED, "data": job.id})
        worker._away_until = 1e-9
        assert worker._talk() is None
        assert [claim.job.id for claim in worker._claims.values()] == [done.id]
    finally:
        redis.config_set("maxmemory", 0)


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
    return queue.submit(request.model_copy(update=update), card.image, image_steps)


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
