"""Every parametrisation against the exact score of a known density, by autograd in float64."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from models.parametrisation import (
    X0,
    Consistency,
    DiscreteLevels,
    Edm,
    Epsilon,
    Flow,
    OverSigma,
    Parametrisation,
    Score,
    V,
)
from models.processes import (
    DiscreteVariancePreserving,
    SubVariancePreserving,
    UnitVariance,
    VarianceExploding,
    VariancePreserving,
)

POINTS = torch.tensor([[0.1, 0.9, 0.4], [0.8, 0.2, 0.5], [0.3, 0.3, 1.0]], dtype=torch.float64)  # all the pictures
ALPHAS = tuple(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)).tolist())
PROCESSES = [
    VarianceExploding(),
    UnitVariance(),
    VariancePreserving(),
    SubVariancePreserving(),
    DiscreteVariancePreserving(alphas_cumprod=ALPHAS),
]
PIXELS = [(0.0, 1.0), (-1.0, 1.0), (-0.4, 2.8)]
SIGMAS = [0.02, 0.3, 5.0]


def exact_score(y: Tensor, sigma: float) -> Tensor:
    """The gradient of the log density of the pictures with noise, at y, in [0, 1] units."""
    y = y.clone().requires_grad_()
    log_density = torch.logsumexp(-((y - POINTS) ** 2).sum(1) / (2 * sigma**2), 0)
    (gradient,) = torch.autograd.grad(log_density, y)
    return gradient


def asked(sigma: float, pixels: tuple[float, float]) -> tuple[Tensor, Tensor, float]:
    """A noised picture y, and, as the network has them, u and the noise level s."""
    y = POINTS[0] + sigma * torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64)
    scale = pixels[1] - pixels[0]
    return y, pixels[0] + scale * y, scale * sigma


def check(
    parametrisation: Parametrisation, sigma: float, network: Callable[[Tensor, float, Tensor, Tensor], Tensor]
) -> float:
    """That a network, given (its input, s, u, the expected clean u), has the exact score; returns c_noise."""
    y, u, s = asked(sigma, parametrisation.pixels)
    exact = exact_score(y, sigma)
    clean = u + s**2 * exact / (parametrisation.pixels[1] - parametrisation.pixels[0])
    c_in, c_noise, skip, out = parametrisation.factors(sigma)
    centred = y - parametrisation.mean
    score = skip * centred + out * network(c_in * centred, s, u, clean)
    assert torch.allclose(score, exact, rtol=1e-9, atol=1e-9 * float(exact.abs().max()))
    return c_noise


every_sigma = pytest.mark.parametrize("sigma", SIGMAS)
every_range = pytest.mark.parametrize("pixels", PIXELS)
every_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)


@every_sigma
@every_range
def test_edm(sigma: float, pixels: tuple[float, float]) -> None:
    mean, std = 0.2, 0.5

    def network(seen: Tensor, s: float, u: Tensor, clean: Tensor) -> Tensor:
        total = s**2 + std**2
        assert torch.allclose(seen, (u - mean) / math.sqrt(total))
        skip = std**2 / total
        return (clean - mean - skip * (u - mean)) * math.sqrt(total) / (s * std)

    level = check(Edm(pixels=pixels, data_mean=mean, data_std=std), sigma, network)
    assert level == pytest.approx(math.log((pixels[1] - pixels[0]) * sigma) / 4)


@every_sigma
@every_range
@every_process
@pytest.mark.parametrize("kind", [Epsilon, V, X0, Score, OverSigma], ids=lambda kind: kind.__name__)
def test_those_of_a_process(
    sigma: float, pixels: tuple[float, float], process: VariancePreserving, kind: type[Epsilon]
) -> None:
    def network(seen: Tensor, s: float, u: Tensor, clean: Tensor) -> Tensor:
        a = float((seen / u)[0])
        assert torch.allclose(seen, a * u)
        noise = (u - clean) / s  # of the expected picture
        return {
            Epsilon: noise,
            V: a * noise - a * s * clean,
            X0: clean,
            Score: (clean - u) / s**2 / a,
            OverSigma: -noise,
        }[kind]

    check(kind(pixels=pixels, process=process), sigma, network)


@every_sigma
@every_range
def test_flow(sigma: float, pixels: tuple[float, float]) -> None:
    def network(seen: Tensor, s: float, u: Tensor, clean: Tensor) -> Tensor:
        assert torch.allclose(seen, u / (1 + s))
        return (u - clean) / s - clean

    level = check(Flow(pixels=pixels, times=1000), sigma, network)
    s = (pixels[1] - pixels[0]) * sigma
    assert level == pytest.approx(1000 * s / (1 + s))


@every_sigma
@pytest.mark.parametrize("mean", [0.0, -0.7])
def test_consistency(sigma: float, mean: float) -> None:
    parametrisation = Consistency(pixels=(-1, 1), data_mean=mean, data_std=0.5, s_min=0.002)
    y, u, s = asked(sigma, parametrisation.pixels)
    output = torch.tensor([0.3, -0.4, 2.0], dtype=torch.float64)
    skipped = 0.25 / ((s - 0.002) ** 2 + 0.25) * (u - mean)
    end = mean + skipped + 0.5 * (s - 0.002) / math.hypot(s, 0.5) * output
    factors = parametrisation.factors(sigma)
    centred = y - parametrisation.mean
    score = factors.skip * centred + factors.out * output
    assert torch.allclose(y + sigma**2 * score, (end + 1) / 2, atol=1e-12)
    assert torch.allclose(factors.c_in * centred, (u - mean) / math.hypot(s, 0.5))
    assert factors.c_noise == pytest.approx(250 * math.log(s))
    assert not parametrisation.denoises


def test_at_its_smallest_level_a_consistency_model_changes_nothing() -> None:
    assert Consistency(pixels=(-1, 1)).factors(0.001)[2:] == (0, 0)


def test_cards_are_compared_whatever_was_asked_of_them() -> None:
    used, new = (Epsilon(process=DiscreteVariancePreserving(alphas_cumprod=ALPHAS)) for _ in range(2))
    used.factors(1.0)
    assert used == new
    new.factors(2.0)
    assert used == new


@pytest.mark.parametrize("level", [0.1, 0.59948425, 0.1234565])
@pytest.mark.parametrize("written", [lambda s: s, lambda s: float(torch.tensor(s)), lambda s: float(f"{s:.6g}")])
def test_a_discrete_level_is_known_in_any_precision(level: float, written: Callable[[float], float]) -> None:
    levels = DiscreteLevels(sigmas=(1.0, level, 0.01))
    for sigma in (written(level * (1 - 1e-12)), written(level), written(level * (1 + 1e-12))):
        assert levels.factors(sigma).c_noise == 1.0


@pytest.mark.parametrize("sigma", [0.5, 0.1001, 2.0])
def test_a_level_between_the_discrete_ones_is_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match=r"no noise level of this model; it knows only 1, 0\.1, 0\.01"):
        DiscreteLevels(sigmas=(1.0, 0.1, 0.01)).factors(sigma)


@pytest.mark.parametrize(
    ("parametrisation", "sigma"),
    [
        (Epsilon(process=DiscreteVariancePreserving(alphas_cumprod=ALPHAS)), 0.009),
        (Epsilon(process=DiscreteVariancePreserving(alphas_cumprod=ALPHAS)), 158.0),
        (V(process=VariancePreserving()), 153.0),
        (V(process=VariancePreserving(), pixels=(-1, 1)), 77.0),
        (Consistency(pixels=(-1, 1)), 0.0009),
    ],
)
def test_a_level_that_was_never_trained_is_refused(parametrisation: Parametrisation, sigma: float) -> None:
    with pytest.raises(ValueError, match="it knows those from"):
        parametrisation.factors(sigma)
    low, high = parametrisation.range
    parametrisation.factors(low or 0.1)
    parametrisation.factors(min(high, 1e3))


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"name": "sigma"},
        {"name": "epsilon"},
        {"name": "epsilon", "process": {"name": "ddpm"}},
        {"name": "epsilon", "process": {"name": "vp", "beta_min": 20, "beta_max": 20}},
        {"name": "epsilon", "process": {"name": "discrete-vp"}},
        {"name": "epsilon", "process": {"name": "discrete-vp", "betas": {"schedule": "linear", "steps": 10, "end": 2}}},
        {"name": "epsilon", "process": {"name": "discrete-vp", "alphas_cumprod": [0.9]}},
        {"name": "epsilon", "process": {"name": "discrete-vp", "alphas_cumprod": [0.5, 0.9]}},
        {"name": "epsilon", "process": {"name": "discrete-vp", "alphas_cumprod": [0.5, 0.0]}},
        {"name": "epsilon", "process": {"name": "vp"}, "pixels": [1, -1]},
        {"name": "epsilon", "process": {"name": "vp"}, "pixels": [0, math.inf]},
        {"name": "edm", "data_std": 0},
        {"name": "edm", "surprise": 1},
        {"name": "discrete", "sigmas": []},
    ],
    ids=str,
)
def test_one_that_cannot_be_meant_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Parametrisation).validate_python(value)


@every_process
def test_one_survives_json(process: VariancePreserving) -> None:
    adapter: TypeAdapter[Parametrisation] = TypeAdapter(Parametrisation)
    once = Epsilon(pixels=(-1, 1), process=process)
    again = adapter.validate_json(adapter.dump_json(once))
    assert again == once
    assert again.factors(0.3) == once.factors(0.3)
