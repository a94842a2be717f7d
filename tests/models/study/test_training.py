from pathlib import Path

import pytest
import safetensors.torch
import torch

from models.study.training import snapshot, trained
from models.training.settings import TrainingSettings
from models.training.trainer import Trainer

IMAGES = torch.randint(0, 256, (32, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SETTINGS = TrainingSettings(
    network={"channels": [8], "blocks": [1], "attention": [False], "embedding": 8, "groups": 4},
    batch=8,
    epochs=2,
    warmup_steps=0,
)


def test_the_weights_of_chosen_steps_are_kept_with_their_average(tmp_path: Path) -> None:
    trainer = trained(IMAGES, SETTINGS, tmp_path, "cpu", lambda _: None, snapshots=[4, 8])
    last = safetensors.torch.load(snapshot(trainer, 8, ema=False).read_bytes())
    average = safetensors.torch.load(snapshot(trainer, 8, ema=True).read_bytes())
    earlier = safetensors.torch.load(snapshot(trainer, 4, ema=False).read_bytes())
    name = "conv_in.weight"
    assert torch.equal(last[name], trainer.network.state_dict()[name])
    assert torch.equal(average[name], trainer.ema.module.state_dict()[name])
    assert not torch.equal(last[name], average[name])
    assert not torch.equal(last[name], earlier[name])


def test_a_training_that_was_interrupted_goes_on_and_one_that_was_finished_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.study.training.SAVE_EVERY", 3)

    def interrupt(trainer: Trainer) -> None:
        if trainer.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(IMAGES, SETTINGS, tmp_path, "cpu", interrupt, snapshots=[2, 4])
    steps: list[int] = []
    trainer = trained(IMAGES, SETTINGS, tmp_path, "cpu", lambda t: steps.append(t.step), snapshots=[2, 4])
    assert steps == [4, 5, 6, 7, 8]
    assert snapshot(trainer, 2, ema=True).exists()
    trained(IMAGES, SETTINGS, tmp_path, "cpu", lambda t: steps.append(t.step), snapshots=[2, 4])
    assert steps[5:] == [8]


@pytest.mark.parametrize(
    ("images", "changes", "snapshots"),
    [(IMAGES, {"seed": 1}, [4]), (IMAGES + 1, {}, [4]), (IMAGES, {}, [8])],
    ids=["settings", "images", "snapshots"],
)
def test_a_training_of_something_else_is_another(
    tmp_path: Path, images: torch.Tensor, changes: dict[str, int], snapshots: list[int]
) -> None:
    first = trained(IMAGES, SETTINGS, tmp_path, "cpu", lambda _: None, snapshots=[4])
    other = trained(images, SETTINGS.model_copy(update=changes), tmp_path, "cpu", lambda _: None, snapshots=snapshots)
    assert other.directory != first.directory
