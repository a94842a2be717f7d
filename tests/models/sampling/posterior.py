"""Mixtures of Gaussians of which something is known: a score and a posterior in closed form."""

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from models.card import ImageShape
from models.samplers.table import Table
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.projections import Blocks, Grey, Means, Projection, Unmasked
from models.sampling.sample import run
from models.score import ScoreModel

STD = 0.06  # of every mode, in every direction


class MixtureScore:
    """The score of a mixture of modes N(mean, STD^2) noised by sigma, seen as the engine sees a model.

    Args:
        weights: [modes].
        means: [modes, c, h, w].
    """

    needs_one_width = False

    def __init__(self, weights: Tensor, means: Tensor) -> None:
        channels, height, width = means.shape[1:]
        self.image = ImageShape(channels=channels, height=height, width=width)
        self.weights, self.means, self.device = weights, means, torch.device("cpu")

    def condition(self, sigma: float, *_: object) -> Tensor:
        return torch.tensor([sigma])

    def conditioned_score(self, x: Tensor, conditions: Tensor) -> Tensor:
        variance = conditions[:, 0, None] ** 2 + STD**2
        flat, means = x.flatten(1), self.means.flatten(1)
        squares = torch.cdist(flat[None].double(), means[None].double())[0] ** 2
        shares = torch.softmax(self.weights.log() - squares / (2 * variance), 1).float()
        return ((shares @ means - flat) / variance).reshape(x.shape)


@dataclass(frozen=True)
class Case:
    """A mixture, and an image of which the projection is known.

    Args:
        weights: [modes].
        means: [modes, c, h, w].
        known: [c, h, w].
        projection: what is known of it.
    """

    weights: Tensor
    means: Tensor
    known: Tensor
    projection: Projection

    def seen(self, x: Tensor) -> Tensor:
        """Q x of images [n, c, h, w]."""
        if isinstance(self.projection, Means):
            return self.projection.of(x)
        return torch.where(self.projection.repaint, 0.0, x)

    @property
    def posterior(self) -> Tensor:
        """Probabilities of the modes, given what is known, [modes]."""
        return self._of_modes(self.known[None])[0]

    def responsible(self, x: Tensor) -> Tensor:
        """Probabilities of the modes for images of which all is known, [n, modes]."""
        squares = ((x[:, None] - self.means) ** 2).flatten(2).sum(2)
        return torch.softmax(self.weights.log() - squares / (2 * STD**2), 1)

    def _of_modes(self, x: Tensor) -> Tensor:
        squares = (self.seen(x)[:, None] - self.seen(self.means)).flatten(2).pow(2).sum(2)
        return torch.softmax(self.weights.log() - squares / (2 * STD**2), 1)


@dataclass(frozen=True)
class Judged:
    """Completions against the posterior.

    Args:
        distance: of the modes' weights, in total variation.
        floor: what of it as many exact samples have on average.
        mean: how far the modes' means are off, in STD, over the posterior.
        spread: standard deviation within modes in what is not known, over the exact one.
    """

    distance: float
    floor: float
    mean: float
    spread: float


def completed(case: Case, table: Table, count: int, seed: int = 0) -> Judged:
    """What a sampler makes of a case."""
    chains = [Chain(table, seed, index, case.known, case.projection) for index in range(count)]
    run(Engine(cast(ScoreModel, MixtureScore(case.weights, case.means)), count), chains)
    x = torch.stack([chain.x for chain in chains if chain.x is not None])
    weights, responsible = case.posterior, case.responsible(x)
    distance = (responsible.mean(0) - weights).abs().sum() / 2
    floor = float((2 * weights * (1 - weights) / (math.pi * count)).sqrt().sum() / 2)
    free = x - case.seen(x)
    off, spread = 0.0, 0.0
    directions = case.means[0].numel() - torch.linalg.matrix_rank(_matrix(case))
    for mode, weight in enumerate(weights.tolist()):
        of_mode = free[responsible.argmax(1) == mode]
        if weight < 0.02 or len(of_mode) < 20:
            continue
        centre = case.means[mode] - case.seen(case.means[mode][None])[0]
        error = (of_mode.mean(0) - centre).pow(2).sum().sqrt() / math.sqrt(int(directions))
        off += weight * float(error) / STD
        variance = (of_mode - of_mode.mean(0)).pow(2).flatten(1).sum(1).mean() / int(directions)
        spread += weight * float(variance.sqrt()) / STD
    return Judged(float(distance), floor, off, spread)


