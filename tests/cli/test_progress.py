"""What a training run says of itself at its start, where that is no terminal."""

from pathlib import Path

import pytest
import torch

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
