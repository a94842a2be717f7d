from collections.abc import Callable

import numpy as np
import pytest

from models.samplers.adams_bashforth import AdamsBashforth
from models.samplers.ancestral import Ancestral
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.consistent_annealed import ConsistentAnnealed
from models.samplers.euler import Euler
from models.samplers.follow_scores import FollowScores
from models.samplers.heun import Heun
from models.samplers.langevin import Langevin
from models.samplers.multistep_consistency import MultistepConsistency
from models.samplers.schedules import geometric, karras, langevin_step_size
from models.samplers.table import Table, snapshots

ALL = {
    "follow_scores": FollowScores.table(0.3, 20, 0.01),
    "langevin": Langevin.table(0.3, 20, 0.01, denoise=False),
    "langevin, denoised": Langevin.table(0.3, 20, 0.01, denoise=True),
    "annealed_langevin": AnnealedLangevin.table(geometric(10, 0.01, 8), 3, 1e-4, denoise=False, initial_std=10),
    "annealed_langevin, denoised": AnnealedLangevin.table(geometric(10, 0.01, 8), 3, 1e-4, True, initial_std=10),
    "consistent_annealed": ConsistentAnnealed.table(geometric(10, 0.01, 30), 0.5),
    "ancestral": Ancestral.table(karras(10, 0.01, 20, 7)),
    "euler": Euler.table(karras(10, 0.01, 15, 7)),
    "adams_bashforth": AdamsBashforth.table(karras(10, 0.01, 15, 7)),
    "heun": Heun.table(karras(10, 0.01, 9, 7)),
    "multistep_consistency": MultistepConsistency.table([10, 1.0, 0.3], 0.01),
}


@pytest.mark.parametrize("table", ALL.values(), ids=ALL)
def test_known_pixels_end_exact_and_rows_cannot_be_changed(table: Table) -> None:
    assert table.column("known")[-1] == 0
    assert np.all(table.column("known")[:-1] > 0)
    assert np.all(table.column("sigma") > 0)
    with pytest.raises(ValueError, match="read-only"):
        table.rows[0, 0] = 1.0


def test_annealed_langevin_steps_scale_with_the_variance_of_their_level() -> None:
    sigmas, step_size = [1.0, 0.1, 0.01], 2e-5
    table = AnnealedLangevin.table(sigmas, 100, step_size, denoise=True, initial_std=None)
    assert len(table) == 301
    assert table.column("sigma")[:-1] == pytest.approx(np.repeat(sigmas, 100))
    alpha = step_size * (np.repeat(sigmas, 100) / 0.01) ** 2
    assert table.column("drift")[:-1] == pytest.approx(alpha / 2)
    assert table.column("noise")[:-1] == pytest.approx(np.sqrt(alpha))
    assert tuple(table.rows[-1]) == pytest.approx((0.01, 0.01**2, 0, 0, 0, 0))
    assert not table.column("carry").any()


@pytest.mark.parametrize(("mean", "std"), [(0.3, 0.2), (0.8, 0.05)])
def test_long_annealing_ends_in_the_distribution_of_the_data(mean: float, std: float) -> None:
    """Data N(mean, std^2): every row is linear in x, so the mean and variance of x follow exactly."""
    sigmas = geometric(10, 0.001, 2000)
    table = AnnealedLangevin.table(sigmas, 20, langevin_step_size(sigmas, 20), denoise=True, initial_std=10)
    found, variance = 0.5, 10.0**2
    for sigma, drift, _, noise, *_ in table.rows:
        factor = 1 - drift / (sigma**2 + std**2)
        found, variance = mean + factor * (found - mean), factor**2 * variance + noise**2
    assert found == pytest.approx(mean, abs=1e-3)
    assert variance**0.5 == pytest.approx(std, rel=0.02)


@pytest.mark.parametrize("tau", [0.3, 1.0, 3.0])
def test_consistent_annealing_leaves_the_noise_of_the_next_level(tau: float) -> None:
    """Data of one point: after every row x is N(point, sigma_{i+1}^2), where Langevin's is not."""
    sigmas = geometric(10, 0.01, 12)
    gamma = sigmas[1] / sigmas[0]
    variance = sigmas[0] ** 2
    for sigma, drift, _, noise, known, _ in ConsistentAnnealed.table(sigmas, 1 - gamma ** (1 + tau)).rows[:-1]:
        variance = (1 - drift / sigma**2) ** 2 * variance + noise**2
        assert variance == pytest.approx(known**2)


