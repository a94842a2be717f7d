"""A U-Net guided by a worse one."""

from typing import Any

import torch
from torch import Tensor, nn

from models.networks.unet import UNet


class GuidedUNet(nn.Module):
    """Autoguidance (Karras 2024, "Guiding a diffusion model with a bad version of itself").

    The denoiser is D = D_guide + weight (D_main - D_guide); as both have the same preconditioning, their networks add
    up alike. Where the smaller and less trained guide errs, the main network errs in the same direction but less, and
    going on from the one past the other leads away from what both do wrong.

    Args:
        main, guide: arguments of the two U-Nets.
        weight: 1 is the main network alone.
    """

    def __init__(self, main: dict[str, Any], guide: dict[str, Any], weight: float) -> None:
        super().__init__()
        self.main, self.guide, self.weight = UNet(**main), UNet(**guide), weight
        self._of_main = sum(self.main.film_sizes)

    def condition(self, noise_level: Tensor) -> Tensor:
        """The conditions of both networks for noise levels [n], one after the other: [n, f]."""
        return torch.cat([self.main.condition(noise_level), self.guide.condition(noise_level)], dim=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """The guided output [n, c, h, w] for x [n, c, h, w] and conditions [n, f] made by `condition`."""
        main, guide = self.main(x, condition[:, : self._of_main]), self.guide(x, condition[:, self._of_main :])
        out: Tensor = main + (self.weight - 1) * (main - guide)
        return out
