"""Chains of every sampler, and what the engine makes of each of them alone."""

from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from models.samplers.adams_bashforth import AdamsBashforth
from models.samplers.ancestral import Ancestral
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.consistent_annealed import ConsistentAnnealed
from models.samplers.dpmpp_2m_sde import Dpmpp2mSde
from models.samplers.follow_scores import FollowScores
from models.samplers.heun import Heun
from models.samplers.langevin import Langevin
from models.samplers.repaint import Repaint
from models.samplers.table import Table
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.projections import Blocks, Grey, Unmasked
from models.sampling.sample import run
from models.schedules import geometric, karras, langevin_step_size
from models.score import ScoreModel


def annealed(sigma_max: float, levels: int, steps: int, denoise: bool) -> Table:
    sigmas = geometric(sigma_max, 0.01, levels)
    return AnnealedLangevin.table(sigmas, steps, langevin_step_size(sigmas, steps), denoise, sigma_max)


SAMPLERS = [
    Heun.table(karras(10, 0.01, 5, 7)),
    annealed(10, 4, 2, denoise=True),
    annealed(1, 3, 1, denoise=False),
    Langevin.table(0.5, 6, 0.05, denoise=True),
    FollowScores.table(0.3, 4, 0.02),
    Heun.table(karras(3, 0.1, 2, 7)),
    ConsistentAnnealed.table(geometric(10, 0.01, 6), 0.9),
    Ancestral.table(karras(10, 0.01, 7, 7)),
    AdamsBashforth.table(karras(10, 0.01, 7, 7)),
    Repaint.table(karras(10, 0.01, 4, 7), 3),
    Dpmpp2mSde.table(karras(10, 0.01, 7, 7)),
]


Known = Literal["nothing", "mask", "blocks", "grey"]  # of an image
KNOWN: tuple[Known, ...] = get_args(Known)


@dataclass(frozen=True)
class Spec:
    """What an image's bits may depend on."""

    sampler: int
    seed: int
    index: int
    known: Known = "nothing"

    def chain(self, shape: tuple[int, ...] = (1, 8, 8)) -> Chain:
        if self.known == "nothing":
            return Chain(SAMPLERS[self.sampler], self.seed, self.index)
        generator = torch.Generator().manual_seed(self.seed + self.index)
        known, mask = torch.rand(shape, generator=generator), torch.rand(shape[1:], generator=generator) < 0.5
        projections = {"mask": Unmasked(mask), "blocks": Blocks(2 + 2 * (self.index % 2)), "grey": Grey()}
        return Chain(SAMPLERS[self.sampler], self.seed, self.index, known, projections[self.known])


def final(chain: Chain) -> Tensor:
    assert chain.remaining == 0
    assert chain.x is not None
    return chain.x


def bits(x: Tensor) -> Tensor:
    return x.view(torch.int32)


@cache
def made_alone(model: ScoreModel, spec: Spec) -> Tensor:
    chain = spec.chain()
    run(Engine(model, 1), [chain])
    return final(chain)
