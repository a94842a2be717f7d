"""Two Gaussians in the plane: why scores are learnt, and followed, at many noise levels (Song & Ermon 2019, section 3).

What is reported is in coordinates of the plane, in which a mode has standard deviation 1; what the engine sees is in
units of pixels, where the square from -10 to 10 is that from 0 to 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models import schedules
from models.evaluation.bench import Progress
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.follow_scores import FollowScores
from models.samplers.langevin import Langevin
from models.samplers.table import Table
from models.sampling.chain import Chain, initial
from models.sampling.engine import Engine
from models.sampling.sample import run
from models.score import ScoreModel
from models.study import mixture
from models.study.training import changed, trained
from models.training import presets
from models.training.data.toy import two_gaussians
from models.training.levels import NoiseLevels
from models.training.publish import ema_model
from models.training.settings import TrainingSettings

SMALL, LARGE = 0.2 / mixture.UNIT, 5.0 / mixture.UNIT  # sigmas in units of pixels
SQUARE = 8.0  # errors are looked at from -SQUARE to SQUARE, as in Figure 2 of the paper
SIDE = 81  # points along a side of the square
ASTRAY = math.cos(math.radians(45))
FAR = 4.0  # from its mode, a point of the mixture is farther than this once in 3000 times

STEPS = 1000  # of every chain
STEP_SIZE = 0.1 / mixture.UNIT**2  # that of Figure 3 of the paper, 0.1 in coordinates
LEVELS = schedules.geometric(1.0, SMALL, 10)  # from 20 to 0.2 in coordinates
SEED = 0


@dataclass(frozen=True)
class ScoreMap:
    """What a network has learnt of the score of p_sigma, on the points of `square()`.

    Args:
        network: which.
        sigma: in units of pixels.
        learnt, exact: scores [n, 2] per unit of a coordinate.
        at_data: mean error at points of p_sigma itself, see `errors`.
    """

    network: str
    sigma: float
    learnt: Tensor
    exact: Tensor
    at_data: float

    @property
    def error(self) -> Tensor:
        """The error [n] at each point of the square."""
        return errors(self.learnt, self.exact, self.sigma)

    @property
    def astray(self) -> float:
        """The share of the square where the learnt score points more than 45 degrees away from the exact one."""
        cosine = torch.nn.functional.cosine_similarity(self.learnt, self.exact)
        return float((cosine < ASTRAY).float().mean())


@dataclass(frozen=True)
class Ends:
    """Where chains ended, or the points of the data themselves.

    Args:
        method, scores: the sampler, and whose scores it followed.
        evaluations: of the network, for each point.
        points: [n, 2].
    """

    method: str
    scores: str
    evaluations: int
    points: Tensor

    @property
    def upper(self) -> float:
        """The share of points on the side of the mode of weight 4/5."""
        return float((self.points.sum(1) > 0).float().mean())

    @property
    def spread(self) -> float:
        """The standard deviation of a coordinate around the mode, of the points that are not far from it: 1 in data."""
        near = self._deviations[self._deviations.norm(dim=1) <= FAR]
        return float((near**2).mean().sqrt())

    @property
    def far(self) -> float:
        """The share of points farther than FAR from the mode on their side."""
        return float((self._deviations.norm(dim=1) > FAR).float().mean())

    @property
    def _deviations(self) -> Tensor:
        side = torch.where(self.points.sum(1) > 0, mixture.MEANS[1], mixture.MEANS[0])
        return self.points - side[:, None]


@dataclass(frozen=True)
class Plane:
    """What the study found.

    Args:
        maps: the score at one small level from a network that knows no other; from one that knows many, at that level
            and at a large one.
        starts: where the chains of `noise` and `annealing` begin, [n, 2].
        noise: following the scores, without noise and with; then data.
        annealing: at one level and annealed, by the exact score and by learnt ones; then data.
    """

    maps: list[ScoreMap]
    starts: Tensor
    noise: list[Ends]
    annealing: list[Ends]


def study(directory: Path, points: int, epochs: float | None, device: str, on_progress: Progress) -> Plane:
    """Trains the two networks it needs, measures their scores, and runs the chains.

    Args:
        directory: where the networks are kept.
        points: chains of every sampler.
        epochs: passes over the data; None takes those of the preset toy2d.
        device: torch device name.
        on_progress: told of every training step and every step of the engine.

    Raises:
        OSError, ValueError, RuntimeError: see `trained`.
    """
    preset = presets.load("toy2d")
    settings = preset.training if epochs is None else changed(preset.training, epochs=epochs)
    alone = changed(settings, levels=NoiseLevels(sigma_max=SMALL, sigma_min=SMALL, count=1))
    data = two_gaussians(preset.data.points if preset.data else points)

    def network(name: str, settings: TrainingSettings) -> ScoreModel:
        what = f"training, {name}"
        return ema_model(trained(data, settings, directory, device, lambda t: on_progress(what, t.step, t.steps)))

    one, many = network("one level", alone), network("many levels", settings)
    exact = mixture.exact_model(device)
    ascent = FollowScores.table(SMALL, STEPS, STEP_SIZE)
    langevin = Langevin.table(SMALL, STEPS, STEP_SIZE, denoise=False)
    steps = STEPS // len(LEVELS)
    annealed = AnnealedLangevin.table(LEVELS, steps, schedules.langevin_step_size(LEVELS, steps), False, None)
    whole = Ends("data", "", 0, mixture.to_points(data.float() / 255))

    def ends(method: str, table: Table, scores: str, model: ScoreModel) -> Ends:
        what = f"{method}, {scores} scores"
        found = chains(model, table, points, lambda done: on_progress(what, done, points * len(table)))
        return Ends(method, scores, len(table), found)

    by_exact = ends("Langevin", langevin, "exact", exact)
    return Plane(
        maps=[
            score_map("one level", one, SMALL),
            score_map("many levels", many, SMALL),
            score_map("many levels", many, LARGE),
        ],
        starts=starts(ascent, points),
        noise=[ends("following the scores", ascent, "exact", exact), by_exact, whole],
        annealing=[
            by_exact,
            ends("annealed Langevin", annealed, "exact", exact),
            ends("Langevin", langevin, "learnt", one),
            ends("annealed Langevin", annealed, "learnt", many),
            whole,
        ],
    )


def square() -> Tensor:
    """SIDE x SIDE points [n, 2] of the square, row by row from below."""
    side = torch.linspace(-SQUARE, SQUARE, SIDE)
    across, up = torch.meshgrid(side, side, indexing="xy")
    return torch.stack([across.flatten(), up.flatten()], dim=1)


def errors(learnt: Tensor, exact: Tensor, sigma: float) -> Tensor:
    """|learnt - exact| [n], in parts of the score at one standard deviation from a mode, which is 1 / spread(sigma)."""
    distances: Tensor = torch.linalg.vector_norm(learnt - exact, dim=1)
    return distances * mixture.spread(sigma)


def score_map(network: str, model: ScoreModel, sigma: float) -> ScoreMap:
    """Learnt and exact scores on the square, and the error at 5000 points of p_sigma."""
    there, data = square(), noised(sigma)
    at_data = errors(learnt(model, data, sigma), mixture.score(data, sigma), sigma).mean()
    return ScoreMap(network, sigma, learnt(model, there, sigma), mixture.score(there, sigma), float(at_data))


def noised(sigma: float) -> Tensor:
    """5000 points [n, 2] of p_sigma that no network has seen."""
    generator = torch.Generator().manual_seed(SEED)
    data = mixture.to_points(two_gaussians(5000, seed=SEED + 1).float() / 255)
    return data + sigma * mixture.UNIT * torch.randn(data.shape, generator=generator)


def learnt(model: ScoreModel, points: Tensor, sigma: float) -> Tensor:
    """A model's score [n, 2] at points [n, 2], per unit of a coordinate."""
    scores = model.score(mixture.to_pixels(points).to(model.device), sigma)
    in_plane: Tensor = scores[:, :, 0, 0].cpu() / mixture.UNIT
    return in_plane


def starts(table: Table, count: int) -> Tensor:
    """Where the chains of a table begin, [count, 2]."""
    shape = mixture.IMAGE.chw
    return mixture.to_points(initial([Chain(table, SEED, index) for index in range(count)], shape))


def chains(model: ScoreModel, table: Table, count: int, on_step: Callable[[int], None]) -> Tensor:
    """Where `count` chains end, [count, 2]."""
    batch = [Chain(table, SEED, index) for index in range(count)]
    run(Engine(model, count), batch, on_step)
    return mixture.to_points(torch.stack([chain.x for chain in batch if chain.x is not None]).cpu())
