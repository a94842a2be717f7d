"""Sampling end to end, and against distributions whose score is known in closed form."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.follow_scores import FollowScores
from models.samplers.heun import Heun
from models.samplers.langevin import Langevin
from models.samplers.table import Table
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.projections import Unmasked
from models.sampling.sample import from_pixels, run, sample, to_pixels
from models.schedules import geometric, karras, langevin_step_size
from models.score import ScoreModel

N = 256
SIGMAS = geometric(10.0, 0.01, 80)
ANNEALED = AnnealedLangevin.table(SIGMAS, 3, langevin_step_size(SIGMAS, 3), denoise=True, initial_std=10.0)
HEUN = Heun.table(karras(10.0, 0.01, 18, 7))


def draw(model: ScoreModel, table: Table, count: int = N, **inpainting: Any) -> Tensor:
    chains = [Chain(table, 1, i, **inpainting) for i in range(count)]
    run(Engine(model, count), chains)
    return torch.stack([chain.x for chain in chains if chain.x is not None])


@pytest.mark.parametrize(("table", "tolerance"), [(HEUN, 0.05), (ANNEALED, 0.16)], ids=["heun", "annealed_langevin"])
@pytest.mark.parametrize(("mean", "std"), [(0.3, 0.2), (0.8, 0.05)])
def test_samples_of_a_gaussian_have_its_mean_and_deviation(
    exact_score: Callable[..., ScoreModel], table: Table, tolerance: float, mean: float, std: float
) -> None:
    """Annealed Langevin keeps an excess of noise where the data are wider than the noise: its tolerance allows it."""
    x = draw(exact_score((1.0, mean, std)), table)
    assert abs(x.mean() - mean) < 0.08 * std
    assert abs(x.std() / std - 1) < tolerance
    assert abs((((x - x.mean()) / x.std()) ** 4).mean() - 3) < 0.4


def test_samples_have_the_very_law_that_the_table_implies(exact_score: Callable[..., ScoreModel]) -> None:
    """For Gaussian data every row is linear, so mean and variance follow exactly."""
    mean, std = 0.3, 0.2
    expected_mean, variance = 0.5, 10.0**2
    for sigma, drift, _, noise, *_ in ANNEALED.rows:
        factor = 1 - drift / (sigma**2 + std**2)
        expected_mean, variance = mean + factor * (expected_mean - mean), factor**2 * variance + noise**2
    x = draw(exact_score((1.0, mean, std)), ANNEALED).double()
    assert abs(x.mean() - expected_mean) < 4 * (variance / x.numel()) ** 0.5
    assert abs(x.var() / variance - 1) < 4 * (2 / x.numel()) ** 0.5


def test_annealing_finds_the_weights_of_far_modes_and_a_single_small_sigma_does_not(
    exact_score: Callable[..., ScoreModel],
) -> None:
    def share_of_the_first(x: Tensor) -> Tensor:
        means = x.mean((1, 2, 3))
        assert torch.all(torch.minimum(means.abs(), (means - 1).abs()) < 0.1)
        return (means < 0.5).float().mean()

    model = exact_score((0.8, 0.0, 0.05), (0.2, 1.0, 0.05))
    sigmas = geometric(10.0, 0.05, 60)
    annealed = AnnealedLangevin.table(sigmas, 5, langevin_step_size(sigmas, 5), denoise=True, initial_std=10.0)
    assert abs(share_of_the_first(draw(model, annealed)) - 0.8) < 0.08

    single = Langevin.table(0.05, 200, 0.2 * 0.05**2, denoise=True)
    assert abs(share_of_the_first(draw(model, single)) - 0.8) > 0.2


def test_inpainting_conditions_on_the_known_pixels(exact_score: Callable[..., ScoreModel]) -> None:
    """Of two modes the one that the known half shows is painted, however rare it is."""
    model = exact_score((0.9, 0.1, 0.05), (0.1, 0.9, 0.05))
    mask = torch.zeros((4, 4), dtype=torch.bool)
    mask[:, 2:] = True
    x = draw(model, ANNEALED, 64, known=torch.full((1, 4, 4), 0.9), projection=Unmasked(mask))
    assert torch.equal(x[..., :2], torch.full((64, 1, 4, 2), 0.9))
    painted = x[..., 2:].mean((1, 2, 3))
    assert (painted > 0.7).float().mean() > 0.95


def test_following_scores_climbs_to_the_nearest_mode(exact_score: Callable[..., ScoreModel]) -> None:
    x = draw(exact_score((1.0, 0.3, 0.2)), FollowScores.table(0.1, 200, 0.01), 16)
    assert (x - 0.3).abs().max() < 1e-3


def test_images_do_not_depend_on_the_count_or_the_slots(tiny_model: ScoreModel) -> None:
    table = Heun.table(karras(10, 0.01, 4, 7))
    many = sample(tiny_model, table, count=7, seed=3, slots=16)
    assert many.shape == (7, 8, 8, 1)
    assert many.dtype == np.uint8
    assert np.array_equal(many[:3], sample(tiny_model, table, count=3, seed=3, slots=2))
    assert not np.array_equal(many, sample(tiny_model, table, count=7, seed=4, slots=16))
    assert np.array_equal(many[2:6], sample(tiny_model, table, count=4, seed=3, slots=3, first=2))


def test_run_reports_image_steps_and_finishes_more_chains_than_slots(tiny_model: ScoreModel) -> None:
    chains = [Chain(FollowScores.table(0.1, rows, 0.001), 0, rows) for rows in (5, 1, 3, 2, 4)]
    reports: list[int] = []
    run(Engine(tiny_model, 2), chains, reports.append)
    assert all(chain.remaining == 0 and chain.x is not None for chain in chains)
    assert reports == sorted(set(reports))
    assert reports[-1] == 5 + 1 + 3 + 2 + 4


def test_every_pixel_value_survives_the_way_in_and_out() -> None:
    pixels = np.arange(256 * 3, dtype=np.uint32).astype(np.uint8).reshape(16, 16, 3)
    x = from_pixels(pixels)
    assert x.shape == (3, 16, 16)
    assert 0 <= x.min() < x.max() <= 1
    assert np.array_equal(to_pixels(x), pixels)


def test_pixels_outside_the_range_are_clamped() -> None:
    x = torch.tensor([-3.0, -0.001, 0.5, 1.001, 9.0]).reshape(1, 1, 5)
    assert to_pixels(x).flatten().tolist() == [0, 0, 128, 255, 255]
