"""Reproducible? One small network trained again and again from other seeds, and judged all along its training.

The original code of NCSN trains at a constant rate, samples from the weights of the last step, and stops at the last
Langevin step. NCSNv2 (Song & Ermon 2020) samples from a moving average of the weights (technique 5), and adds a last
denoising. Each of the two is here switched on and off.
"""

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from models import files
from models.evaluation.bench import Bench, Progress
from models.evaluation.figures import Figures
from models.evaluation.samples import key
from models.images import Pixels
from models.plan import plan
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.table import Table
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.sample import run, to_pixels
from models.score import ScoreModel, build_network
from models.study.judge import bench_of, slots_of
from models.study.training import changed, snapshot, trained
from models.training import presets
from models.training.publish import draft, image_shape
from models.training.settings import TrainingSettings
from models.training.trainer import Trainer

Values = NDArray[np.float64]

PRESET = "mnist-guide"  # whose network is trained
SIGMA_MAX, SIGMA_MIN = 5.0, 0.01  # a start large enough for MNIST, and the last level of Song & Ermon 2019


@dataclass(frozen=True)
class Variant:
    """What is sampled from, and whether the last noise is removed."""

    ema: bool
    denoise: bool

    @property
    def label(self) -> str:
        return f"{'moving average' if self.ema else 'last weights'}, {'denoised' if self.denoise else 'not denoised'}"


VARIANTS = tuple(Variant(ema, denoise) for ema in (False, True) for denoise in (False, True))


@dataclass(frozen=True)
class Judged:
    """Samples of one variant, at one step of one training, from one seed, and what the classifier makes of them."""

    variant: Variant
    training_seed: int
    step: int
    sampling_seed: int
    figures: Figures


@dataclass(frozen=True)
class Spread:
    """What one variant comes to, in Frechet distance where nothing else is said.

    Args:
        distance, recognised: means over all seeds at the last step.
        training: standard deviation over training seeds, of means over sampling seeds.
        sampling: standard deviation over sampling seeds.
        checkpoints: mean absolute change of a training's mean from one checkpoint to the next.
    """

    distance: float
    recognised: float
    training: float
    sampling: float
    checkpoints: float


