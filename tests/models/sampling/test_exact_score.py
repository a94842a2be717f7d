"""What samplers make of a distribution whose score is known: the weights and the spread of its modes.

Data are a mixture of three distant, narrow modes: a sampler must both choose well (the weights) and finish well (the
spread).
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from models.samplers.adams_bashforth import AdamsBashforth
from models.samplers.ancestral import Ancestral
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.consistent_annealed import ConsistentAnnealed
from models.samplers.dpmpp_2m_sde import Dpmpp2mSde
from models.samplers.euler import Euler
from models.samplers.heun import Heun
from models.samplers.langevin import Langevin
from models.samplers.table import Table
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.sample import run
from models.schedules import geometric, karras, langevin_step_size
from models.score import ScoreModel

COUNT = 1000
WEIGHTS, MEANS, STD = (0.5, 0.3, 0.2), (-1.0, 0.4, 2.0), 0.05
SIGMA_MAX, SIGMA_MIN = 20.0, 0.01  # five times the distance of the outermost modes, 12 in 16 dimensions; a fifth of STD
CENTRE = sum(w * m for w, m in zip(WEIGHTS, MEANS, strict=True))


def annealed_langevin() -> Table:
    sigmas = geometric(SIGMA_MAX, SIGMA_MIN, 60)
    return AnnealedLangevin.table(sigmas, 5, langevin_step_size(sigmas, 5), True, initial_std=SIGMA_MAX)


def with_tau(levels: int, tau: float) -> Table:
    sigmas = geometric(SIGMA_MAX, SIGMA_MIN, levels)
    return ConsistentAnnealed.table(sigmas, 1 - (sigmas[1] / sigmas[0]) ** (1 + tau))


# Total variation of the weights may be that of a sample of this size (0.018 on average), and what the steps add.
SAMPLERS = {
    "annealed_langevin": (annealed_langevin(), 0.04, (0.85, 1.1)),
    "consistent_annealed": (with_tau(100, 2.0), 0.04, (0.85, 1.15)),
    "ancestral": (Ancestral.table(karras(SIGMA_MAX, SIGMA_MIN, 100, 7)), 0.04, (0.85, 1.1)),
    "dpmpp_2m_sde": (Dpmpp2mSde.table(karras(SIGMA_MAX, SIGMA_MIN, 50, 7)), 0.04, (0.85, 1.1)),
    "dpmpp_2m_sde, with churn": (
        Dpmpp2mSde.table(karras(SIGMA_MAX, SIGMA_MIN, 50, 7), lambda sigma: 3.0 if 0.5 < sigma < 2.5 else 1.0),
        0.04,
        (0.85, 1.1),
    ),
    "euler": (Euler.table(karras(SIGMA_MAX, SIGMA_MIN, 50, 7)), 0.04, (0.85, 1.1)),
    "adams_bashforth": (AdamsBashforth.table(karras(SIGMA_MAX, SIGMA_MIN, 35, 7)), 0.04, (0.9, 1.1)),
    "heun": (Heun.table(karras(SIGMA_MAX, SIGMA_MIN, 18, 7)), 0.04, (0.9, 1.1)),
}


def sampled(model: ScoreModel, table: Table) -> tuple[np.ndarray, float]:
    """Shares of the modes, and the standard deviation around the nearest of them in parts of the true one."""
    table = Table(table.rows, table.initial_std, CENTRE)
    chains = [Chain(table, seed=1, index=i) for i in range(COUNT)]
    run(Engine(model, COUNT), chains)
    x = torch.stack([chain.x for chain in chains if chain.x is not None]).flatten(1)
    means = torch.tensor(MEANS)
    nearest = (x.mean(1)[:, None] - means).abs().argmin(1)
    spread = float((x - means[nearest][:, None]).square().mean().sqrt())
    return np.bincount(nearest.numpy(), minlength=len(MEANS)) / COUNT, spread / STD


def variation(shares: np.ndarray) -> float:
    return float(np.abs(shares - np.array(WEIGHTS)).sum() / 2)


@pytest.fixture(scope="module")
def mixture(exact_score: Callable[..., ScoreModel]) -> ScoreModel:
    return exact_score(*zip(WEIGHTS, MEANS, [STD] * len(MEANS), strict=True))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_reaches_the_modes_by_their_weights_and_their_spread(mixture: ScoreModel, sampler: str) -> None:
    table, most, (narrow, wide) = SAMPLERS[sampler]
    shares, spread = sampled(mixture, table)
    assert variation(shares) < most
    assert narrow < spread < wide


def test_a_chain_at_one_small_level_never_learns_the_weights(mixture: ScoreModel) -> None:
    """Why annealing is needed (Song & Ermon 2019, section 3.2): the same steps at one level stay where they began."""
    table = Langevin.table(0.1, 150, 0.2 * 0.1**2, denoise=True)
    shares, _ = sampled(mixture, table)
    assert variation(shares) > 0.3


def test_an_ode_must_start_as_wide_as_the_data(mixture: ScoreModel) -> None:
    """From levels that end at 1, far below the distance of the modes, Heun's method gets the weights wrong."""
    shares, _ = sampled(mixture, Heun.table(karras(1.0, SIGMA_MIN, 18, 7)))
    assert variation(shares) > 0.1
    assert math.isclose(shares.sum(), 1)
