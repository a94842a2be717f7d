"""A U-Net guided by a worse one."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.networks.unet import UNet


class GuidedUNet(nn.Module):
    """Autoguidance (Karras 2024, "Guiding a diffusion model with a bad version of itself").

    The denoiser is D = D_guide + weight (D_main - D_guide); as both have the same preconditioning, their networks add
    up alike. Where the smaller and less trained guide errs, the main network errs in the same direction but less, and
    going on from the one past the other leads away from what both do wrong.

    Above some noise level guidance narrows the choice between the modes of the data, below another there is nothing
    left to choose: so it may be limited to the levels between (Kynkaanniemi 2024, "Applying guidance in a limited
    interval improves sample and distribution quality in diffusion models"). Outside them the score is the main
    network's own, to the bit.

    Args:
        main, guide: arguments of the two U-Nets.
        weight: 1 is the main network alone.
        interval: the lowest and the highest noise level that is guided; None guides them all.
    """

    def __init__(
        self, main: dict[str, Any], guide: dict[str, Any], weight: float, interval: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.main, self.guide, self.weight = UNet(**main), UNet(**guide), weight
        self.lowest, self.highest = interval or (0.0, math.inf)
        self._of_main = sum(self.main.film_sizes)

    def condition(self, noise_level: Tensor) -> Tensor:
        """How far to go past `main` at noise levels log(sigma) / 4, [n], and the conditions of both networks.

        Returns:
            [n, 1 + f], for `forward`.
        """
        sigma = torch.exp(4 * noise_level)[:, None]
        past = (self.weight - 1) * ((self.lowest <= sigma) & (sigma <= self.highest))
        return torch.cat([past, self.main.condition(noise_level), self.guide.condition(noise_level)], dim=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """The guided output [n, c, h, w] for x [n, c, h, w] and conditions [n, 1 + f] made by `condition`."""
        past, of_main, of_guide = condition.tensor_split([1, 1 + self._of_main], dim=1)
        main, guide = self.main(x, of_main), self.guide(x, of_guide)
        out: Tensor = main + past[:, :, None, None] * (main - guide)
        return out