@dataclass(frozen=True)
class Found:
    """All that was judged, and the same figures of as many real training images."""

    judged: list[Judged]
    floor: Figures
    accuracy: float

    @property
    def steps(self) -> list[int]:
        """The checkpoints, ascending."""
        return sorted({j.step for j in self.judged})

    def values(self, variant: Variant, figure: str) -> Values:
        """One of the figures, by its name: [training seeds, checkpoints, sampling seeds]."""
        chosen = sorted(
            (j for j in self.judged if j.variant == variant), key=lambda j: (j.training_seed, j.step, j.sampling_seed)
        )
        seeds = len({j.training_seed for j in chosen})
        return np.array([getattr(j.figures, figure) for j in chosen]).reshape(seeds, len(self.steps), -1)

    def spread(self, variant: Variant) -> Spread:
        """How good a variant is at the end, and how far its distance moves with what should not matter.

        Spreads are those of the second half of the checkpoints (as root mean squares), when most has been learnt.
        """
        distances, recognised = self.values(variant, "distance"), self.values(variant, "recognised")
        late = distances[:, distances.shape[1] // 2 :]
        means = late.mean(2)
        return Spread(
            distance=float(distances[:, -1].mean()),
            recognised=float(recognised[:, -1].mean()),
            training=_deviation(means, 0),
            sampling=_deviation(late, 2),
            checkpoints=float(np.abs(np.diff(means, axis=1)).mean()) if means.shape[1] > 1 else math.nan,
        )


@dataclass(frozen=True)
class Reproduction:
    """How much is trained, and how much is drawn.

    Args:
        seeds: trainings, each from its own seed.
        epochs: passes over the data of each.
        checkpoints: how often in its course it is judged, at even distances.
        samples: images of each variant, checkpoint and sampling seed.
        sampling_seeds: how often they are drawn.
        levels, steps_per_level: of annealed Langevin dynamics.
    """

    seeds: int
    epochs: float
    checkpoints: int
    samples: int
    sampling_seeds: int
    levels: int
    steps_per_level: int

    def study(self, data: Path, directory: Path, cache: Path, device: str, on_progress: Progress) -> Found:
        """Trains, draws and judges. What is in `directory` from an earlier run is not done again.

        Args:
            data: a labelled data set of MNIST's shape.
            directory: where networks and samples are kept.
            cache: directory that keeps classifiers.
            device: torch device name.
            on_progress: told of every step.

        Raises:
            DataError, OSError, ValueError, RuntimeError: with one clear line.
        """
        labelled, bench = bench_of(data, presets.load(PRESET).image, cache, device, on_progress)
        judged = []
        for seed in range(self.seeds):
            what, settings = f"training {seed + 1} of {self.seeds}", self.settings(seed)
            steps = self.steps(len(labelled.train.images), settings)
            trainer = trained(
                labelled.train.images,
                settings,
                directory,
                device,
                lambda t, what=what: on_progress(what, t.step, t.steps),  # type: ignore[misc]
                snapshots=steps,
            )
            judged += self._judged(trainer, steps, bench, directory, on_progress)
        return Found(judged, bench.floor(self.samples).figures, bench.classifier.test.accuracy)

    def settings(self, seed: int) -> TrainingSettings:
        """The preset's network, trained as the original code does: Adam at a constant rate of 0.001."""
        original = {"optimizer": "adam", "learning_rate": 1e-3, "decay": "constant", "warmup_steps": 0}
        return changed(presets.load(PRESET).training, **original, epochs=self.epochs, seed=seed)

    def steps(self, images: int, settings: TrainingSettings) -> list[int]:
        """The steps that are judged.

        Raises:
            ValueError: there are more of them than the training has.
        """
        whole = max(1, round(settings.epochs * max(1, images // settings.batch)))
        if whole < self.checkpoints:
            raise ValueError(f"a training of {whole} steps has no {self.checkpoints} checkpoints: train longer")
        return [whole * (i + 1) // self.checkpoints for i in range(self.checkpoints)]

    def _judged(
        self, trainer: Trainer, steps: list[int], bench: Bench, directory: Path, on_progress: Progress
    ) -> list[Judged]:
        """All variants at all checkpoints of a training."""
        wanted = AnnealedLangevin(
            levels=self.levels,
            steps_per_level=self.steps_per_level,
            sigma_max=SIGMA_MAX,
            sigma_min=SIGMA_MIN,
            denoise=False,
        )
        _, table = plan(wanted, draft(trainer, presets.load(PRESET).model))
        seed = trainer.settings.seed
        total = len(steps) * 2 * self.sampling_seeds * self.samples * len(table)
        done, judged = 0, []
        for step in steps:
            for ema in (False, True):
                weights = snapshot(trainer, step, ema).read_bytes()
                for sampling_seed in range(self.sampling_seeds):
                    before = done

                    def drawing(image_steps: int, before: int = before) -> None:
                        on_progress(f"samples of training {seed + 1}", before + image_steps, total)

                    pair = self._drawn(trainer, weights, table, sampling_seed, directory, drawing)
                    done += self.samples * len(table)
                    drawing(self.samples * len(table))
                    judged += [
                        Judged(Variant(ema, denoise), seed, step, sampling_seed, bench.figures(pixels))
                        for denoise, pixels in zip((False, True), pair, strict=True)
                    ]
        return judged

    def _drawn(
        self,
        trainer: Trainer,
        weights: bytes,
        table: Table,
        seed: int,
        directory: Path,
        on_step: Callable[[int], None],
    ) -> tuple[Pixels, Pixels]:
        """Samples [n, h, w, c] without the last denoising and with it, of the same chains; kept in a file."""
        name = key(hashlib.sha256(weights).hexdigest(), table, seed)
        path = directory / "samples" / f"{name}-{self.samples}.npz"
        if not path.exists():
            model = model_of(trainer, weights)
            pair = draw(model, table, self.samples, seed, slots_of(trainer.device.type), on_step)
            file = io.BytesIO()
            np.savez(file, raw=pair[0], denoised=pair[1])
            files.write(path, file.getvalue())
        with np.load(path, allow_pickle=False) as kept:
            return kept["raw"], kept["denoised"]


def model_of(trainer: Trainer, weights: bytes) -> ScoreModel:
    """The score model of a snapshot."""
    network = build_network(trainer.spec)
    network.load_state_dict(safetensors.torch.load(weights))
    return ScoreModel(network, trainer.parametrisation, image_shape(trainer), trainer.device)


def draw(
    model: ScoreModel, table: Table, count: int, seed: int, slots: int, on_step: Callable[[int], None]
) -> tuple[Pixels, Pixels]:
    """`count` samples [n, h, w, c] of a table without a last denoising, as they are, and denoised at its last level."""
    chains = [Chain(table, seed, index) for index in range(count)]
    run(Engine(model, slots), chains, on_step)
    x = torch.stack([chain.x for chain in chains if chain.x is not None])
    sigma = float(table.column("sigma")[-1])
    denoised = torch.cat([model.denoise(part, sigma) for part in torch.split(x, slots)])
    return np.stack([to_pixels(image) for image in x]), np.stack([to_pixels(image) for image in denoised])


def _deviation(values: Values, axis: int) -> float:
    """Root mean square of the standard deviations along an axis; none where that has one entry."""
    return float(np.sqrt(values.var(axis, ddof=1).mean())) if values.shape[axis] > 1 else math.nan
