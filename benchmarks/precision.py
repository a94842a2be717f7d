"""Whether training in bfloat16 learns what training in float32 does: the loss over the steps, of both.

Both see the same images with the same noise in the same order, from the same weights. How much losses differ by chance,
a run in float32 of another seed says.

`python -m benchmarks.precision --data DIR`, where DIR holds the MNIST idx files or what else the preset is trained on.
"""

import argparse
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks import report
from models.environment import describe
from models.files import write_json
from models.training import presets
from models.training.data.images import load_data
from models.training.execution import Precision, StepExecution
from models.training.settings import TrainingSettings
from models.training.trainer import Trainer

PARTS = 6  # of the run, whose mean losses are compared


def curve(preset: str, data: Path, batch: int, steps: int, device: str, precision: Precision, seed: int) -> list[float]:
    """The loss of every step of a run."""
    loaded = presets.load(preset)
    found = load_data(data, loaded.image, loaded.training.classes, loaded.model.classes)
    pieces = torch.get_num_threads() if device == "cpu" else 1
    wanted = {
        "batch": batch,
        "epochs": steps * batch / len(found.images),
        "seed": seed,
        "execution": StepExecution(precision=precision, pieces=pieces),
    }
    settings = TrainingSettings.model_validate(loaded.training.model_dump() | wanted)
    with tempfile.TemporaryDirectory() as directory:
        trainer = Trainer(found.images, settings, Path(directory), device, labels=found.labels)
        trainer.train(lambda *_: None)
        return trainer.losses


def compare(preset: str, data: Path, batch: int, steps: int, device: str) -> dict[str, Any]:
    """The curves of float32, of bfloat16, and of float32 with another seed; their means over parts of the run."""
    runs: dict[str, tuple[Precision, int]] = {
        "float32": ("float32", 0),
        "bfloat16": ("bfloat16", 0),
        "float32, another seed": ("float32", 1),
    }
    curves = {name: curve(preset, data, batch, steps, device, *how) for name, how in runs.items()}
    means = {name: [fmean(part) for part in parts(losses)] for name, losses in curves.items()}

    def apart(name: str) -> float:
        return fmean(abs(a / b - 1) for a, b in zip(means[name], means["float32"], strict=True))

    return {
        "mean_losses": means,
        "apart": {name: apart(name) for name in list(runs)[1:]},
        "curves": {name: [round(loss, 5) for loss in losses] for name, losses in curves.items()},
    }


def parts(losses: list[float]) -> list[list[float]]:
    """PARTS stretches of a run, about equally long."""
    ends = [len(losses) * i // PARTS for i in range(PARTS + 1)]
    return [losses[a:b] for a, b in pairwise(ends)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="what the preset is trained on")
    parser.add_argument("--preset", default="mnist-guide", help="what is trained")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=300, help="of each run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    machine, console = report.environment(), report.console()
    settings = {name: getattr(arguments, name) for name in ("preset", "batch", "steps", "device")}
    figures = {"environment": machine, **settings, **compare(data=arguments.data, **settings)}
    columns = [f"steps to {arguments.steps * (i + 1) // PARTS}" for i in range(PARTS)]
    rows = [
        [name, *(f"{mean:.4f}" for mean in means), f"{figures['apart'].get(name, 0):.2%}"]
        for name, means in figures["mean_losses"].items()
    ]
    console.print(describe(machine))
    console.print(report.table(["mean loss", *columns, "apart from float32"], rows))
    if arguments.json:
        write_json(arguments.json, figures)


if __name__ == "__main__":
    main()
