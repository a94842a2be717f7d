"""Training: how long a step takes, and whether a run that goes on comes to the same weights."""

import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.findings import Findings
from models.training import presets
from models.training.execution import StepExecution
from models.training.settings import TrainingSettings
from models.training.trainer import LOOK, Trainer

SMALL = {"channels": [16], "blocks": [1], "attention": [True], "head_channels": 16, "embedding": 16, "groups": 4}


def training(found: Findings) -> dict[str, Any]:
    """A step of the preset for CIFAR-10 in all ways to run it, and a run that is interrupted."""
    network = {**presets.load("cifar10-large").training.network, "dropout": 0.0}
    size, side, batch = 4, 32, 128
    if found.small:
        network, size, side, batch = SMALL, 2, 8, 4
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (size * batch, 3, side, side), dtype=torch.uint8, generator=random)
    steps: dict[str, dict[str, Any]] = {}
    for precision in ("float32", "bfloat16"):
        for layout in ("contiguous", "channels_last"):
            for compiled in (False, True) if layout == "channels_last" and not found.small else (False,):
                execution = StepExecution(layout=layout, precision=precision)  # type: ignore[arg-type]
                settings = TrainingSettings(
                    network=network,
                    batch=batch,
                    epochs=2 if found.small else 10,
                    execution=execution,
                    compile=compiled,
                    warmup_steps=1,
                )
                name = f"{execution}{' compiled' if compiled else ''}"
                try:
                    milliseconds = 1e3 * _seconds(found, images, settings)
                except Exception as error:  # no compiler, or whatever it throws
                    steps[name] = {"failed": str(error)[:300]}
                    print(name, steps[name], flush=True)
                    continue
                steps[name] = {"milliseconds": milliseconds, "images_per_second": 1e3 * batch / milliseconds}
                print(name, steps[name], flush=True)
    epochs = 2 * LOOK // size if found.cuda else 2  # it listens to who stops it only now and then
    settings = TrainingSettings(network=network, batch=batch, epochs=epochs, execution=StepExecution(), warmup_steps=1)
    whole, resumed = (_weights(found, images, settings, interrupted) for interrupted in (False, True))
    found.check("training that is interrupted comes to the same weights", torch.equal(whole, resumed))
    return {"batch": batch, "steps": steps}


def _seconds(found: Findings, images: Tensor, settings: TrainingSettings) -> float:
    """A step's, in the second half of a run."""
    with tempfile.TemporaryDirectory() as directory:
        trainer, marks = Trainer(images, settings, Path(directory), str(found.device)), list[float]()

        def mark(_trainer: Trainer, _loss: Tensor) -> None:
            found.wait()
            marks.append(time.perf_counter())

        trainer.train(mark)
    marks = marks[len(marks) // 2 - 1 :]
    return median(later - earlier for earlier, later in pairwise(marks))


def _weights(found: Findings, images: Tensor, settings: TrainingSettings, interrupted: bool) -> Tensor:
    """All weights at the end of a run; one that is interrupted goes on from its checkpoint."""
    with tempfile.TemporaryDirectory() as directory:
        place, device = Path(directory), str(found.device)
        trainer = Trainer(images, settings, place, device)
        if interrupted:
            trainer.train(_nothing, lambda: trainer.step >= 1)
            trainer.save()
            trainer = Trainer(images, settings, place, device)
            trainer.resume()
        trainer.train(_nothing)
        return torch.cat([p.detach().flatten().cpu() for p in trainer.network.parameters()])


def _nothing(_trainer: Trainer, _loss: Tensor) -> None:
    return None
