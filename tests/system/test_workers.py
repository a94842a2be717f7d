"""Workers that are killed, stopped, or frozen lose nothing, and what is done again has the same pixels."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, takewhile
from pathlib import Path

import httpx
import numpy as np
import pytest
from rq.worker import Worker

from models.card import ModelCard
from models.plan import plan
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.follow_scores import FollowScores
from models.samplers.heun import Heun
from models.samplers.settings import SamplerSettings
from models.sampling.sample import sample
from models.score import ScoreModel
from tests.ports import free_port
from tests.system.forks import Forked
from tests.system.forks import fork as fork_of
from worker.queue import keys
from worker.queue.job import Job, JobState
from worker.queue.jobs import JobQueue
from worker.queue.requests import SampleRequest
from worker.queue.results import Results
from worker.queue.server import connect
from worker.queue.settings import QueueSettings
from worker.queue.shards import Shard, ShardJob

SAMPLERS: list[SamplerSettings] = [
    AnnealedLangevin(levels=30, steps_per_level=5),
    AnnealedLangevin(levels=10, steps_per_level=3, denoise=False),
    Heun(name="heun", levels=30),
]
SLOW: list[SamplerSettings] = [AnnealedLangevin(levels=60, steps_per_level=5), Heun(name="heun", levels=120)]


@pytest.fixture
def queue(service_url: str) -> JobQueue:
    settings = QueueSettings(redis_url=service_url, shard_size=4)
    return JobQueue(connect(service_url, timeout=10, attempts=3), settings)


@pytest.fixture
def fork(models_dir: Path, tmp_path: Path) -> Iterator[Callable[..., Forked]]:
    """Starts workers whose start is not what is tested; what still runs at the end is killed."""
    forked: list[Forked] = []

    def begin(*arguments: str, **environment: str) -> Forked:
        settings = {"SCORESERVE_MODELS_DIR": str(models_dir), "SCORESERVE_DEFAULT_MODEL": "tiny"}
        log = tmp_path / f"log-{len(forked)}"
        forked.append(fork_of(arguments, {**os.environ, **settings, **environment}, log))
        return forked[-1]

    yield begin
    for process in forked:
        process.kill()
        process.wait()
        process.stderr.close()


def test_twenty_jobs_survive_a_killed_worker(
    fork: Callable, worker_url: str, queue: JobQueue, tiny_card: ModelCard, tiny_model: ScoreModel, until: Callable
) -> None:
    jobs = [_submit(queue, tiny_card, number) for number in range(20)]
    options = {"SCORESERVE_REDIS_URL": worker_url, "SCORESERVE_SLOTS": "6", "SCORESERVE_LEASE_SECONDS": "2"}
    first = fork("worker", **options)
    until(lambda: _finished(queue, jobs) >= 3)
    _catch(queue, first.pid, jobs, tiny_card)
    os.kill(first.pid, signal.SIGKILL)
    fork("worker", **options)
    until(lambda: _finished(queue, jobs) == len(jobs))
    _check(queue, jobs, tiny_card, tiny_model)


def test_a_rolling_restart_does_nothing_twice(
    fork: Callable, worker_url: str, queue: JobQueue, tiny_card: ModelCard, tiny_model: ScoreModel, until: Callable
) -> None:
    jobs = [_submit(queue, tiny_card, number, SLOW) for number in range(8)]
    options = {
        "SCORESERVE_REDIS_URL": worker_url,
        "SCORESERVE_SLOTS": "6",
        "SCORESERVE_GRACE_SECONDS": "0",
        "SCORESERVE_LEASE_SECONDS": "60",  # of a worker that is caught, on a machine that may be busy
    }
    workers = [fork("worker", **options) for _ in range(2)]
    until(lambda: queue.workers() == 2)
    for worker in workers:
        caught = _catch(queue, worker.pid, jobs, tiny_card)
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGCONT)
        said = worker.communicate(timeout=60)[1].decode()
        assert worker.returncode == 0, said
        assert f"handing back shard {caught.id}" in said
        fork("worker", **options)
    until(lambda: _finished(queue, jobs) == len(jobs))
    _check(queue, jobs, tiny_card, tiny_model)
    needed = sum(job.image_steps for job in jobs)
    until(lambda: queue.totals()["image_steps_computed"] >= needed)
    assert queue.totals()["image_steps_computed"] <= 1.02 * needed


def test_a_rolling_restart_under_load_fails_no_request(
    start: Callable, fork: Callable, worker_url: str, service_url: str, queue: JobQueue, until: Callable
) -> None:
    options = {"SCORESERVE_REDIS_URL": worker_url, "SCORESERVE_SLOTS": "6", "SCORESERVE_GRACE_SECONDS": "0.2"}
    workers = [fork("worker", **options) for _ in range(3)]
    port = free_port()
    start("api", SCORESERVE_REDIS_URL=service_url, SCORESERVE_PORT=str(port))
    until(lambda: queue.workers() == 3)
    until(lambda: _answers(port))
    restarted, answers = threading.Event(), []

    def ask(number: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            for seed in takewhile(lambda _: not restarted.is_set(), count()):
                body = {"count": 1 + number, "seed": seed, "sampler": {"levels": 20 * (1 + number)}}
                answer = client.post("/samples", json=body, headers={"Prefer": "wait=60", "Client-Id": f"c{number}"})
                answers.append((answer.status_code, answer.json().get("state", answer.text)))

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(ask, number) for number in range(4)]
        try:
            for number, worker in enumerate(workers, 1):
                until(lambda enough=2 * number: len(answers) >= enough)
                os.kill(worker.pid, signal.SIGTERM)
                assert worker.wait(60) == 0, worker.stderr.read()
                alive = queue.workers()
                fork("worker", **options)
                until(lambda alive=alive: queue.workers() > alive)
            until(lambda: len(answers) >= 8)
        finally:
            restarted.set()
        for client in clients:
            client.result()
    assert set(answers) == {(200, "finished")}
    totals = queue.totals()
    assert totals["jobs_finished"] == totals["jobs_accepted"] == len(answers)
    until(lambda: queue.totals()["image_steps_computed"] >= totals["image_steps"])
    assert queue.totals()["image_steps_computed"] <= 1.02 * totals["image_steps"]


def test_a_frozen_worker_comes_back_as_one_that_holds_nothing(
    fork: Callable, worker_url: str, queue: JobQueue, tiny_card: ModelCard, tiny_model: ScoreModel, until: Callable
) -> None:
    jobs = [_submit(queue, tiny_card, number, SLOW) for number in range(4)]
    options = {"SCORESERVE_REDIS_URL": worker_url, "SCORESERVE_SLOTS": "6", "SCORESERVE_LEASE_SECONDS": "2"}
    frozen = fork("worker", **options)
    until(lambda: queue.rq.started_job_registry.get_job_count(cleanup=False) > 0)
    os.kill(frozen.pid, signal.SIGSTOP)
    fork("worker", **options)
    until(lambda: _finished(queue, jobs) == 4)
    os.kill(frozen.pid, signal.SIGCONT)
    until(lambda: queue.workers() == 2)
    jobs.append(_submit(queue, tiny_card, 4, SLOW))
    until(lambda: _finished(queue, jobs) == 5)
    _check(queue, jobs, tiny_card, tiny_model)
    assert queue.rq.started_job_registry.get_job_count(cleanup=False) == 0
    os.kill(frozen.pid, signal.SIGTERM)
    assert frozen.wait(60) == 0


def test_rqs_own_tool_shows_what_waits_and_who_works(
    fork: Callable, redis_url: str, worker_url: str, queue: JobQueue, tiny_card: ModelCard, until: Callable
) -> None:
    def info() -> list[str]:
        command = [sys.executable, "-m", "rq.cli", "info", "--raw", "--url", redis_url]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    jobs = [_submit(queue, tiny_card, number, [FollowScores(name="follow_scores", steps=2000)]) for number in range(6)]
    waiting = sum(job.shards for job in jobs)
    assert [line.split()[:3] for line in info()] == [["queue", "scoreserve", f"{waiting},"]]
    process = fork("worker", SCORESERVE_REDIS_URL=worker_url, SCORESERVE_SLOTS="4")
    until(lambda: queue.rq.count < waiting)
    until(lambda: any(status.slots_active for status in queue.worker_statuses()))
    os.kill(process.pid, signal.SIGSTOP)
    (worker,) = (line.split() for line in info() if line.startswith("worker"))
    assert "busy" in worker
    assert queue.rq.started_job_registry.get_job_count(cleanup=False) == waiting - queue.rq.count


def test_a_worker_that_cannot_start_says_why(start: Callable, worker_url: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    for options, why in (
        ({"SCORESERVE_REDIS_URL": f"unix://{tmp_path}/nowhere"}, b"no Redis at"),
        ({"SCORESERVE_REDIS_URL": worker_url, "SCORESERVE_DEFAULT_MODEL": "gone"}, b"no model gone"),
    ):
        worker = start("worker", **options)
        assert worker.wait(60) == 1
        assert why in worker.stderr.read()


def test_a_worker_that_is_stopped_while_it_starts_is_at_no_fault(
    start: Callable, worker_url: str, until: Callable
) -> None:
    worker = start("worker", SCORESERVE_REDIS_URL=worker_url)

    def heard() -> bool:
        """Whether it has a handler for SIGTERM: bit 14 of what the kernel says it catches."""
        status = Path(f"/proc/{worker.pid}/status").read_text()
        caught = int(status.split("SigCgt:")[1].split()[0], 16)
        return bool(caught & 1 << signal.SIGTERM - 1)

    until(heard)
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(60) == 0, worker.stderr.read()
    assert b"ready" not in worker.stderr.read(), "it had started already"


def _catch(queue: JobQueue, pid: int, jobs: list[Job], card: ModelCard) -> Shard:
    """Freezes a worker that has begun a shard and is far from done with it, however quick it is; returns the shard.

    Whoever is frozen keeps its leases for a while. There is always enough to do: jobs are added.
    """
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if queue.depth().jobs < 4:
            jobs.append(_submit(queue, card, len(jobs), SLOW))
        os.kill(pid, signal.SIGSTOP)
        (name,) = (key for key in Worker.all_keys(queue.connection) if queue.connection.hget(key, "pid") == b"%d" % pid)
        for lease in queue.connection.zrange(queue.rq.started_job_registry.key, 0, -1):
            (job,) = ShardJob.fetch_many([lease.decode().split(":")[0]], queue.connection, queue.rq.serializer)
            if job and job.worker_name == name.rpartition(":")[2] and _begun(queue, job.shard):
                return job.shard
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.02)
    raise AssertionError(f"worker {pid} begins nothing")


def _begun(queue: JobQueue, shard: Shard) -> bool:
    """Whether a part of a shard is done, and no more than half."""
    job = queue.get(shard.job_id)
    done = int(queue.connection.hget(keys.of(job.id, "progress"), str(shard.number)) or 0)
    return 0 < done < job.image_steps / job.request.count * shard.count / 2


def _check(queue: JobQueue, jobs: list[Job], card: ModelCard, model: ScoreModel) -> None:
    """Every job finished once, and its images are those of an undisturbed run."""
    for job in jobs:
        images = Results(queue.connection).images(queue.get(job.id))
        _, table = plan(job.request.sampler, card)
        assert np.array_equal(images, sample(model, table, job.request.count, job.request.seed, slots=16))
    assert queue.totals()["jobs_finished"] == len(jobs)
    assert queue.totals()["images"] == sum(job.request.count for job in jobs)


def _submit(queue: JobQueue, card: ModelCard, number: int, samplers: list[SamplerSettings] = SAMPLERS) -> Job:
    settings, table = plan(random.Random(number).choice(samplers), card)
    count = 1 + number % 7
    request = SampleRequest(model="tiny", version=1, count=count, seed=number, sampler=settings)
    return queue.accept(queue.offer(request, card.image, count * len(table)))


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").is_success
    except httpx.TransportError:
        return False


def _finished(queue: JobQueue, jobs: list[Job]) -> int:
    return sum(queue.get(job.id).state == JobState.FINISHED for job in jobs)
