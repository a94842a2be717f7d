"""Networks that a study trains for itself, kept so that a study that was interrupted goes on."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from models.training.trainer import Trainer, TrainingSettings

SAVE_EVERY = 200  # steps


def trained(
    images: Tensor,
    settings: TrainingSettings,
    directory: Path,
    device: str,
    on_step: Callable[[Trainer], None],
) -> Trainer:
    """A trainer at its last step: of the run in `directory` that has the same settings and images, or of a new one.

    Args:
        images: uint8 [n, c, h, w].
        settings: how to train.
        directory: of all networks of a study; each has a directory in it, named after its settings and images.
        device: torch device name.
        on_step: called after every step, and once for a run that was finished before.

    Raises:
        OSError: the directory cannot be written to.
        TypeError, ValueError: the settings do not fit the network.
        RuntimeError: there is no such device, or the loss became infinite.
    """
    run = directory / run_name(images, settings)
    run.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(images, settings, run, device)
    trainer.resume()

    def after_step(trainer: Trainer, _loss: float) -> None:
        if trainer.step % SAVE_EVERY == 0:
            trainer.save()
        on_step(trainer)

    if trainer.step < trainer.steps:
        trainer.train(after_step)
        trainer.save()
    else:
        on_step(trainer)
    return trainer


def run_name(images: Tensor, settings: TrainingSettings) -> str:
    """A short name that stands for the settings and the images."""
    digest = hashlib.sha256(settings.model_dump_json().encode())
    digest.update(images.contiguous().numpy().data)
    return f"training-{digest.hexdigest()[:12]}"
