"""The trivial implementation: a network that is trained at one small noise level, and sampled from there.

It is what Song & Ermon 2019 hold their own against (section 5 and appendix C.1: one level, 0.01, and Langevin
dynamics). Here it stands beside one large level, and beside all levels between the two, and its scores are held against
the exact ones of the noised training images, near to them and far.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F

from models import schedules
from models.evaluation.bench import Bench, Progress
from models.evaluation.distances import evenly
from models.evaluation.figures import Figures
from models.evaluation.samples import Samples, key
from models.images import Pixels
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.follow_scores import FollowScores
from models.samplers.langevin import Langevin
from models.samplers.table import Table
from models.score import ScoreModel
from models.study.digits import exact
from models.study.judge import bench_of, slots_of
from models.study.training import changed, trained
from models.training import presets
from models.training.levels import NoiseLevels
from models.training.publish import ema_model

PRESET = "mnist-guide"  # whose network is trained
POINTS = 128  # training images at which scores are held against the exact ones
SEED = 0
SMALL, LARGE, ALL = "one small level", "one large level", "all levels"


@dataclass(frozen=True)
class Network:
    """A trained network.

    Args:
        name: SMALL, LARGE or ALL.
        sigmas: the levels that it was trained at, descending.
        model: its moving average.
        parameters: how many it has.
        seen: images that it was trained on, with repetitions.
    """

    name: str
    sigmas: list[float]
    model: ScoreModel
    parameters: int
    seen: int

    @property
    def sha256(self) -> str:
        """Of its weights."""
        return hashlib.sha256(safetensors.torch.save(dict(self.model.network.state_dict()))).hexdigest()


@dataclass(frozen=True)
class Asked:
    """How wrong a network's scores are at points at some distance from the training images.

    Args:
        network: its name.
        sigma: the noise level that it is asked for.
        noise: of the points, added to training images; None for uniform noise, where chains begin.
        error: mean |learnt - exact| / |exact|. Of a score of zero it is 1.
        angle: mean angle between the two, in degrees.
    """

    network: str
    sigma: float
    noise: float | None
    error: float
    angle: float


@dataclass(frozen=True)
class Way:
    """One way to samples: a network, a sampler's name and its table."""

    network: str
    sampler: str
    table: Table


@dataclass(frozen=True)
class Drawn:
    """What became of a way: its first images uint8 [n, h, w, c], and what the classifier makes of all of them."""

    way: Way
    pixels: Pixels
    figures: Figures


@dataclass(frozen=True)
class Found:
    """What the study found.

    Args:
        networks: that were trained.
        asked: errors of scores; see `Trivial.errors`.
        norms: root mean square of a number of the score at the points of p_sigma, for each level of the network of all.
        still: numbers of an image that are the same in all training images.
        drawn: samples.
        real: training images, as many as were drawn, of which the first are shown.
        floor: what the classifier makes of them.
        samples: how many were drawn each way.
    """

    networks: list[Network]
    asked: list[Asked]
    norms: dict[float, float]
    still: int
    drawn: list[Drawn]
    real: Pixels
    floor: Figures
    samples: int

    def at(self, network: str, sigma: float, noise: float | None) -> Asked:
        """The error of one network, asked for one level at one distance."""
        return next(a for a in self.asked if (a.network, a.sigma, a.noise) == (network, sigma, noise))


