"""What is known of an image: an orthogonal projection, which in the end holds exactly."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from models.samplers.ancestral import Ancestral
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.projections import Blocks, Grey, Means, Unmasked
from models.sampling.sample import run, to_pixels
from models.schedules import karras
from models.score import ScoreModel

MEANS = [Blocks(2), Blocks(4), Blocks(7), Blocks(28), Grey()]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("means", MEANS)
def test_it_is_an_orthogonal_projection(means: Means) -> None:
    x, y = drawn(0, 5, 3, 28, 28).double(), drawn(1, 5, 3, 28, 28).double()
    assert torch.allclose(means.of(means.of(x)), means.of(x))
    assert torch.allclose((means.of(x) * y).sum(), (x * means.of(y)).sum())


def test_it_is_the_mean_of_blocks_or_of_channels() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert Blocks(2).of(x)[0, 0].tolist() == [[2.5, 2.5, 4.5, 4.5]] * 2 + [[10.5, 10.5, 12.5, 12.5]] * 2
    assert Grey().of(torch.tensor([0.3, 0.6, 0.0]).reshape(1, 3, 1, 1)).flatten().tolist() == pytest.approx([0.3] * 3)


@pytest.mark.parametrize("means", MEANS)
def test_the_nearest_image_has_what_is_known_and_lies_in_range(means: Means) -> None:
    """Nearest: by the inequality of projections onto convex sets, against other such images."""
    x, known = (
        drawn(2, 4, 3, 28, 28) * 0.7 + 0.4,
        torch.rand((4, 3, 28, 28), generator=torch.Generator().manual_seed(3)),
    )
    known[0], known[1] = 0.0, 1.0  # of which there is one image only
    found = means.exactly(x, known)
    assert found.min() >= 0
    assert found.max() <= 1
    assert (means.of(found) - means.of(known)).abs().max() < 1e-5
    assert (means.toward(found, known) - found).abs().max() < 1e-5
    others = [known, means.of(known), means.exactly(drawn(4, *x.shape), known)]
    for other in others:
        assert ((x - found) * (other - found)).sum((1, 2, 3)).max() < 1e-2


@pytest.mark.parametrize("means", MEANS)
def test_a_far_image_is_brought_back_too(means: Means) -> None:
    known = torch.rand((2, 3, 28, 28), generator=torch.Generator().manual_seed(3))
    found = means.exactly(drawn(5, 2, 3, 28, 28) * 1e3, known)
    assert (means.of(found) - means.of(known)).abs().max() < 1e-2


@pytest.mark.parametrize("means", [Blocks(2), Blocks(4), Blocks(8)])
def test_the_means_of_a_finished_image_are_the_known_ones_to_rounding(tiny_model: ScoreModel, means: Means) -> None:
    small = torch.randint(0, 256, (6, 1, 8 // means.size, 8 // means.size), generator=torch.Generator().manual_seed(0))
    small[0], small[1] = 0, 255
    known = (small / 255).repeat_interleave(means.size, 2).repeat_interleave(means.size, 3)
    table = Ancestral.table(karras(10, 0.01, 6, 7))
    chains = [Chain(table, 0, index, known[index], means) for index in range(6)]
    run(Engine(tiny_model, 4), chains)
    pixels = np.stack([to_pixels(chain.x) for chain in chains if chain.x is not None])
    of_blocks = pixels.reshape(6, 8 // means.size, means.size, 8 // means.size, means.size).mean((2, 4))
    assert np.abs(of_blocks - small[:, 0].numpy()).max() <= 0.51


def test_what_is_not_known_is_made(tiny_model: ScoreModel) -> None:
    known = torch.full((1, 8, 8), 0.5)
    for projection in (Blocks(4), Unmasked(torch.ones(8, 8, dtype=torch.bool))):
        chains = [Chain(Ancestral.table(karras(10, 0.01, 6, 7)), 0, index, known, projection) for index in range(2)]
        run(Engine(tiny_model, 2), chains)
        a, b = (chain.x for chain in chains)
        assert a is not None
        assert b is not None
        assert (a - b).abs().mean() > 0.05


def test_a_block_of_one_value_known_leaves_gaussian_pixels_their_conditional_law(
    exact_score: Callable[..., ScoreModel],
) -> None:
    """An exact case: independent normal pixels, of which the mean of each block is known."""
    std, mean, known = 0.1, 0.5, 0.55
    table = Ancestral.table(karras(10, 0.01, 60, 7))
    chains = [Chain(table, 1, i, torch.full((1, 4, 4), known), Blocks(2)) for i in range(400)]
    run(Engine(exact_score((1.0, mean, std)), 400), chains)
    x = torch.stack([chain.x for chain in chains if chain.x is not None])
    assert (Blocks(2).of(x) - known).abs().max() < 1e-4
    assert float(x.std()) == pytest.approx(std * (3 / 4) ** 0.5, rel=0.1)
