"""Workers that run inside the test, until nothing waits."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models.card import ModelCard
from models.sampling.plan import plan
from models.sampling.settings import SamplerSettings
from worker.batch import Batch
from worker.batching import BatchingWorker
from worker.queue import JobQueue, connect
from worker.requests import SampleRequest
from worker.settings import WorkerSettings


@pytest.fixture
def settings(worker_url: str, models_dir: Path) -> WorkerSettings:
    return WorkerSettings(
        redis_url=worker_url, models_dir=models_dir, default_model="tiny", slots=8, shard_size=4, lease_seconds=2
    )


@pytest.fixture
def queue(settings: WorkerSettings) -> Iterator[JobQueue]:
    connection = connect(settings.redis_url, timeout=10, attempts=0)
    yield JobQueue(connection, settings)
    connection.close()


@pytest.fixture
def new_worker(queue: JobQueue, settings: WorkerSettings) -> Iterator[Callable[..., BatchingWorker]]:
    """Makes workers, with their own batch and settings if given; their signal handlers are taken out again."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def make(batch: Batch | None = None, settings: WorkerSettings = settings) -> BatchingWorker:
        batch = batch or Batch(settings.store(), settings.slots, "cpu")
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
