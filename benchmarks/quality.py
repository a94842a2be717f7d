"""How good samples are, by sampler: what a digit classifier recognises, how evenly the classes come, how far from real.

The share recognised alone misleads: the classifier never saw noise and calls a noisy scribble an 8 with p > 0.9. So it
stands beside the Frechet distance between the classifier's features of the samples and of the real test digits (the
formula of FID, on another network: not to be compared with any FID), whose floor is that of as many real digits.

`python -m benchmarks.quality --data DIR` judges the model's default sampler and heun with 18 levels; `--sampler` takes
others, `--sweep` a grid of them, to find the fewest image-steps at which quality stops improving.
"""

import argparse
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from benchmarks import classifier, report
from models.card import ModelCard
from models.images import Pixels, grid, to_png
from models.sampling.plan import plan
from models.sampling.sample import sample
from models.sampling.settings import AnnealedLangevin, Heun, SamplerSettings
from models.sampling.tables import Table
from models.score import ScoreModel
from models.store import ZOO, ModelStore
from models.training.formats.idx import load_mnist

LEVELS_AND_STEPS = (20, 1), (20, 2), (30, 2), (40, 1), (40, 2), (40, 3), (60, 1), (60, 2), (90, 1), (90, 2), (90, 3)
HEUN_LEVELS = 10, 14, 18, 25
COLUMNS = "sampler", "evaluations", "distance", "recognised", "smallest class", "largest class", "image-steps/s"
SLOTS = 64


@dataclass(frozen=True)
class Figures:
    """What the classifier makes of images, one figure a field.

    Args:
        recognised: share with a probability above classifier.CONFIDENT.
        standard_error: of that share, from the number of images.
        classes: share of each digit among all images, by the largest probability.
        distance: Frechet distance of their features to those of the real test digits.
    """

    recognised: float
    standard_error: float
    classes: list[float]
    distance: float

    @classmethod
    def of(cls, pixels: Pixels, judges: classifier.Classifier, real: NDArray[np.float32]) -> "Figures":
        """From images [n, 28, 28, 1] and the features [m, f] of the real test digits."""
        probabilities, n = judges.probabilities(pixels), len(pixels)
        share = float((probabilities.max(1) > classifier.CONFIDENT).mean())
        counts = np.bincount(probabilities.argmax(1), minlength=10)
        error, distance = math.sqrt(share * (1 - share) / n), frechet(judges.features(pixels), real)
        return cls(share, error, (counts / n).tolist(), distance)

    def cells(self) -> list[str]:
        """Four cells of the table."""
        low, high = int(np.argmin(self.classes)), int(np.argmax(self.classes))
        return [
            f"{self.distance:.3f}",
            f"{self.recognised:.1%} ± {self.standard_error:.1%}",
            f"{self.classes[low]:.1%} (digit {low})",
            f"{self.classes[high]:.1%} (digit {high})",
        ]


