"""What tests of the queue share: jobs of it."""

from collections.abc import Callable

import pytest

from models.card import ModelCard
from worker.queue.job import Job
from worker.queue.jobs import JobQueue
from worker.queue.priority import Priority

Submit = Callable[..., Job]


@pytest.fixture
def submit(queue: JobQueue, tiny_card: ModelCard, ask) -> Submit:  # type: ignore[no-untyped-def]
    def make(count: int, client: str = "a", priority: str = "normal", model: str = "tiny") -> Job:
        request, image_steps = ask(count=count)
        request = request.model_copy(update={"model": model})
        return queue.accept(queue.offer(request, tiny_card.image, image_steps, client, Priority(priority)))

    return make
