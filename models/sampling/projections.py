"""What is known of an image: an orthogonal projection Q of it, x <- x + Q (known + level z - x).

As Q is orthogonal, white noise projected by it is noise of the same level in what Q sees, whichever Q it is. What is
computed of an image depends on it alone, to the bit: sums are additions of whole tensors, in a fixed order.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

HALVINGS = 32  # of the range that a shift is looked for in: to below what a float32 near 1 can tell


@dataclass(frozen=True, eq=False)
class Unmasked:
    """Q keeps the pixels outside a mask: inpainting.

    Args:
        repaint: bool, broadcastable to [c, h, w], true where nothing is known.
    """

    repaint: Tensor


class Means(ABC):
    """Q is the mean of groups of numbers, put in the place of each of them. Two of a kind are equal and hash alike."""

    @abstractmethod
    def of(self, x: Tensor) -> Tensor:
        """Q x, for images [n, c, h, w]."""

    def toward(self, x: Tensor, target: Tensor) -> Tensor:
        """x + Q (target - x)."""
        return x + self.of(target - x)

    def exactly(self, x: Tensor, known: Tensor) -> Tensor:
        """The image in [0, 1] nearest to x of which Q is that of `known`, which is in [0, 1] too.

        It is clamp(x + shift) with one shift for each group (the conditions of Karush, Kuhn and Tucker), and as the
        mean of that grows with the shift, halving a range finds it.
        """
        wanted = self.of(known)
        high = (x.abs().amax((1, 2, 3), keepdim=True) + 1).expand_as(x)
        low = -high
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            below = self.of((x + middle).clamp(0, 1)) < wanted
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (x + (low + high) / 2).clamp(0, 1)


@dataclass(frozen=True)
class Blocks(Means):
    """Q is the mean of each block of size x size pixels: enlarging. Height and width are multiples of `size`."""

    size: int

    def of(self, x: Tensor) -> Tensor:
        k = self.size
        rows = sum((x[:, :, i::k] for i in range(1, k)), start=x[:, :, ::k])
        means = sum((rows[..., i::k] for i in range(1, k)), start=rows[..., ::k]) / k**2
        return means.repeat_interleave(k, dim=2).repeat_interleave(k, dim=3)


@dataclass(frozen=True)
class Grey(Means):
    """Q is the part of each pixel along the grey axis, the mean of its channels: colouring."""

    def of(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        mean = sum((x[:, i : i + 1] for i in range(1, channels)), start=x[:, :1]) / channels
        return mean.expand_as(x)


Projection = Unmasked | Means
