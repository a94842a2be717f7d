"""Networks that a study trains for itself, kept so that a study that was interrupted goes on."""

import hashlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import ValidationError
from torch import Tensor, nn

from models import files
from models.sentences import in_one_line
from models.training.settings import TrainingSettings
from models.training.trainer import Trainer

SAVE_EVERY = 200  # steps


def trained(
    images: Tensor,
    settings: TrainingSettings,
    directory: Path,
    device: str,
    on_step: Callable[[Trainer], None],
    snapshots: Collection[int] = (),
) -> Trainer:
    """A trainer at its last step: of the run in `directory` that has the same settings and images, or of a new one.

    Args:
        images: uint8 [n, c, h, w].
        settings: how to train.
        directory: of all networks of a study; each has a directory in it, named after all that it depends on.
        device: torch device name.
        on_step: called after every step, and once for a run that was finished before.
        snapshots: the steps whose weights are kept, in the trainer's directory; see `snapshot`.

    Raises:
        OSError: the directory cannot be written to.
        TypeError, ValueError: the settings do not fit the network.
        RuntimeError: there is no such device, or the loss became infinite.
    """
    run = directory / run_name(images, settings, snapshots)
    run.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(images, settings, run, device)
    trainer.resume()

    def after_step(trainer: Trainer, _loss: Tensor) -> None:
        if trainer.step in snapshots:  # before the checkpoint: a run that goes on from that has all earlier ones
            _write(trainer.network, snapshot(trainer, trainer.step, ema=False))
            _write(trainer.ema.module, snapshot(trainer, trainer.step, ema=True))
        if trainer.step % SAVE_EVERY == 0:
            trainer.save()
        on_step(trainer)

    if trainer.step < trainer.steps:
        trainer.train(after_step)
        trainer.save()
    else:
        on_step(trainer)
    return trainer


def changed(settings: TrainingSettings, **changes: Any) -> TrainingSettings:
    """Other settings, checked.

    Raises:
        ValueError: a change is impossible; the message is one line.
    """
    try:
        return TrainingSettings.model_validate(settings.model_dump() | changes)
    except ValidationError as error:
        raise ValueError(in_one_line(error, TrainingSettings)) from error


def snapshot(trainer: Trainer, step: int, ema: bool) -> Path:
    """Where the weights of a step are kept, or their moving average (safetensors, float32)."""
    return trainer.directory / f"{step:06d}-{'ema' if ema else 'raw'}.safetensors"


def run_name(images: Tensor, settings: TrainingSettings, snapshots: Collection[int]) -> str:
    """A short name that stands for the settings, the images and the steps that are kept."""
    digest = hashlib.sha256(f"{settings.model_dump_json()} {sorted(snapshots)}".encode())
    digest.update(images.contiguous().numpy().data)
    return f"training-{digest.hexdigest()[:12]}"


def _write(network: nn.Module, path: Path) -> None:
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    files.write(path, safetensors.torch.save(state))
