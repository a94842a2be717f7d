"""Objectives that make a network a score model, or a consistency model.

All of them look at the noised data, x~ = x + sigma z. What the first four learn is the score of p_sigma; the last one
learns where the probability flow through x~ ends, from noise that is not drawn at random: see distillation.
"""

import math
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.parametrisation import Edm, Parametrisation

ObjectiveName = Literal["edm", "denoising", "sliced", "exact", "consistency"]
TWICE = ("sliced", "exact")  # that differentiate the score itself
ROUND = 0.00054  # of the pseudo-Huber distance, by the root of the number of pixels, which are in [-1, 1]
Score = Callable[[Tensor], Tensor]


class Objective(nn.Module):
    """An objective of a network as one module, whose forward is all that is differentiated in a step.

    The loss of an image is weighted by lambda(sigma) = sigma^2 (Song & Ermon 2019, eq. 6). `edm` is `denoising` with
    the weight of Karras 2022 (eq. 8), for the denoised image (sigma^2 + sd^2) / (sigma sd)^2, and a mean over the
    pixels: it makes the loss that of the network's own output, of the same size at every sigma. The loss of
    `consistency` is a distance in pixels, and weighted alike at all noise levels.

    Args:
        name: which.
        network: has `condition` and `forward` as ScoreModel expects.
        parametrisation: what turns its output into a score.

    Raises:
        ValueError: the objective is not for this network.
    """

    def __init__(self, name: ObjectiveName, network: nn.Module, parametrisation: Parametrisation) -> None:
        super().__init__()
        if name == "edm" and not isinstance(parametrisation, Edm):
            raise ValueError("the objective edm is for a preconditioned unet; for this network, take denoising")
        if (name == "consistency") == parametrisation.denoises:
            raise ValueError(f"the objective {name} is not for a parametrisation of the kind {parametrisation.name}")
        self.name, self.network, self.parametrisation = name, network, parametrisation
        self.normals = 2 if name == "sliced" else 1
        self._function = FUNCTIONS[name]

    def factors(self, sigmas: Iterable[float]) -> Tensor:
        """What surrounds the network at each of n noise levels, [n, 4], for `forward`.

        Raises:
            ValueError: the network does not know one of them.
        """
        return torch.tensor([self.parametrisation.factors(sigma) for sigma in sigmas])

    def forward(
        self, x: Tensor, sigma: Tensor, factors: Tensor, *normals: Tensor, label: Tensor | None = None
    ) -> Tensor:
        """The weighted loss of each image [n].

        Args:
            x: clean images [n, c, h, w] in [0, 1].
            sigma: noise levels [n].
            factors: theirs.
            normals: as many standard normal tensors, shaped as x, as `normals` says.
            label: int64 [n], what a network with classes is told of each image.
        """
        told = () if label is None else (label,)
        condition = self.network.condition(factors[:, 1], *told)  # type: ignore[operator]
        c_in, _, skip, out = factors.T[..., None, None, None]

        def score(noisy: Tensor) -> Tensor:
            centred = noisy - self.parametrisation.mean
            output: Tensor = self.network(c_in * centred, condition)
            scored: Tensor = skip * centred + out * output.float()
            return scored

        losses = self._function(score, x, sigma, *normals)
        if self.name == "consistency":
            return losses
        weight = 2 / (factors[:, 3] ** 2 * x[0].numel()) if self.name == "edm" else sigma**2
        return weight * losses


def denoising(score: Score, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Denoising score matching (Vincent 2011; Song & Ermon 2019, eq. 5): 1/2 |s(x + sigma z) + z / sigma|^2, [n]."""
    s = sigma[:, None, None, None]
    residual = score(x + s * noise) + noise / s
    return (residual**2).flatten(1).sum(1) / 2


def sliced(score: Score, x: Tensor, sigma: Tensor, noise: Tensor, direction: Tensor) -> Tensor:
    """Sliced score matching with reduced variance (Song et al. 2019, eq. 8): v^T grad(v^T s) + 1/2 |s|^2 at x~, [n].

    The random direction v stands in place of the trace of `exact`: two passes through the network, whatever the number
    of pixels.
    """
    with sdpa_kernel(SDPBackend.MATH):  # fused attention cannot be differentiated twice
        noisy = (x + sigma[:, None, None, None] * noise).requires_grad_()
        at = score(noisy)
        (gradient,) = torch.autograd.grad((at * direction).sum(), noisy, create_graph=True)
    return (gradient * direction).flatten(1).sum(1) + (at**2).flatten(1).sum(1) / 2


def exact(score: Score, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Score matching as it was defined (Hyvarinen 2005, eq. 4): tr(grad s) + 1/2 |s|^2 at x~, [n].

    The trace takes a pass through the network for every number of an image: for points in the plane, not for pictures.
    """
    with sdpa_kernel(SDPBackend.MATH):
        noisy = (x + sigma[:, None, None, None] * noise).requires_grad_()
        at = score(noisy).flatten(1)
        trace = torch.zeros_like(sigma)
        for i in range(at.shape[1]):
            (gradient,) = torch.autograd.grad(at[:, i].sum(), noisy, create_graph=True)
            trace = trace + gradient.flatten(1)[:, i]
    return trace + (at**2).sum(1) / 2


def consistency(score: Score, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """How far f(x + sigma z) is from x, where the noise z is that from which the probability flow leads to x, [n].

    The distance is pseudo-Huber's (Song & Dhariwal 2023, section 3.3), over the root of the number of pixels.
    """
    s = sigma[:, None, None, None]
    noisy = x + s * noise
    apart = (noisy + s**2 * score(noisy) - x).flatten(1)
    size = apart.shape[1]
    least = ROUND / 2 * math.sqrt(size)  # ours are in [0, 1]
    return ((apart**2).sum(1) + least**2).sqrt().sub(least) / math.sqrt(size)


FUNCTIONS: dict[ObjectiveName, Callable[..., Tensor]] = {
    "edm": denoising,
    "denoising": denoising,
    "sliced": sliced,
    "exact": exact,
    "consistency": consistency,
}
