"""What a run tells TensorBoard."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from models.images import Pixels

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from models.training.trainer import Trainer

EVERY = 20  # steps between two points of a curve


class Events:
    """Scalars and sample grids of a run; nothing happens where tensorboard is not installed.

    Args:
        directory: where they are written.
        step: the step that the run continues after; what an earlier process wrote beyond it is superseded.
    """

    def __init__(self, directory: Path, step: int) -> None:
        self._writer: SummaryWriter | None = None
        self._last = (step, 0.0)
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils import tensorboard  # noqa: PLC0415 (only the extra `train` brings what it needs)

            self._writer = tensorboard.SummaryWriter(directory, purge_step=step + 1)

    def step(self, trainer: "Trainer") -> None:
        """A step is done: every now and then, the mean loss, the learning rate and the speed since the last point."""
        if self._writer is None or trainer.step % EVERY:
            return
        (step, seconds), self._last = self._last, (trainer.step, trainer.seconds)
        losses = trainer.losses[-EVERY:]
        rate = trainer.settings.learning_rate * trainer.settings.rate_factor(trainer.step - 1, trainer.steps)
        self._writer.add_scalar("loss", sum(losses) / len(losses), trainer.step)
        self._writer.add_scalar("learning_rate", rate, trainer.step)
        if seconds:
            speed = (trainer.step - step) * trainer.batch / (trainer.seconds - seconds)
            self._writer.add_scalar("images_per_second", speed, trainer.step)

    def grid(self, picture: Pixels, step: int) -> None:
        """A grid of samples, uint8 [h, w, c]."""
        if self._writer is not None and picture.shape[2] != 2:  # two channels are no colours
            self._writer.add_image("samples", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Writes what is left."""
        if self._writer is not None:
            self._writer.close()
