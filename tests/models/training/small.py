"""A run of few steps on few small images, and how to stop it."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.training.settings import TrainingSettings
from models.training.trainer import Trainer

SETTINGS = TrainingSettings(
    network={"channels": [16, 32], "blocks": [1, 1], "attention": [False, True], "embedding": 16, "groups": 4},
    batch=8,
    epochs=2.5,
    warmup_steps=3,
    learning_rate=4e-3,
    ema_decay=0.9,
    seed=4,
)
IMAGES = torch.linspace(0, 255, 36).to(torch.uint8)[:, None, None, None].repeat(1, 1, 8, 8)


class Interrupted(Exception):
    pass


def ignore(_trainer: Trainer, _loss: Tensor) -> None:
    pass


def stop_at(step: int) -> Callable[[Trainer, Tensor], None]:
    def on_step(trainer: Trainer, _loss: Tensor) -> None:
        if trainer.step == step:
            raise Interrupted

    return on_step


def state(trainer: Trainer) -> dict[str, Tensor]:
    averages = {
        f"{decay} {name}": value
        for decay, average in trainer.averages.state_dict().items()
        for name, value in average.items()
    }
    return {**trainer.network.state_dict(), **averages}
