"""Workers that run inside the test, until nothing waits."""

import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from models.card import ModelCard
from models.plan import plan
from models.samplers.follow_scores import FollowScores
from models.samplers.settings import SamplerSettings
from models.sampling.choice import Remembered
from models.sampling.execution import Execution
from models.sampling.sample import sample
from models.score import ScoreModel
from worker.batching import BatchingWorker
from worker.device.batch import Batch
from worker.queue import shards
from worker.queue.job import Job
from worker.queue.jobs import ANYBODY, JobQueue
from worker.queue.priority import Priority
from worker.queue.requests import SampleRequest
from worker.queue.server import connect
from worker.settings import WorkerSettings

Ask = Callable[..., tuple[SampleRequest, int]]
NewWorker = Callable[..., BatchingWorker]
LONG = FollowScores(name="follow_scores", steps=400)


@pytest.fixture(autouse=True)
def _one_row_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast the machine is: tests count steps. Those of several rows have tests of their own."""
    monkeypatch.setattr("worker.device.lane.STEP_SECONDS", {})


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are 0, at no cost: for tests that look at no pixels."""
    monkeypatch.setattr(ScoreModel, "conditioned_score", lambda self, x, conditions: torch.zeros_like(x))


@pytest.fixture
def settings(worker_url: str, models_dir: Path) -> WorkerSettings:
    return _settings(worker_url, models_dir).model_copy()


@cache  # the environment is read once
def _settings(worker_url: str, models_dir: Path) -> WorkerSettings:
    return WorkerSettings(
        redis_url=worker_url,
        models_dir=models_dir,
        default_model="tiny",
        slots=8,
        shard_size=4,
        shard_seconds=0,
        lease_seconds=2,
    )


@pytest.fixture
def queue(settings: WorkerSettings) -> Iterator[JobQueue]:
    connection = connect(settings.redis_url, timeout=10, attempts=0)
    yield JobQueue(connection, settings)
    connection.close()


@pytest.fixture(scope="session")
def remembered(tmp_path_factory: pytest.TempPathFactory) -> Remembered:
    """How models are run here, which is found out once: with the execution fixed it is but how batches are cut."""
    return Remembered(tmp_path_factory.mktemp("cache") / "executions.json")


@pytest.fixture
def new_worker(
    queue: JobQueue, settings: WorkerSettings, remembered: Remembered
) -> Iterator[Callable[..., BatchingWorker]]:
    """Makes workers, with their own batch and settings if given; their signal handlers are taken out again."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def make(batch: Batch | None = None, settings: WorkerSettings = settings) -> BatchingWorker:
        batch = batch or Batch(settings.store(), settings.slots, "cpu", remembered=remembered, execution=Execution())
        return BatchingWorker(queue.connection, batch, settings)

    yield make
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def ask(tiny_card: ModelCard) -> Callable[..., tuple[SampleRequest, int]]:
    """A complete request and its image-steps."""

    def make(count: int = 4, seed: int = 1, sampler: SamplerSettings | None = None) -> tuple[SampleRequest, int]:
        settings, table = plan(sampler, tiny_card)
        request = SampleRequest(model="tiny", version=1, count=count, seed=seed, sampler=settings)
        return request, count * len(table)

    return make


@pytest.fixture
def submit(queue: JobQueue, tiny_card: ModelCard, ask: Ask) -> Callable[..., Job]:
    """Puts a job on the queue."""

    def make(
        count: int = 4,
        client: str = ANYBODY,
        priority: str = "normal",
        deadline_seconds: float | None = None,
        **of: object,
    ) -> Job:
        request, image_steps = ask(count=count, **of)
        return queue.accept(
            queue.offer(request, tiny_card.image, image_steps, client, Priority(priority), deadline_seconds)
        )

    return make


def expected(job: Job, card: ModelCard, model: ScoreModel) -> np.ndarray:
    """The images of a job, as they are without a service."""
    return sample(model, plan(job.request.sampler, card)[1], job.request.count, job.request.seed)


def deaths(queue: JobQueue, job: Job, shard: int = 0) -> int:
    """How many workers died, as far as is known, that held a shard."""
    (rq_job,) = shards.ShardJob.fetch_many([shards.shard_id(job.id, shard)], queue.connection, queue.rq.serializer)
    assert rq_job is not None
    assert rq_job.retries_left is not None
    return shards.RETRIES - rq_job.retries_left


def expire(queue: JobQueue) -> None:
    """All leases are over."""
    key = queue.rq.started_job_registry.key
    queue.connection.zadd(key, {lease: 1 for lease in queue.connection.zrange(key, 0, -1)})