@dataclass(frozen=True)
class Trivial:
    """How much is trained, and how much is drawn.

    Args:
        small, large: the two levels, in units of pixels in [0, 1].
        levels: how many there are from one to the other for the network of all.
        epochs: passes over the data of each network.
        samples: images of each way.
        steps: of annealed Langevin dynamics at each level; at a single level as many as at all of them together.
    """

    small: float
    large: float
    levels: int
    epochs: float
    samples: int
    steps: int

    @property
    def sigmas(self) -> list[float]:
        """All levels, descending."""
        return schedules.geometric(self.large, self.small, self.levels)

    def study(self, data: Path, directory: Path, cache: Path, device: str, on_progress: Progress) -> Found:
        """Trains the three networks, measures their scores, draws and judges.

        What is in `directory` from an earlier run is not done again.

        Args:
            data: a labelled data set of MNIST's shape.
            directory: where networks and samples are kept.
            cache: directory that keeps classifiers.
            device: torch device name.
            on_progress: told of every step.

        Raises:
            DataError, OSError, ValueError, RuntimeError: with one clear line.
        """
        if not 0 < self.small < self.large < math.inf:
            raise ValueError(
                f"the small noise level is {self.small:g} and the large one {self.large:g}; "
                "allowed: finite ones above 0, the small one below the large one"
            )
        labelled, bench = bench_of(data, presets.load(PRESET).image, cache, device, on_progress)
        images = labelled.train.images
        networks = [
            self.network(name, levels, images, directory, device, on_progress)
            for name, levels in (
                (SMALL, NoiseLevels(sigma_max=self.small, sigma_min=self.small, count=1)),
                (LARGE, NoiseLevels(sigma_max=self.large, sigma_min=self.large, count=1)),
                (ALL, NoiseLevels(sigma_max=self.large, sigma_min=self.small, count=self.levels)),
            )
        ]
        real = labelled.train.pixels[evenly(len(images), self.samples)]
        return Found(
            networks=networks,
            asked=self.errors(networks, images, on_progress),
            norms=norms(networks[-1], images),
            still=int((images == images[0]).all(0).sum()),
            drawn=self.drawn(networks, bench, directory, device, on_progress),
            real=real,
            floor=bench.floor(self.samples).figures,
            samples=self.samples,
        )

    def network(
        self, name: str, levels: NoiseLevels, images: Tensor, directory: Path, device: str, on_progress: Progress
    ) -> Network:
        """Trains the preset's network at these levels."""
        settings = changed(presets.load(PRESET).training, levels=levels, epochs=self.epochs)
        what = f"training, {name}"
        trainer = trained(images, settings, directory, device, lambda t: on_progress(what, t.step, t.steps))
        parameters = sum(p.numel() for p in trainer.network.parameters())
        return Network(name, levels.sigmas, ema_model(trainer), parameters, trainer.step * trainer.batch)

    def errors(self, networks: Sequence[Network], images: Tensor, on_progress: Progress) -> list[Asked]:
        """Each network's errors at the level that it is sampled at, at all distances; that of all levels at each level
        where the points have that noise, too."""
        small, large, whole = networks
        there: list[tuple[float | None, Tensor]] = [(sigma, points(images, sigma)) for sigma in self.sigmas]
        there.append((None, points(images, None)))
        found = []
        for done, (noise, x) in enumerate(there):
            asked = [(small, self.small), (large, self.large), (whole, self.small)]
            if noise is not None and noise != self.small:
                asked.append((whole, noise))
            truth = {sigma: exact.score(x, sigma, images) for sigma in {sigma for _, sigma in asked}}
            found += [Asked(n.name, sigma, noise, *compared(n.model, x, sigma, truth[sigma])) for n, sigma in asked]
            on_progress("exact scores", done + 1, len(there))
        return found

    def ways(self) -> list[Way]:
        """All ways to samples, from uniform noise. At a single level each step goes half of the way to the denoised
        image: a Langevin step that long leaves a third more noise than the level's."""
        steps = self.steps * self.levels
        step_size = schedules.langevin_step_size(self.sigmas, self.steps)
        found = []
        for network, sigma in ((SMALL, self.small), (LARGE, self.large)):
            found += [
                Way(network, "following the scores", FollowScores.table(sigma, steps, sigma**2)),
                Way(network, "Langevin", Langevin.table(sigma, steps, sigma**2, denoise=True)),
            ]
        at_small = Langevin.table(self.small, steps, self.small**2, denoise=True)
        annealed = AnnealedLangevin.table(self.sigmas, self.steps, step_size, True, None)
        return [*found, Way(ALL, "Langevin at the small one", at_small), Way(ALL, "annealed Langevin", annealed)]

    def drawn(
        self, networks: Sequence[Network], bench: Bench, directory: Path, device: str, on_progress: Progress
    ) -> list[Drawn]:
        """Samples of each way, judged."""
        by_name = {network.name: network for network in networks}
        found = []
        for way in self.ways():
            network = by_name[way.network]
            kept = Samples(directory / "samples" / key(network.sha256, way.table, SEED))
            what, total = f"{way.sampler}, {way.network}", self.samples * len(way.table)

            def drawing(steps: int, what: str = what, total: int = total) -> None:
                on_progress(what, steps, total)

            kept.draw(network.model, way.table, SEED, self.samples, slots_of(device), drawing)
            pixels = kept.read(self.samples).pixels
            found.append(Drawn(way, pixels, bench.figures(pixels)))
        return found


def points(images: Tensor, noise: float | None) -> Tensor:
    """POINTS training images with noise of a level, or as many of uniform noise, float32 [n, c, h, w]; always the same.

    Args:
        images: uint8 [m, c, h, w].
        noise: its standard deviation; None for points uniform in [0, 1].
    """
    chosen = images[evenly(len(images), min(POINTS, len(images)))].float() / 255
    generator = torch.Generator().manual_seed(SEED)
    if noise is None:
        return torch.rand(chosen.shape, generator=generator)
    return chosen + noise * torch.randn(chosen.shape, generator=generator)


def compared(model: ScoreModel, x: Tensor, sigma: float, truth: Tensor) -> tuple[float, float]:
    """Mean relative error of the scores at x [n, c, h, w], and mean angle to the exact ones, in degrees."""
    learnt, true = model.score(x.to(model.device), sigma).cpu().flatten(1), truth.flatten(1)
    error = (learnt - true).norm(dim=1) / true.norm(dim=1)
    angle = torch.rad2deg(torch.arccos(F.cosine_similarity(learnt, true).clamp(-1, 1)))
    return float(error.mean()), float(angle.mean())


def norms(network: Network, images: Tensor) -> dict[float, float]:
    """Root mean square of a number of the score at points of p_sigma, for each level of the network."""
    return {
        sigma: float((network.model.score(points(images, sigma).to(network.model.device), sigma) ** 2).mean().sqrt())
        for sigma in network.sigmas
    }
