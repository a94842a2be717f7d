"""Hyper-parameter insensitive? Annealed Langevin dynamics of one model, its parameters changed one at a time.

The step size is told as a factor of the one that technique 4 of Song & Ermon 2020 computes from the other parameters:
so it can be wrong by as much at every one of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.evaluation.bench import Progress
from models.evaluation.figures import Figures
from models.evaluation.samples import Samples, key
from models.evaluation.settings import Setting, setting
from models.labels import classes_in_turn
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.sampler import SamplerRefused
from models.score import ScoreModel
from models.store import ModelStore
from models.study.judge import bench_of, slots_of

SEED = 0


@dataclass(frozen=True)
class Point:
    """Four parameters of annealed Langevin dynamics.

    Args:
        step_factor: the step size, in parts of that of technique 4.
        steps: at each level (T).
        levels: how many noise levels (L).
        sigma_max: the first of them (sigma_1), in units of pixels in [0, 1].
    """

    step_factor: float = 1.0
    steps: int = 5
    levels: int = 20
    sigma_max: float = 5.0


BASE = Point()
STEP_FACTORS, STEPS = (0.25, 0.5, 1.0, 2.0, 3.0), (1, 2, 5, 10)
LEVELS, SIGMAS = (5, 10, 20, 40), (0.5, 1.0, 2.0, 5.0, 10.0)

# Each parameter by its name in Point, and the points along which it alone changes.
LINES: dict[str, list[Point]] = {
    "step_factor": [Point(step_factor=factor) for factor in STEP_FACTORS],
    "steps": [Point(steps=steps) for steps in STEPS],
    "levels": [Point(levels=levels) for levels in LEVELS],
    "sigma_max": [Point(sigma_max=sigma) for sigma in SIGMAS],
}
PLANE = [Point(step_factor=factor, steps=steps) for steps in STEPS for factor in STEP_FACTORS]


@dataclass(frozen=True)
class Judged:
    """A point that was sampled.

    Args:
        point: which.
        step_size: epsilon.
        evaluations: of the network, for each image.
        figures: what the classifier makes of the samples.
    """

    point: Point
    step_size: float
    evaluations: int
    figures: Figures


@dataclass(frozen=True)
class Found:
    """All points that the model can follow, why it cannot follow the others, and as many real training images."""

    model: str
    samples: int
    judged: dict[Point, Judged]
    refused: dict[Point, str]
    floor: Figures

    def line(self, parameter: str) -> list[Judged]:
        """The points along which one parameter changes."""
        return [self.judged[point] for point in LINES[parameter] if point in self.judged]

    def plane(self, steps: int) -> list[Judged]:
        """The points of a number of steps a level, by their step size."""
        return [self.judged[point] for point in PLANE if point.steps == steps and point in self.judged]


def study(
    model: str, store: Path, data: Path, samples: int, directory: Path, cache: Path, device: str, on_progress: Progress
) -> Found:
    """Samples and judges every point. What is in `directory` from an earlier run is not drawn again.

    Args:
        model: name of a model; its newest version.
        store: directory of the model store.
        data: a labelled data set of the model's shape.
        samples: images of each point.
        directory: where samples are kept.
        cache: directory that keeps classifiers.
        device: torch device name.
        on_progress: told of every step.

    Raises:
        ModelNotFound, BrokenModel, DataError, OSError, ValueError, RuntimeError: with one clear line.
    """
    models = ModelStore(store)
    card = models.card(model)
    planned: dict[Point, Setting] = {}
    refused: dict[Point, str] = {}
    for point in dict.fromkeys([*(p for line in LINES.values() for p in line), *PLANE]):
        try:
            first = setting(wanted(point, None), card)
            size = step_size(first) * point.step_factor
            planned[point] = first if point.step_factor == 1 else setting(wanted(point, size), card)
        except SamplerRefused as error:
            refused[point] = str(error)
    if not planned:
        raise ValueError(f"{card.name} can follow none of these settings: {next(iter(refused.values()))}")
    network = ScoreModel.load(models, card, device)
    _, bench = bench_of(data, card.image, cache, device, on_progress)
    labels = classes_in_turn(card)
    judged = {}
    total = samples * sum(len(s.table) for s in planned.values())
    done = 0
    for point, chosen in planned.items():
        kept = Samples(directory / "samples" / key(card.weights_sha256, chosen.table, SEED, labels))
        before = done + min(kept.count(), samples) * len(chosen.table)

        def drawing(steps: int, before: int = before) -> None:
            on_progress(f"sampling {card.name}", before + steps, total)

        kept.draw(network, chosen.table, SEED, samples, slots_of(device), drawing, labels)
        done += samples * len(chosen.table)
        figures = bench.figures(kept.read(samples).pixels)
        judged[point] = Judged(point, step_size(chosen), len(chosen.table), figures)
        on_progress(f"sampling {card.name}", done, total)
    return Found(f"{card.name} version {card.version}", samples, judged, refused, bench.floor(samples).figures)


def wanted(point: Point, step_size: float | None) -> AnnealedLangevin:
    """The settings of a point; without a step size, that of technique 4 is computed. The rest is the card's."""
    return AnnealedLangevin(
        levels=point.levels, steps_per_level=point.steps, sigma_max=point.sigma_max, step_size=step_size
    )


def step_size(chosen: Setting) -> float:
    """The step size of a complete setting of annealed Langevin dynamics."""
    assert isinstance(chosen.sampler, AnnealedLangevin)
    assert chosen.sampler.step_size is not None
    return chosen.sampler.step_size


def diversity(classes: Sequence[float]) -> float:
    """How many classes there are, as it were, by their shares: e to the power of the entropy. k equal ones are k."""
    return math.exp(-sum(share * math.log(share) for share in classes if share > 0))


def extremes(line: Sequence[Judged]) -> tuple[Judged, Judged]:
    """Of a line, the points of the smallest and the largest distance."""
    ordered = sorted(line, key=lambda j: j.figures.distance)
    return ordered[0], ordered[-1]