def frechet(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Frechet distance between normal distributions fitted to [n, f] and [m, f] (Heusel 2017, eq. 6).

    |mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2), A and B the covariances.
    """
    cov_a, cov_b = np.cov(a.T, dtype=np.float64), np.cov(b.T, dtype=np.float64)
    values, vectors = np.linalg.eigh(cov_a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    difference = a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)
    return float(difference @ difference + np.trace(cov_a) + np.trace(cov_b) - 2 * overlap)


@dataclass(frozen=True)
class Planned:
    """A sampler setting that is to be judged: its name in the table, complete settings, and rows."""

    label: str
    settings: SamplerSettings
    table: Table


def planned(wanted: SamplerSettings | None, card: ModelCard) -> Planned:
    """A setting completed from the card (None: the card's own).

    Raises:
        SamplerRefused: the model cannot follow it.
    """
    settings, table = plan(wanted, card)
    asked = (wanted or card.sampler).model_dump(exclude_none=True)
    always = ("levels", "steps_per_level", "steps", "sigma", "sigma_max", "sigma_min")
    shown = {k: v for k, v in settings.model_dump(exclude={"name"}).items() if k in always or k in asked}
    if {"sigma_max", "sigma_min"} <= shown.keys():
        shown["sigma"] = f"{shown.pop('sigma_max'):g}..{shown.pop('sigma_min'):g}"
    details = " ".join(f"{k}={v}" if isinstance(v, str) else f"{k}={v:g}" for k, v in shown.items())
    return Planned(f"{settings.name} {details}", settings, table)


def sweep(card: ModelCard) -> list[SamplerSettings]:
    """A grid of annealed Langevin schedules over both ends of the noise range, and heun with few levels and many."""
    grid_of_levels: list[SamplerSettings] = [
        AnnealedLangevin(levels=levels, steps_per_level=steps, sigma_max=sigma_max, sigma_min=sigma_min)
        for sigma_max in (card.sigma_max, card.sigma_max / 2)
        for sigma_min in (card.sigma_min, card.sigma_min * 2)
        for levels, steps in LEVELS_AND_STEPS
    ]
    return [*grid_of_levels, *(Heun(name="heun", levels=levels) for levels in HEUN_LEVELS)]


def judge(
    model: ScoreModel, judged: Planned, judge_of: Callable[[Pixels], Figures], count: int, seed: int
) -> tuple[Pixels, dict[str, Any], list[str]]:
    """Draws `count` samples; returns them [count, h, w, c], their figures, and their row of the table."""
    start = time.perf_counter()
    pixels = sample(model, judged.table, count, seed, slots=SLOTS)
    seconds = time.perf_counter() - start
    found, speed = judge_of(pixels), count * len(judged.table) / seconds
    figures = {
        "sampler": judged.settings.model_dump(),
        "evaluations": len(judged.table),
        **asdict(found),
        "seconds": round(seconds, 2),
        "image_steps_per_second": round(speed, 1),
    }
    return pixels, figures, [judged.label, str(len(judged.table)), *found.cells(), f"{speed:.0f}"]


def save_grid(directory: Path, label: str, pixels: Pixels) -> None:
    """The first 64 images as a PNG named after their sampler."""
    directory.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9_.]+", "-", label.lower())
    (directory / f"{name}.png").write_bytes(to_png(grid(pixels[:64], columns=8, scale=2)))


def run(arguments: argparse.Namespace) -> None:
    """Judges every setting asked for; prints a line after each, then the table."""
    console, machine = report.console(), report.environment()
    store = ModelStore(arguments.models_dir)
    card = store.card(arguments.model)
    queue = [planned(wanted, card) for wanted in _wanted(arguments, card)]
    judges = classifier.load(arguments.data)
    test, train = (_pixels(arguments.data, part) for part in ("t10k", "train"))
    features = judges.features(test)

    def judge_of(pixels: Pixels) -> Figures:
        return Figures.of(pixels, judges, features)

    real = {"real test digits": judge_of(test), "as many real training digits": judge_of(train[: arguments.count])}
    figures: dict[str, Any] = {
        "environment": machine,
        "model": card.model_dump(mode="json", include={"name", "version", "weights_sha256"}),
        "count": arguments.count,
        "seed": arguments.seed,
        "classifier": {"test_accuracy": judges.test.accuracy, "confident": classifier.CONFIDENT},
        "real": {label: asdict(found) for label, found in real.items()},
        "samplers": [],
    }
    console.print(
        f"{card.name} version {card.version}, {arguments.count} samples of each setting, {len(queue)} settings"
    )
    console.print(report.describe(machine))
    console.print(f"the classifier names {judges.test.accuracy:.2%} of the real test digits rightly")
    model = ScoreModel.load(store, card)
    rows = []
    for judged in queue:
        pixels, result, row = judge(model, judged, judge_of, arguments.count, arguments.seed)
        rows.append(row)
        figures["samplers"].append(result)
        console.print(f"  {' | '.join(row)}")
        if arguments.grids:
            save_grid(arguments.grids, judged.label, pixels)
        if arguments.json:  # after each, so that an interrupted sweep keeps what it found
            report.write_json(arguments.json, figures)
    rows += [[label, "", *found.cells(), ""] for label, found in real.items()]
    console.print(report.table(COLUMNS, rows))
    if arguments.into_card:
        into_card(store, card, figures)


def into_card(store: ModelStore, card: ModelCard, figures: dict[str, Any]) -> None:
    """Writes what was found into the model's card, as metrics.quality."""
    names = "sampler", "evaluations", "recognised", "classes", "distance"
    quality = {
        "what": "share of samples that a digit classifier gives a probability above 0.9, and the share of each digit",
        "command": figures["environment"]["command"],
        "count": figures["count"],
        "seed": figures["seed"],
        "classifier_test_accuracy": figures["classifier"]["test_accuracy"],
        "real": figures["real"],
        "samplers": [{name: result[name] for name in names} for result in figures["samplers"]],
    }
    path = store.path(card.name, card.version) / "card.json"
    updated = card.model_copy(update={"metrics": {**card.metrics, "quality": quality}})
    path.write_text(updated.model_dump_json(indent=2) + "\n")


def _pixels(data: Path, part: str) -> Pixels:
    return load_mnist(data, part)[0].permute(0, 2, 3, 1).numpy()


def _wanted(arguments: argparse.Namespace, card: ModelCard) -> Sequence[SamplerSettings | None]:
    if arguments.sweep:
        return [*arguments.sampler, *sweep(card)]
    return arguments.sampler or [None, Heun(name="heun", levels=18)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory of the MNIST idx files")
    parser.add_argument("--model", default="mnist")
    parser.add_argument("--models-dir", type=Path, default=ZOO, help="by default the models that ship with scoreserve")
    parser.add_argument("--count", type=int, default=1000, help="samples of each setting")
    parser.add_argument("--seed", type=int, default=0)
    settings = TypeAdapter(SamplerSettings).validate_json
    parser.add_argument("--sampler", type=settings, action="append", default=[], metavar="JSON", help="may be repeated")
    parser.add_argument("--sweep", action="store_true", help="a grid of annealed_langevin settings, and of heun")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--into-card", action="store_true", help="write the figures into the model's card")
    parser.add_argument("--grids", type=Path, help="write 64 samples of each setting as a PNG into this directory")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
