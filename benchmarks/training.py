"""How fast training is: images/s of the Trainer against the plain textbook loop, a step of each in turn.

Both train the same network from the same weights, with Adam, EMA and gradient clipping. The Trainer runs a step as it
finds fastest by measurement, and keeps three averages. The textbook loop is what a paper's code does: float32, shuffled
batches, noise from torch.randn, an EMA written by hand, `loss.item()` each step.

`python -m benchmarks.training --steps 100`; every figure is the median over the steps.
"""

import argparse
import copy
import itertools
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import report
from models.environment import describe
from models.files import write_json
from models.training import presets
from models.training.settings import TrainingSettings
from models.training.trainer import Trainer

IMAGES = 4096
WARM = 3  # steps that are not counted


class Textbook:
    """Denoising score matching as a paper's code does it, with the preconditioning and the weight of Karras 2022."""

    def __init__(self, trainer: Trainer) -> None:
        self.images, self.settings, self.device = trainer.images, trainer.settings, trainer.device
        self.mean, self.std = trainer.spec.data_mean, trainer.spec.data_std or 1.0
        self.network: nn.Module = copy.deepcopy(trainer.network).train()
        self.average = copy.deepcopy(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), self.settings.learning_rate, betas=(0.9, 0.99))
        self._batches = self._shuffled()

    def _shuffled(self) -> Iterator[Tensor]:
        while True:
            order = torch.randperm(len(self.images))
            for start in range(0, len(order) - self.settings.batch + 1, self.settings.batch):
                yield self.images[order[start : start + self.settings.batch]]

    def train(self, steps: int) -> None:
        s = self.settings
        for batch in itertools.islice(self._batches, steps):
            x = batch.to(self.device).float() / 255 - self.mean
            sigma = torch.exp(s.log_sigma_mean + s.log_sigma_std * torch.randn(len(x), device=self.device))
            level = sigma[:, None, None, None]
            noisy = x + level * torch.randn_like(x)
            total = level**2 + self.std**2
            output = self.network(noisy / total.sqrt(), self.network.condition(sigma.log() / 4))  # type: ignore[operator]
            denoised = self.std**2 / total * noisy + level * self.std / total.sqrt() * output
            loss = (total / (level * self.std) ** 2 * (denoised - x) ** 2).mean()
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), s.clip_norm)
            self.optimizer.step()
            with torch.no_grad():
                for mine, theirs in zip(self.average.parameters(), self.network.parameters(), strict=True):
                    mine.mul_(s.ema_decay).add_(theirs, alpha=1 - s.ema_decay)
            if not math.isfinite(loss.item()):
                raise RuntimeError("the textbook loop diverged: its time means nothing")


def trainer_of(preset: str, batch: int, steps: int, device: str, directory: Path) -> Trainer:
    """A Trainer of a preset's network on noise, which is as slow as pictures, that ends after `steps`."""
    loaded = presets.load(preset)
    images = torch.randint(0, 256, (IMAGES, *loaded.image.chw), dtype=torch.uint8)
    wanted = {"batch": batch, "epochs": steps * batch / IMAGES, "optimizer": "adam", "classes": False}
    settings = TrainingSettings.model_validate(loaded.training.model_dump() | wanted)
    trainer = Trainer(images, settings, directory, device)
    trainer.choose_execution()
    return trainer


def measure(preset: str, batch: int, steps: int, device: str) -> dict[str, Any]:
    """Images/s of both over `steps` pairs of steps, one of the Trainer and one of the textbook loop in turn."""
    pairs: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as directory:
        trainer = trainer_of(preset, batch, WARM + steps, device, Path(directory))
        textbook = Textbook(trainer)
        last = now()

        def after_step(*_: object) -> None:
            nonlocal last
            between = now()
            textbook.train(1)
            end = now()
            pairs.append((between - last, end - between))
            last = now()

        trainer.train(after_step)
    if trainer.step != WARM + steps:
        raise RuntimeError(f"the Trainer made {trainer.step} steps, {WARM + steps} were to be timed")
    pairs = pairs[WARM:]
    return {
        "execution": str(trainer.execution),
        "trainer_images_per_second": _figures([batch / a for a, _ in pairs]),
        "textbook_images_per_second": _figures([batch / b for _, b in pairs]),
        "speed_ratio_to_textbook": _figures([b / a for a, b in pairs]),
    }


def now() -> float:
    """The time when all that the device was given is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _figures(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "lowest": min(values), "highest": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--preset", default="mnist", help="whose network is trained")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100, help="steps of each of the two")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    machine, console = report.environment(), report.console()
    settings = {name: getattr(arguments, name) for name in ("preset", "batch", "steps", "device")}
    figures = {"environment": machine, **settings, **measure(**settings)}
    rows = [
        [label, *(f"{figures[name][part]:{form}}" for part in ("median", "lowest", "highest"))]
        for label, name, form in (
            ("Trainer, images/s", "trainer_images_per_second", ".0f"),
            ("textbook loop, images/s", "textbook_images_per_second", ".0f"),
            ("speed, Trainer / textbook loop", "speed_ratio_to_textbook", ".3f"),
        )
    ]
    console.print(describe(machine))
    console.print(f"the Trainer's step: {figures['execution']}")
    console.print(report.table([f"{arguments.preset}, batch {arguments.batch}", "median", "lowest", "highest"], rows))
    if arguments.json:
        write_json(arguments.json, figures)


if __name__ == "__main__":
    main()
