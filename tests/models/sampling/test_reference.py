"""The engine against the papers' plain loops, fed with the same noise."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.samplers.adams_bashforth import AdamsBashforth
from models.samplers.ancestral import Ancestral
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.consistent_annealed import ConsistentAnnealed
from models.samplers.dpmpp_2m_sde import Dpmpp2mSde
from models.samplers.euler import Euler
from models.samplers.follow_scores import FollowScores
from models.samplers.heun import Heun
from models.samplers.langevin import Langevin
from models.samplers.multistep_consistency import MultistepConsistency
from models.samplers.repaint import Repaint
from models.samplers.table import Table
from models.sampling import noise, reference
from models.sampling.chain import Chain, initial
from models.sampling.engine import Engine
from models.sampling.projections import Blocks, Grey, Means, Unmasked
from models.sampling.sample import run
from models.schedules import geometric, karras, langevin_step_size
from models.score import ScoreModel

SEED, N = 11, 5
SIGMAS = geometric(2.0, 0.05, 6)
STEP = langevin_step_size(SIGMAS, 3)
LEVELS = karras(2.0, 0.05, 7, 7)

Loop = Callable[[reference.Score, Tensor, reference.Noise, reference.Paint], Tensor]

SAMPLERS: dict[str, tuple[Table, Loop]] = {
    "follow_scores": (
        FollowScores.table(0.4, 25, 0.03),
        lambda score, x, _noise, paint: reference.follow_scores(score, x, 0.4, 25, 0.03, paint),
    ),
    "langevin": (
        Langevin.table(0.4, 25, 0.03, denoise=False),
        lambda score, x, noise, paint: reference.langevin(score, x, 0.4, 25, 0.03, False, noise, paint),
    ),
    "langevin, denoised": (
        Langevin.table(0.4, 25, 0.03, denoise=True),
        lambda score, x, noise, paint: reference.langevin(score, x, 0.4, 25, 0.03, True, noise, paint),
    ),
    "annealed_langevin": (
        AnnealedLangevin.table(SIGMAS, 3, STEP, denoise=False, initial_std=2.0),
        lambda score, x, noise, paint: reference.annealed_langevin(score, x, SIGMAS, 3, STEP, False, noise, paint),
    ),
    "annealed_langevin, denoised": (
        AnnealedLangevin.table(SIGMAS, 3, STEP, denoise=True, initial_std=2.0),
        lambda score, x, noise, paint: reference.annealed_langevin(score, x, SIGMAS, 3, STEP, True, noise, paint),
    ),
    "consistent_annealed": (
        ConsistentAnnealed.table(SIGMAS, 0.7),
        lambda score, x, noise, paint: reference.consistent_annealed(score, x, SIGMAS, 0.7, noise, paint),
    ),
    "ancestral": (
        Ancestral.table(LEVELS),
        lambda score, x, noise, paint: reference.ancestral(score, x, LEVELS, 1.0, noise, paint),
    ),
    "ancestral, half its noise": (
        Ancestral.table(LEVELS, 0.5),
        lambda score, x, noise, paint: reference.ancestral(score, x, LEVELS, 0.5, noise, paint),
    ),
    "dpmpp_2m_sde": (
        Dpmpp2mSde.table(LEVELS),
        lambda score, x, noise, paint: reference.dpmpp_2m_sde(score, x, LEVELS, 1.0, noise, paint),
    ),
    "dpmpp_2m_sde, with more noise": (
        Dpmpp2mSde.table(LEVELS, lambda _sigma: 2.5),
        lambda score, x, noise, paint: reference.dpmpp_2m_sde(score, x, LEVELS, 2.5, noise, paint),
    ),
    "dpmpp_2m_sde, without noise": (
        Dpmpp2mSde.table(LEVELS, lambda _sigma: 0.0),
        lambda score, x, noise, paint: reference.dpmpp_2m_sde(score, x, LEVELS, 0.0, noise, paint),
    ),
    "euler": (
        Euler.table(LEVELS),
        lambda score, x, _noise, paint: reference.euler(score, x, LEVELS, paint),
    ),
    "adams_bashforth": (
        AdamsBashforth.table(LEVELS),
        lambda score, x, _noise, paint: reference.adams_bashforth(score, x, LEVELS, paint),
    ),
    "heun": (
        Heun.table(LEVELS),
        lambda score, x, _noise, paint: reference.heun(score, x, LEVELS, paint),
    ),
    "multistep_consistency": (
        MultistepConsistency.table(LEVELS, 0.02),
        lambda score, x, noise, paint: reference.multistep_consistency(score, x, LEVELS, 0.02, noise, paint),
    ),
}


def compare(model: ScoreModel, sampler: str, inpainting: bool) -> None:
    table, loop = SAMPLERS[sampler]
    shape = model.image.chw
    generator = torch.Generator().manual_seed(2)
    known = torch.rand((N, *shape), generator=generator)
    mask = torch.rand((N, *shape[1:]), generator=generator) < 0.4

    def drawn(k: int, stream: int) -> Tensor:
        return noise.normal([SEED] * N, range(N), [k] * N, stream, shape)

    def paint(x: Tensor, sigma: float, k: int) -> Tensor:
        return torch.where(mask[:, None], x, known + sigma * drawn(k, noise.KNOWN)) if inpainting else x

    chains = [
        Chain(table, SEED, i, known[i] if inpainting else None, Unmasked(mask[i]) if inpainting else None)
        for i in range(N)
    ]
    begun = initial(chains, shape)
    expected = loop(model.score, begun, lambda k: drawn(k, noise.STEP), paint)
    run(Engine(model, 3), chains)
    found = torch.stack([chain.x for chain in chains if chain.x is not None])
    assert found.isfinite().all()
    assert (found - expected).abs().max() <= 1e-5
    assert (found - begun).abs().mean() > 0.05
    if inpainting:
        kept = ~mask[:, None].expand_as(known)
        assert torch.equal(found[kept], known[kept])
        assert (found[~kept] - known[~kept]).abs().mean() > 0.05


@pytest.mark.parametrize("inpainting", [False, True], ids=["sampling", "inpainting"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_engine_follows_the_paper_with_an_exact_score(
    exact_score: Callable[..., ScoreModel], sampler: str, inpainting: bool
) -> None:
    mixture = exact_score((0.7, 0.2, 0.1), (0.3, 0.9, 0.05), image=(2, 4, 6))
    compare(mixture, sampler, inpainting)


@pytest.mark.parametrize("inpainting", [False, True], ids=["sampling", "inpainting"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_engine_follows_the_paper_with_a_network(tiny_model: ScoreModel, sampler: str, inpainting: bool) -> None:
    compare(tiny_model, sampler, inpainting)


@pytest.mark.parametrize("projection", ["mask", "blocks", "grey"])
def test_repaint_with_feedback_follows_its_loop(exact_score: Callable[..., ScoreModel], projection: str) -> None:
    model = exact_score((0.7, 0.2, 0.1), (0.3, 0.9, 0.05), image=(2, 4, 6))
    shape = model.image.chw
    generator = torch.Generator().manual_seed(2)
    known = torch.rand((N, *shape), generator=generator)
    mask = torch.rand((N, *shape[1:]), generator=generator) < 0.4
    means: dict[str, Means] = {"blocks": Blocks(2), "grey": Grey()}
    projections = [Unmasked(mask[i]) if projection == "mask" else means[projection] for i in range(N)]

    def drawn(k: int, stream: int) -> Tensor:
        return noise.normal([SEED] * N, range(N), [k] * N, stream, shape)

    def paint(x: Tensor, before: Tensor, denoised: Tensor, kept: float, std: float, k: int) -> Tensor:
        target = known + kept * (before - known) + 1.5 * (known - denoised) + std * drawn(k, noise.KNOWN)
        if std == 0:
            target = known
        if projection == "mask":
            return torch.where(mask[:, None], x, target)
        return means[projection].exactly(x, known) if std == 0 else means[projection].toward(x, target)

    chains = [Chain(Repaint.table(LEVELS, 3, 1.5, 0.7), SEED, i, known[i], projections[i]) for i in range(N)]
    begun = initial(chains, shape)
    expected = reference.repaint(model.score, begun, LEVELS, 3, 0.7, lambda k: drawn(k, noise.STEP), paint)
    run(Engine(model, 3), chains)
    found = torch.stack([chain.x for chain in chains if chain.x is not None])
    assert (found - expected).abs().max() <= 1e-4
    assert (found - known).abs().mean() > 0.05


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_mask_of_all_or_nothing_samples_or_returns_the_image(tiny_model: ScoreModel, sampler: str) -> None:
    table, _ = SAMPLERS[sampler]
    known = torch.rand((1, 8, 8), generator=torch.Generator().manual_seed(1))
    everything, nothing = torch.ones((1, 1, 1), dtype=torch.bool), torch.zeros((1, 1, 1), dtype=torch.bool)
    sampled = Chain(table, SEED, 0)
    repainted, kept = (
        Chain(table, SEED, 0, known, Unmasked(everything)),
        Chain(table, SEED, 0, known, Unmasked(nothing)),
    )
    run(Engine(tiny_model, 3), [sampled, repainted, kept])
    assert sampled.x is not None
    assert repainted.x is not None
    assert kept.x is not None
    assert torch.equal(repainted.x, sampled.x)
    assert torch.equal(kept.x, known)
