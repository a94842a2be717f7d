"""Objectives that make a network a score model."""

import math

import torch
from torch import Tensor, nn

from models.score import Preconditioning


def stratified_log_normal(n: int, log_mean: float, log_std: float, generator: torch.Generator) -> Tensor:
    """n noise levels [n], log-normal, one from each n-th part of the distribution.

    Each level alone is distributed as in Karras 2022, Table 1; together they cover the range evenly, which makes the
    loss of a batch less noisy.
    """
    u = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    normal = math.sqrt(2) * torch.erfinv((2 * u - 1).clamp(-0.999999, 0.999999))
    return torch.exp(log_mean + log_std * normal)


def denoising_score_matching(
    network: nn.Module, preconditioning: Preconditioning, x: Tensor, sigma: Tensor, noise: Tensor
) -> Tensor:
    """Denoising score matching (Vincent 2011; Song & Ermon 2019, eq. 5), weighted as in Karras 2022: scalar.

    The loss |s(x + sigma z, sigma) + z / sigma|^2, times the weight sigma^4 (sigma^2 + sd^2) / (sigma sd)^2, is a plain
    mean squared error between the network's output and the part of the clean image that the preconditioning leaves to
    it (Karras 2022, eq. 8), of the same size at every sigma.

    Args:
        network: has `condition` and `forward` as ScoreModel expects.
        preconditioning: of the model that is trained.
        x: clean images [n, c, h, w] in [0, 1].
        sigma: noise levels [n].
        noise: standard normal, shaped as x.
    """
    s = sigma[:, None, None, None]
    clean = x - preconditioning.mean
    noisy = clean + s * noise
    variance, data_variance = s**2, preconditioning.std**2
    total = variance + data_variance
    target = (clean - noisy * data_variance / total) * total.sqrt() / (s * preconditioning.std)
    condition = network.condition(sigma.log() / 4)  # type: ignore[operator]
    output = network(noisy * total.rsqrt(), condition)
    return torch.mean((output.float() - target) ** 2)