@pytest.mark.parametrize(("tau", "same"), [(0.0, Euler.table), (1.0, Ancestral.table)])
def test_consistent_annealing_has_euler_and_ancestral_sampling_at_its_ends(
    tau: float, same: Callable[[list[float]], Table]
) -> None:
    sigmas = geometric(10, 0.01, 12)
    gamma = sigmas[1] / sigmas[0]
    consistent = ConsistentAnnealed.table(sigmas, 1 - gamma ** (1 + tau))
    assert consistent.rows == pytest.approx(same(sigmas).rows, rel=1e-6, abs=1e-6)


def test_ancestral_sampling_draws_from_the_posterior_of_one_point() -> None:
    """q(x_{i+1} | x_i, x_0) of the variance-exploding chain: mean and variance for x_0 = 0."""
    sigmas = [3.0, 2.0, 0.5]
    for (sigma, drift, _, noise, *_), following in zip(Ancestral.table(sigmas).rows, [2.0, 0.5, 0.0], strict=True):
        assert 1 - drift / sigma**2 == pytest.approx(following**2 / sigma**2)
        assert noise**2 == pytest.approx(following**2 * (sigma**2 - following**2) / sigma**2)


@pytest.mark.parametrize(
    ("solver", "order"),
    [(Euler.table, 1), (AdamsBashforth.table, 2), (Heun.table, 2)],
    ids=["euler", "adams_bashforth", "heun"],
)
def test_a_solver_of_the_ode_has_its_order(solver: Callable[[list[float]], Table], order: int) -> None:
    """Data N(0, 1): dx/dsigma = sigma x / (1 + sigma^2), so x(sigma) = x(s) sqrt((1 + sigma^2) / (1 + s^2))."""

    def error(steps: int) -> float:
        x, previous = 1.0, 0.0
        sigmas = list(np.linspace(2, 1, steps + 1))
        rows = solver(sigmas).rows
        end = next(i for i, row in enumerate(rows) if row[0] == sigmas[-1])  # the rows that lead to sigma = 1
        if solver is Heun.table:
            end += 1
        for sigma, drift, carry, *_ in rows[:end]:
            current = drift * -x / (1 + sigma**2)
            x, previous = x + current + carry * previous, current
        return float(abs(x - np.sqrt(2 / 5)))

    assert error(200) < 1e-2
    assert error(200) / error(400) == pytest.approx(2**order, rel=0.1)


def test_one_evaluation_a_level_is_all_that_one_row_samplers_take() -> None:
    for solver in (Euler.table, AdamsBashforth.table, Ancestral.table):
        assert len(solver(karras(10, 0.01, 35, 7))) == 35
    assert len(ConsistentAnnealed.table(geometric(10, 0.01, 35), 0.5)) == 35


def test_heun_of_18_levels_takes_35_evaluations() -> None:
    table = Heun.table(karras(80, 0.002, 18, 7))
    assert len(table) == 35
    assert table.initial_std == pytest.approx(80)
    assert not table.column("noise").any()


def test_samplers_of_one_level_start_uniform_and_others_from_their_first_sigma() -> None:
    starts = {name: table.initial_std for name, table in ALL.items()}
    assert starts == {
        "follow_scores": None,
        "langevin": None,
        "langevin, denoised": None,
        "annealed_langevin": 10,
        "annealed_langevin, denoised": 10,
        "consistent_annealed": pytest.approx(10),
        "ancestral": pytest.approx(10),
        "euler": pytest.approx(10),
        "adams_bashforth": pytest.approx(10),
        "heun": pytest.approx(10),
        "multistep_consistency": 10,
    }


@pytest.mark.parametrize(("rows", "count"), [(13, 5), (35, 35), (35, 1), (100, 64), (7, 3)])
def test_snapshots_are_even_and_end_with_the_result(rows: int, count: int) -> None:
    found = snapshots(rows, count)
    assert len(found) == len(set(found)) == count
    assert list(found) == sorted(found)
    assert found[0] >= 1
    assert found[-1] == rows
    steps = {after - before for before, after in zip((0, *found), found, strict=False)}
    assert max(steps) - min(steps) <= 1


def test_no_snapshots_are_none() -> None:
    assert snapshots(13, 0) == ()
