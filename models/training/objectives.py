"""Objectives that make a network a score model, each as the loss of every image of a batch.

All of them look at the noised data, x~ = x + sigma z: what is learned is the score of p_sigma.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.score import Preconditioning

ObjectiveName = Literal["edm", "denoising", "sliced", "exact"]


class Objective(nn.Module):
    """An objective of a network as one module, whose forward is all that is differentiated in a step.

    Args:
        name: which.
        network: has `condition` and `forward` as ScoreModel expects.
        preconditioning: of the model that is trained.
    """

    def __init__(self, name: ObjectiveName, network: nn.Module, preconditioning: Preconditioning) -> None:
        super().__init__()
        self.network, self.preconditioning = network, preconditioning
        self.normals = 2 if name == "sliced" else 1
        self._function = FUNCTIONS[name]

    def forward(self, x: Tensor, sigma: Tensor, *normals: Tensor) -> Tensor:
        """The loss of each image [n].

        Args:
            x: clean images [n, c, h, w] in [0, 1].
            sigma: noise levels [n].
            normals: as many standard normal tensors, shaped as x, as `normals` says.
        """
        return self._function(self.network, self.preconditioning, x, sigma, *normals)


def score(network: nn.Module, preconditioning: Preconditioning, x: Tensor, sigma: Tensor) -> Tensor:
    """The model's score [n, c, h, w] at x [n, c, h, w], each image at its own noise level [n], differentiable."""
    s = sigma[:, None, None, None]
    total = s**2 + preconditioning.std**2
    centred = x - preconditioning.mean
    condition = network.condition(sigma.log() / 4)  # type: ignore[operator]
    output: Tensor = network(centred * total.rsqrt(), condition)
    return preconditioning.std / (s * total.sqrt()) * output.float() - centred / total


def edm(network: nn.Module, preconditioning: Preconditioning, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Denoising score matching (Vincent 2011; Song & Ermon 2019, eq. 5), weighted as in Karras 2022: [n].

    The loss |s(x + sigma z, sigma) + z / sigma|^2, times the weight sigma^4 (sigma^2 + sd^2) / (sigma sd)^2, is a plain
    mean squared error between the network's output and the part of the clean image that the preconditioning leaves to
    it (Karras 2022, eq. 8), of the same size at every sigma.
    """
    s = sigma[:, None, None, None]
    clean = x - preconditioning.mean
    noisy = clean + s * noise
    variance, data_variance = s**2, preconditioning.std**2
    total = variance + data_variance
    target = (clean - noisy * data_variance / total) * total.sqrt() / (s * preconditioning.std)
    condition = network.condition(sigma.log() / 4)  # type: ignore[operator]
    output: Tensor = network(noisy * total.rsqrt(), condition)
    return ((output.float() - target) ** 2).flatten(1).mean(1)


def denoising(network: nn.Module, preconditioning: Preconditioning, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Denoising score matching as NCSN weights it (Song & Ermon 2019, eqs. 5 and 6; NCSNv2 too): [n].

    1/2 |s(x + sigma z, sigma) + z / sigma|^2, summed over the pixels, times lambda(sigma) = sigma^2.
    """
    s = sigma[:, None, None, None]
    residual = s * score(network, preconditioning, x + s * noise, sigma) + noise
    return (residual**2).flatten(1).sum(1) / 2


def sliced(
    network: nn.Module, preconditioning: Preconditioning, x: Tensor, sigma: Tensor, noise: Tensor, direction: Tensor
) -> Tensor:
    """Sliced score matching with reduced variance (Song et al. 2019, eq. 8), times lambda(sigma) = sigma^2: [n].

    v^T grad(v^T s) + 1/2 |s|^2 at x~ with a random direction v, in place of the trace of `exact`: two passes through
    the network whatever the number of pixels.
    """
    s = sigma[:, None, None, None]
    with sdpa_kernel(SDPBackend.MATH):  # fused attention cannot be differentiated twice
        noisy = (x + s * noise).requires_grad_()
        at = score(network, preconditioning, noisy, sigma)
        (gradient,) = torch.autograd.grad((at * direction).sum(), noisy, create_graph=True)
    return sigma**2 * ((gradient * direction).flatten(1).sum(1) + (at**2).flatten(1).sum(1) / 2)


def exact(network: nn.Module, preconditioning: Preconditioning, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Score matching as it is defined (Hyvarinen 2005, eq. 4), times lambda(sigma) = sigma^2: [n].

    tr(grad s) + 1/2 |s|^2 at x~. The trace takes a pass through the network for every number of an image: for points in
    the plane, not for pictures.
    """
    s = sigma[:, None, None, None]
    with sdpa_kernel(SDPBackend.MATH):
        noisy = (x + s * noise).requires_grad_()
        at = score(network, preconditioning, noisy, sigma).flatten(1)
        trace = torch.zeros_like(sigma)
        for i in range(at.shape[1]):
            (gradient,) = torch.autograd.grad(at[:, i].sum(), noisy, create_graph=True)
            trace = trace + gradient.flatten(1)[:, i]
    return sigma**2 * (trace + (at**2).sum(1) / 2)


FUNCTIONS: dict[ObjectiveName, Callable[..., Tensor]] = {
    "edm": edm,
    "denoising": denoising,
    "sliced": sliced,
    "exact": exact,
}
