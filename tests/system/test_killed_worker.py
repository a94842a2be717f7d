"""A worker that is killed loses nothing, and what is done again has the same pixels."""

import os
import random
import signal
from collections.abc import Callable

import numpy as np
import pytest

from models.card import ModelCard
from models.sampling.plan import plan
from models.sampling.sample import sample
from models.sampling.settings import AnnealedLangevin, Heun, SamplerSettings
from models.score import ScoreModel
from worker.queue import Job, JobQueue, JobState, connect
from worker.requests import SampleRequest
from worker.results import Results
from worker.settings import QueueSettings

SAMPLERS: list[SamplerSettings] = [
    AnnealedLangevin(levels=30, steps_per_level=5),
    AnnealedLangevin(levels=10, steps_per_level=3, denoise=False),
    Heun(name="heun", levels=30),
]


@pytest.fixture
def queue(redis_url: str) -> JobQueue:
    settings = QueueSettings(redis_url=redis_url, shard_size=4)
    return JobQueue(connect(redis_url, timeout=10, attempts=3), settings)


def test_twenty_jobs_survive_a_killed_worker(
    start: Callable, redis_url: str, queue: JobQueue, tiny_card: ModelCard, tiny_model: ScoreModel, until: Callable
) -> None:
    jobs = [_submit(queue, tiny_card, number) for number in range(20)]
    options = {"SCORESERVE_REDIS_URL": redis_url, "SCORESERVE_SLOTS": "6", "SCORESERVE_LEASE_SECONDS": "2"}
    first = start("worker", **options)
    until(lambda: _finished(queue, jobs) >= 3)
    os.kill(first.pid, signal.SIGKILL)
    assert _finished(queue, jobs) < 20, "the worker was too quick for this test"
    assert queue.rq.started_job_registry.get_job_count(cleanup=False) > 0
    start("worker", **options)
    until(lambda: _finished(queue, jobs) == 20)
    for job in jobs:
        images = Results(queue.connection).images(queue.get(job.id))
        _, table = plan(job.request.sampler, tiny_card)
        undisturbed = sample(tiny_model, table, job.request.count, job.request.seed, slots=1)
        assert np.array_equal(images, undisturbed)
    assert queue.totals()["jobs_finished"] == 20
    assert queue.totals()["images"] == sum(job.request.count for job in jobs)


def _submit(queue: JobQueue, card: ModelCard, number: int) -> Job:
    settings, table = plan(random.Random(number).choice(SAMPLERS), card)
    count = 1 + number % 7
    request = SampleRequest(model="tiny", version=1, count=count, seed=number, sampler=settings)
    return queue.submit(request, card.image, count * len(table))


def _finished(queue: JobQueue, jobs: list[Job]) -> int:
    return sum(queue.get(job.id).state == JobState.FINISHED for job in jobs)
