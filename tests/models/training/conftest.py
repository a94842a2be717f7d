"""A run that nothing stopped."""

import pytest

from models.training.trainer import Trainer
from tests.models.training.small import IMAGES, SETTINGS, ignore


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    trainer = Trainer(IMAGES, SETTINGS, tmp_path_factory.mktemp("whole"))
    trainer.train(ignore)
    return trainer
