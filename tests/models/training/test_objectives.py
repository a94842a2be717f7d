import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.card import ImageShape
from models.networks.refinenet import RefineNetV1, RefineNetV2
from models.parametrisation import Consistency, DiscreteLevels, Edm, OverSigma
from models.score import ScoreModel
from models.training.levels import stratified_log_normal
from models.training.objectives import FUNCTIONS, Objective, ObjectiveName

MEAN, STD = 0.3, 0.2
WRONG = Edm(data_mean=0.5, data_std=0.35)
CONSISTENT = Consistency(data_mean=0.5, data_std=0.35, s_min=0.001, times=0.25)
PIXELS, POINTS = (1, 8, 8), (2, 1, 1)


class TrueScore(nn.Module):
    """The output that makes WRONG the exact score of N(MEAN, STD^2), times `scale` and plus `shift`."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(0.0))

    def condition(self, noise_level: Tensor) -> Tensor:
        return torch.exp(4 * noise_level)[:, None]

    def forward(self, scaled: Tensor, condition: Tensor) -> Tensor:
        sigma = condition[:, :, None, None]
        total = (sigma**2 + WRONG.data_std**2).sqrt()
        centred = scaled * total
        score = (MEAN - WRONG.mean - centred) / (sigma**2 + STD**2)
        exact = (score + centred / total**2) * sigma * total / WRONG.data_std
        return self.scale * exact + self.shift


class Perceptron(nn.Module):
    """Any smooth network of points."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 2))

    def condition(self, noise_level: Tensor) -> Tensor:
        return noise_level[:, None]

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        out: Tensor = self.layers(torch.cat([x.flatten(1), condition], 1))
        return out.view_as(x)


