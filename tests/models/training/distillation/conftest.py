"""A model of points in the plane, which is trained in a second or two."""

from pathlib import Path

import numpy as np
import pytest

from models.store import ModelStore
from models.training.data.toy import two_gaussians
from models.training.job import TrainingJob

PRESET = """
model = {name = "plane", sigma_min = 0.01, sigma_max = 4.0, sampler = {name = "euler", levels = 20}}
image = {channels = 2, height = 1, width = 1}
[training]
batch = 256
epochs = 12
learning_rate = 5e-3
warmup_steps = 20
log_sigma_mean = -1.5
log_sigma_std = 1.4
ema_decay = 0.98
execution = {pieces = 1}
network = {groups = 1, channels = [32], blocks = [2], attention = [false], patch = 1, embedding = 32}
"""


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """A store with it; beside that, plane.npy has the points."""
    directory = tmp_path_factory.mktemp("plane")
    path, preset = directory / "plane.npy", directory / "plane.toml"
    np.save(path, two_gaussians(4096).permute(0, 2, 3, 1).numpy())
    preset.write_text(PRESET)
    TrainingJob(
        preset=str(preset),
        data=path,
        out=directory / "run",
        store=directory / "models",
        overrides={},
        device="cpu",
        save_every=1000,
        grid_every=10_000,
        command="",
    ).run(lambda _: None, lambda *_: None)
    return ModelStore(directory / "models")


@pytest.fixture
def points(plane: ModelStore) -> Path:
    return plane.path("plane", 1).parents[2] / "plane.npy"
