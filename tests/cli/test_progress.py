"""What a training run says of itself at its start, where that is no terminal."""

from pathlib import Path

import pytest
import torch
from rich.progress import Progress

from cli.progress import TrainingProgress
from models.training.levels import NoiseLevels
from models.training.settings import TrainingSettings
from models.training.trainer import Trainer

NETWORK = {"channels": [8], "blocks": [1], "attention": [False], "embedding": 8, "groups": 4}
IMAGES = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 8, 8)


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        (None, ["continuing after step 3"]),
        (NoiseLevels(sigma_min=0.02, count=9), ["9 noise levels from 8 to 0.02", "continuing after step 3"]),
    ],
)
def test_a_run_says_at_which_levels_it_trains_and_where_it_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], levels: NoiseLevels | None, said: list[str]
) -> None:
    trainer = Trainer(IMAGES, TrainingSettings(network=NETWORK, levels=levels), tmp_path)
    trainer.step = 3
    TrainingProgress(every=1).start(trainer)
    lines = capsys.readouterr().err.splitlines()
    lines.remove(f"a step is run {trainer.execution}")
    assert lines == said


def test_a_bar_asks_a_gpu_for_its_losses_only_when_the_run_looks_at_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(IMAGES, TrainingSettings(network=NETWORK, epochs=9), tmp_path)
    progress, read = TrainingProgress(every=100), list[int]()
    progress.start(trainer)
    progress._bar = Progress(disable=True)
    progress._task = progress._bar.add_task("", loss=0.0, rate=0.0)
    monkeypatch.setattr(Trainer, "losses", property(lambda self: read.append(self.step) or [0.5]))
    trainer.look = 4  # as on a GPU, where these are waited for
    for trainer.step in range(1, 10):
        progress.step(trainer)
        assert progress._bar.tasks[0].completed == trainer.step
    assert (trainer.steps, read) == (9, [4, 8, 9])