def batch(n: int, seed: int, chw: tuple[int, int, int] = PIXELS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, noise levels, noise and directions."""
    generator = torch.Generator().manual_seed(seed)
    x = MEAN + STD * torch.randn((n, *chw), generator=generator)
    sigma = stratified_log_normal(n, -0.9, 1.4, generator)
    return x, sigma, *torch.randn((2, n, *chw), generator=generator)


def losses(objective: Objective, x: Tensor, sigma: Tensor, *normals: Tensor) -> Tensor:
    """The loss of each image; of the normal tensors, it takes as many as it needs."""
    out: Tensor = objective(x, sigma, objective.factors(sigma.tolist()), *normals[: objective.normals])
    return out


@pytest.mark.parametrize(
    ("name", "chw"), [("edm", PIXELS), ("denoising", PIXELS), ("sliced", PIXELS), ("exact", POINTS)]
)
def test_the_optimum_is_the_true_score(name: ObjectiveName, chw: tuple[int, int, int]) -> None:
    network = TrueScore()
    objective = Objective(name, network, WRONG)
    drawn = batch(20_000, 0, chw)
    x = drawn[0]
    model = ScoreModel(TrueScore(), WRONG, ImageShape(channels=chw[0], height=chw[1], width=chw[2]))
    assert torch.allclose(model.score(x[:4], 0.7), (MEAN - x[:4]) / (0.7**2 + STD**2), rtol=1e-4, atol=1e-4)

    loss = losses(objective, *drawn).mean()
    loss.backward()
    size = x[0].numel() if name != "edm" else 1  # the others are summed over the pixels
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert abs(parameter.grad) < 0.02 * size
    for scale, shift in [(0.8, 0.0), (1.2, 0.0), (1.0, 0.2), (1.0, -0.2)]:
        with torch.no_grad():
            network.scale.fill_(scale)
            network.shift.fill_(shift)
        assert losses(objective, *drawn).mean() > loss


def test_with_the_right_preconditioning_nothing_is_left_to_the_network_and_the_loss_is_one() -> None:
    class Zero(TrueScore):
        def forward(self, scaled: Tensor, condition: Tensor) -> Tensor:
            return torch.zeros_like(scaled)

    loss = losses(Objective("edm", Zero(), Edm(data_mean=MEAN, data_std=STD)), *batch(20_000, 1))
    assert loss.shape == (20_000,)
    assert float(loss.mean().detach()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("name", ["sliced", "exact"])
def test_at_the_optimum_score_matching_is_half_the_trace(name: ObjectiveName) -> None:
    objective = Objective(name, TrueScore(), WRONG)
    drawn = batch(50_000, 2, POINTS)
    sigma = drawn[1]
    expected = -(sigma**2) / (sigma**2 + STD**2)  # 1/2 sigma^2 tr(grad s) in the plane
    assert float(losses(objective, *drawn).mean().detach()) == pytest.approx(float(expected.mean()), rel=0.03)


def test_the_losses_are_the_weighted_distance_of_the_model_s_score_from_the_noise(tiny_model: ScoreModel) -> None:
    p = tiny_model.parametrisation
    assert isinstance(p, Edm)
    x, sigma, noise, _ = batch(16, 2)
    s = sigma[:, None, None, None]
    distance = tiny_model.score(x + s * noise, sigma.tolist()) + noise / s
    weight = s**4 * (s**2 + p.data_std**2) / (s * p.data_std) ** 2
    edm = losses(Objective("edm", tiny_model.network, p), x, sigma, noise)
    assert torch.allclose(edm, (weight * distance**2).mean((1, 2, 3)), rtol=1e-4)
    denoising = losses(Objective("denoising", tiny_model.network, p), x, sigma, noise)
    assert torch.allclose(denoising, (s**2 * distance**2).sum((1, 2, 3)) / 2, rtol=1e-4)


def test_slices_along_all_axes_are_the_trace() -> None:
    x, sigma, noise, _ = batch(100, 3, POINTS)
    axes = 2**0.5 * torch.eye(2)[:, None, :, None, None].expand(2, 100, 2, 1, 1)
    network = Perceptron()
    slices = [losses(Objective("sliced", network, WRONG), x, sigma, noise, axis) for axis in axes]
    exact = losses(Objective("exact", network, WRONG), x, sigma, noise)
    assert torch.allclose((slices[0] + slices[1]) / 2, exact, rtol=1e-4, atol=1e-5)


def gradient(name: ObjectiveName, seed: int, sigma: float) -> Tensor:
    network = Perceptron()
    x, _, *normals = batch(100_000, seed, POINTS)
    losses(Objective(name, network, WRONG), x, torch.full((len(x),), sigma), *normals).mean().backward()
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def test_consistency_is_the_distance_of_what_is_seen_from_the_end_of_the_flow() -> None:
    """The flow of N(MEAN, STD^2) shrinks what is off the mean, by which f is known."""

    class TrueEnd(TrueScore):
        def forward(self, scaled: Tensor, condition: Tensor) -> Tensor:
            sigma = condition[:, :, None, None]
            centred = scaled * (sigma**2 + CONSISTENT.data_std**2).sqrt()
            end = MEAN + STD / (sigma**2 + STD**2).sqrt() * (centred + CONSISTENT.mean - MEAN)
            factors = [CONSISTENT.factors(float(s)) for s in condition]
            skip, out = (torch.tensor([f[i] for f in factors])[:, None, None, None] for i in (2, 3))
            return ((end + self.shift - CONSISTENT.mean - centred) / sigma**2 - skip * centred) / out

    end, sigma, *_ = batch(64, 7)
    noisy = MEAN + (sigma[:, None, None, None] ** 2 + STD**2).sqrt() / STD * (end - MEAN)
    noise = (noisy - end) / sigma[:, None, None, None]
    network = TrueEnd()
    objective = Objective("consistency", network, CONSISTENT)
    assert losses(objective, end, sigma, noise).max() < 1e-3
    with torch.no_grad():
        network.shift.fill_(0.1)
    # Of a distance that is large beside what rounds it off, that is left; of each pixel 0.1.
    assert torch.allclose(losses(objective, end, sigma, noise), torch.tensor(0.1), atol=1e-3)


def test_each_objective_is_for_parametrisations_of_its_kind() -> None:
    with pytest.raises(ValueError, match="consistency is not for a parametrisation of the kind edm"):
        Objective("consistency", TrueScore(), WRONG)
    with pytest.raises(ValueError, match="denoising is not for a parametrisation of the kind consistency"):
        Objective("denoising", TrueScore(), CONSISTENT)


@pytest.mark.parametrize("name", ["denoising", "sliced"])
def test_its_gradient_is_that_of_score_matching_in_expectation(name: ObjectiveName) -> None:
    expected, found = gradient("exact", 0, 0.5), gradient(name, 1, 0.5)
    assert (found - expected).norm() < 0.04 * expected.norm()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_objective_trains_a_network_with_attention(tiny_model: ScoreModel, name: ObjectiveName) -> None:
    network = tiny_model.network.requires_grad_(True)
    try:
        objective = Objective(name, network, CONSISTENT if name == "consistency" else tiny_model.parametrisation)
        gradients = torch.autograd.grad(losses(objective, *batch(2, 4)).sum(), list(network.parameters()))
    finally:
        network.requires_grad_(False)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(bool(gradient.any()) for gradient in gradients) > 0.9 * len(gradients)


@pytest.mark.parametrize("name", ["sliced", "exact"])
def test_fused_attention_can_be_differentiated_twice(name: ObjectiveName) -> None:
    class Attending(TrueScore):
        def forward(self, scaled: Tensor, condition: Tensor) -> Tensor:
            q = (self.scale * scaled).reshape(-1, 1, 2, 1)
            return F.scaled_dot_product_attention(q, q, q).reshape(scaled.shape)

    network = Attending()
    losses(Objective(name, network, WRONG), *batch(4, 5, POINTS)).sum().backward()
    assert network.scale.grad is not None


SIGMAS = (1.0, 0.3, 0.1)


def test_the_refinenets_are_trained_by_the_distance_of_their_score_from_the_noise() -> None:
    torch.manual_seed(0)
    shape, sigma = ImageShape(channels=1, height=8, width=8), torch.tensor(SIGMAS)
    x, _, noise, _ = batch(3, 6)
    s = sigma[:, None, None, None]
    for network, parametrisation in [
        (RefineNetV1(levels=3, ngf=4), DiscreteLevels(sigmas=SIGMAS)),
        (RefineNetV2(image_channels=1, ngf=4), OverSigma()),
    ]:
        found = losses(Objective("denoising", network, parametrisation), x, sigma, noise)  # type: ignore[arg-type]
        found.sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
        model = ScoreModel(network, parametrisation, shape)  # type: ignore[arg-type]
        distance = s * model.score(x + s * noise, SIGMAS) + noise
        assert torch.allclose(found, (distance**2).sum((1, 2, 3)) / 2, rtol=1e-3)
        with pytest.raises(ValueError, match="take denoising"):
            Objective("edm", network, parametrisation)  # type: ignore[arg-type]
