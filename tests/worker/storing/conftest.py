"""A store that large jobs' images go to, and that can be away."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.card import ModelCard
from models.samplers.euler import Euler
from tests.worker.conftest import Ask
from worker.batching import BatchingWorker
from worker.beside import writers
from worker.queue import stores
from worker.queue.job import Job
from worker.queue.jobs import JobQueue
from worker.queue.stores import StoreAway
from worker.settings import WorkerSettings

WITH_FRAMES = Euler(name="euler", levels=5)
Submit = Callable[..., Job]


@pytest.fixture
def settings(settings: WorkerSettings, directory_url: str) -> WorkerSettings:
    return settings.model_copy(update={"results_url": directory_url, "results_in_redis_bytes": 0})


@pytest.fixture
def with_frames(queue: JobQueue, tiny_card: ModelCard, ask: Ask) -> Job:
    """A job that keeps what its images looked like on their way."""
    request, image_steps = ask(count=6, sampler=WITH_FRAMES)
    return queue.accept(queue.offer(request.model_copy(update={"frames": 3}), tiny_card.image, image_steps))


class Outage:
    """A store that is away while it `lasts`, and counts who came in vain."""

    def __init__(self) -> None:
        self.lasts, self.tries = False, 0

    def check(self) -> None:
        if self.lasts:
            self.tries += 1
            raise StoreAway("it is away")


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    found = Outage()
    for kind in (stores.Directory, stores.Bucket):

        def write(store: Any, name: str, data: bytes, write: Any = kind.write) -> None:
            found.check()
            write(store, name, data)

        monkeypatch.setattr(kind, "write", write)
    monkeypatch.setattr(writers, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(writers, "LONGEST_PAUSE", 0.05)
    return found


def objects(directory: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in directory.rglob("*") if path.is_file()}


def turns(worker: BatchingWorker, until: Callable[..., None], condition: Callable[[], bool]) -> None:
    """Lets a worker take turns until a condition holds."""

    def turn() -> bool:
        worker._advance()
        worker._talk()
        return condition()

    until(turn)
