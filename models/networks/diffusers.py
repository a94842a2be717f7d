"""UNet2DModel of diffusers, for the checkpoints that are written for it. Needs the extra `diffusers`."""

from typing import Any

from diffusers import UNet2DModel
from torch import Tensor

from models.networks.plain import Plain


class DiffusersUNet2D(Plain):
    """A UNet2DModel, of which diffusers' own code computes everything, at one width of the batch.

    Args:
        config: arguments of UNet2DModel, as its config.json has them.
    """

    def __init__(self, **config: Any) -> None:
        network: Any = UNet2DModel(**config)
        super().__init__(network)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """The network's raw output [n, c, h, w] for x [n, c, h, w] and conditions made by `condition`."""
        level, *label = condition.unbind(1)
        labels = label[0].long() if label else None
        out: Tensor = self.network(x, level, labels, return_dict=False)[0]
        return out[:, : x.shape[1]]  # without the variance that some predict as well
