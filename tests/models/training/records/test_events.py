from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models.training.records.events import EVERY, Events
from models.training.settings import TrainingSettings
from models.training.trainer import Trainer

SETTINGS = TrainingSettings(
    network={"channels": [8], "blocks": [1], "attention": [False], "embedding": 8, "groups": 4},
    batch=4,
    epochs=3 * EVERY,
    warmup_steps=0,
    decay="linear",
)


def test_scalars_and_grids_are_what_the_run_did(tmp_path: Path) -> None:
    trainer = Trainer(torch.arange(64, dtype=torch.uint8).reshape(4, 1, 4, 4), SETTINGS, tmp_path)
    events = Events(tmp_path / "tensorboard", 0)
    trainer.train(lambda t, _: events.step(t))
    events.grid(np.zeros((4, 4, 3), np.uint8), trainer.step)
    events.grid(np.zeros((4, 4, 2), np.uint8), trainer.step)
    events.close()
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    losses = found.Scalars("loss")
    assert [event.step for event in losses] == [EVERY, 2 * EVERY, 3 * EVERY]
    assert losses[1].value == pytest.approx(sum(trainer.losses[EVERY : 2 * EVERY]) / EVERY, rel=1e-5)
    rates = [event.value for event in found.Scalars("learning_rate")]
    assert rates == pytest.approx(
        [2e-3 * trainer.settings.rate_factor(step * EVERY - 1, trainer.steps) for step in (1, 2, 3)]
    )
    assert all(event.value > 0 for event in found.Scalars("images_per_second"))
    assert len(found.Images("samples")) == 1


def test_without_tensorboard_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    events = Events(tmp_path / "tensorboard", 0)
    events.grid(np.zeros((4, 4, 3), np.uint8), 1)
    events.close()
    assert list(tmp_path.iterdir()) == []