def _matrix(case: Case) -> Tensor:
    """Q as a matrix."""
    size = case.means[0].numel()
    if size > 64:  # of masks and means alike, what is seen of white noise tells the rank
        share = case.seen(torch.randn(2000, *case.means.shape[1:])).pow(2).flatten(1).sum(1).mean() / size
        return torch.eye(size)[:, : round(float(share) * size)]
    return case.seen(torch.eye(size).reshape(size, *case.means.shape[1:])).flatten(1)


def cases(dimensions: int, projection: str) -> list[Case]:
    """Five modes of 2, 16 or 784 dimensions: what is known is of one of two kinds, and what is not of one of three."""
    shape = {2: (2, 1, 1), 16: (1, 4, 4), 784: (1, 28, 28)}[dimensions]
    generator = torch.Generator().manual_seed(dimensions)
    low = 0.0 if projection == "mask" else 0.25  # of what is drawn: the sums of two parts are images too
    made = []
    for number in range(3):
        rng = np.random.default_rng([dimensions, number])
        weights = torch.from_numpy(rng.dirichlet([3.0] * 5)).float()
        if projection == "mask":
            repaint = torch.zeros(shape, dtype=torch.bool).flatten()
            repaint[len(repaint) // 2 :] = True
            of: Projection = Unmasked(repaint.reshape(shape))
        else:
            of = Grey() if dimensions == 2 else Blocks(2)
        case = Case(weights, torch.zeros(1, *shape), torch.zeros(shape), of)
        seen = (
            torch.tensor([0.0, 1.0] if projection == "mask" else [0.3, 0.7])
            if dimensions == 2
            else low + (1 - 2 * low) * torch.rand(2, *shape, generator=generator)
        )
        free = (
            torch.tensor([0.1, 0.5, 0.9])
            if dimensions == 2
            else low + (1 - 2 * low) * torch.rand(3, *shape, generator=generator)
        )
        if dimensions == 2:
            ramp = torch.tensor([1.0, 0.0] if projection == "mask" else [1.0, 1.0]).reshape(shape)
            other = torch.tensor([0.0, 1.0] if projection == "mask" else [0.5, -0.5]).reshape(shape)
            seen, free = seen[:, None, None, None] * ramp, (free[:, None, None, None] - 0.5) * other
            if projection == "mask":
                free = free + 0.5 * other
        pairs = [(0, 0), (0, 1), (1, 1), (1, 2), (0, 2)]
        means = torch.stack([case.seen(seen[[a]])[0] + (free[b] - case.seen(free[[b]])[0]) for a, b in pairs])
        mode = int(rng.choice(5, p=weights.numpy() / weights.sum().item()))
        known = means[mode] + STD * torch.randn(shape, generator=generator)
        made.append(Case(weights, means, known, of))
    return made


def distinct(dimensions: int = 16) -> list[Case]:
    """Six modes that are alike in nothing: what is known of a mask excludes all but one."""
    made = []
    for number in range(3):
        generator = torch.Generator().manual_seed(number)
        means = torch.rand(6, 1, 1, dimensions, generator=generator)
        repaint = (torch.arange(dimensions) >= dimensions // 2).reshape(1, 1, dimensions)
        made.append(Case(torch.full((6,), 1 / 6), means, means[number], Unmasked(repaint)))
    return made
