"""A batch of five slots."""

import pytest

from worker.device.batch import Batch
from worker.settings import WorkerSettings


@pytest.fixture
def batch(settings: WorkerSettings) -> Batch:
    return Batch(settings.store(), slots=5, device="cpu")
