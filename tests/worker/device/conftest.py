"""A batch of five slots, and a model with colours."""

import pytest

from models.sampling.choice import Remembered
from models.store import ModelStore
from tests.conftest import publish_tiny
from worker.device.batch import Batch
from worker.settings import WorkerSettings


@pytest.fixture
def batch(settings: WorkerSettings, remembered: Remembered) -> Batch:
    return Batch(settings.store(), slots=5, device="cpu", remembered=remembered)


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """A store with `tiny`, which is grey, and `colour`."""
    found = ModelStore(tmp_path_factory.mktemp("colours"))
    publish_tiny(found)
    publish_tiny(found, "colour", seed=1, channels=3)
    return found
