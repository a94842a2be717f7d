"""The U-Net of ADM (Dhariwal & Nichol 2021, "Diffusion models beat GANs", section 3) and of the code around it.

With few options it is that of improved-diffusion (Nichol & Dhariwal 2021), of consistency models (Song 2023), and the
network that EDM (Karras 2022) calls by the first author's name.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.layers import Attention, Pointwise

Resample = Literal["down", "up"]


def shrink(x: Tensor) -> Tensor:
    """Half the side: means of 2 x 2 pixels."""
    return F.avg_pool2d(x, 2)


def grow(x: Tensor) -> Tensor:
    """Twice the side: each pixel four times."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Block(nn.Module):
    """A residual block as BigGAN's, with self-attention behind it where `attention` is given.

    Args:
        in_channels, out_channels: of the features.
        embedding: width of what the block is told of noise level and class.
        groups: of the first and of the second norm.
        film: whether that scales and shifts the second norm's output; otherwise it is added before it.
        resample: whether the block also halves or doubles the side, between its first norm and convolution.
        attention: what comes last.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding: int,
        groups: tuple[int, int],
        film: bool,
        resample: Resample | None = None,
        attention: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(groups[0], in_channels)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * out_channels if film else out_channels)
        self.norm_out = nn.GroupNorm(groups[1], out_channels)
        self.conv_out = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if in_channels == out_channels else Pointwise(in_channels, out_channels)
        self.attention = attention or nn.Identity()
        self.scales, self.resample = film, resample
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        h = F.silu(self.norm_in(x))
        if self.resample is not None:
            resample = shrink if self.resample == "down" else grow
            x, h = resample(x), resample(h)
        h, film = self.conv_in(h), film[:, :, None, None]
        if self.scales:
            scale, shift = film.chunk(2, dim=1)
            h = self.norm_out(h) * (1 + scale) + shift
        else:
            h = self.norm_out(h + film)
        h = self.skip(x) + self.conv_out(F.silu(h))
        out: Tensor = self.attention(h)
        return out


class Resampling(nn.Module):
    """A 3 x 3 convolution that halves the side, or comes after it was doubled; told nothing of the noise level."""

    def __init__(self, channels: int, resample: Resample) -> None:
        super().__init__()
        self.down = resample == "down"
        self.conv = nn.Conv2d(channels, channels, 3, stride=2 if self.down else 1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x if self.down else grow(x))
        return out


class ADM(nn.Module):
    """The U-Net of ADM.

    Its blocks stand in `down`, `middle` and `up` in the order in which they run. What each block is told is computed in
    `condition`, for one noise level and class at a time, so that an image's bits do not depend on the batch's width.

    Args:
        image_channels: channels of the image, in and out.
        channels: feature channels that the multipliers multiply.
        multipliers: feature channels of each resolution, from the finest; every entry after the first halves the side.
        blocks: residual blocks of each resolution on the way down; there is one more on the way up.
        attention: whether each resolution has self-attention after its blocks.
        heads: of self-attention on the way down and in the middle, and on the way up; None where head_channels decides.
        head_channels: channels of a head; None where `heads` decides. Where there are fewer, there is no attention.
        classes: number of classes that it knows; None if it is not told any.
        film: see Block.
        resample: whether residual blocks change the side, or convolutions of their own.
        group_channels: least channels of a group of the norms, which have 32 groups where that allows it.

    Raises:
        ValueError: there is no such network; the message says why.
    """

    frequencies: Tensor

    def __init__(
        self,
        image_channels: int = 3,
        channels: int = 128,
        multipliers: Sequence[float] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[bool] = (False, True, True, False),
        heads: Sequence[int] | None = None,
        head_channels: int | None = 64,
        classes: int | None = None,
        film: bool = True,
        resample: Literal["blocks", "convolutions"] = "blocks",
        group_channels: int = 1,
    ) -> None:
        super().__init__()
        if not len(multipliers) == len(attention) > 0:
            raise ValueError(
                f"multipliers and attention have {len(multipliers)} and {len(attention)} entries; "
                "they must have one for each resolution"
            )
        if (heads is None) == (head_channels is None):
            raise ValueError("give the number of heads or the channels of a head: one of the two, and not both")
        if resample not in ("blocks", "convolutions"):
            raise ValueError(f"nothing resamples by {resample!r}; allowed: blocks, convolutions")
        if channels % 2:
            raise ValueError(f"half of the channels tell the noise level's sines: {channels} are odd")
        widths = [int(multiplier * channels) for multiplier in multipliers]
        embedding = 4 * channels
        self._group_channels = group_channels
        self._embedding, self._film = embedding, film
        half = channels // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.embed = nn.Sequential(nn.Linear(channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.embed_class = None if classes is None else nn.Embedding(classes, embedding)

        def attend(width: int, upward: bool) -> Attention | None:
            count = heads[upward] if heads else width // (head_channels or 1)
            return Attention(width, self._groups(width), count) if count else None

        def change(width: int, resample_to: Resample) -> nn.Module:
            if resample == "convolutions":
                return Resampling(width, resample_to)
            return self._block(width, width, resample_to)

        self.multiple = 2 ** (len(widths) - 1)  # that an image's side must be of
        width = widths[0]
        skips = [width]
        self.conv_in = nn.Conv2d(image_channels, width, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, wider in enumerate(widths):
            if level > 0:
                self.down.append(change(width, "down"))
                skips.append(width)
            for _ in range(blocks):
                self.down.append(
                    self._block(width, wider, attention=attend(wider, False) if attention[level] else None)
                )
                width = wider
                skips.append(width)
        self.middle = nn.ModuleList(
            [self._block(width, width, attention=attend(width, False)), self._block(width, width)]
        )
        self.takes_skip: list[bool] = []  # whether each module of `up` takes what one of `down` left as well
        for level, narrower in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                attends = attend(narrower, True) if attention[level] else None
                self.up.append(self._block(width + skips.pop(), narrower, attention=attends))
                self.takes_skip.append(True)
                width = narrower
            if level > 0:
                self.up.append(change(width, "up"))
                self.takes_skip.append(False)
        self.norm_out = nn.GroupNorm(self._groups(width), width)
        self.conv_out = nn.Conv2d(width, image_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]
        self.film_sizes = [block.film.out_features for block in self._told()]

    def _groups(self, width: int) -> int:
        return max(1, min(32, width // self._group_channels))

    def _block(
        self, in_channels: int, out_channels: int, resample: Resample | None = None, attention: nn.Module | None = None
    ) -> Block:
        groups = self._groups(in_channels), self._groups(out_channels)
        return Block(in_channels, out_channels, self._embedding, groups, self._film, resample, attention)

    def _told(self) -> list[Block]:
        """All modules that are told of noise level and class, in the order in which they run."""
        return [module for module in (*self.down, *self.middle, *self.up) if isinstance(module, Block)]

    def condition(self, noise_level: Tensor, label: Tensor | None = None) -> Tensor:
        """What all blocks are told, [n, f], of noise levels [n] as the network was trained to be told them.

        Args:
            noise_level: float32 [n].
            label: classes, int64 [n] below `classes`, or `classes` for none; None tells no image's.
        """
        phases = noise_level[:, None] * self.frequencies
        embedding = self.embed(torch.cat([phases.cos(), phases.sin()], dim=1))
        if label is not None and self.embed_class is not None:
            last = self.embed_class.num_embeddings - 1
            embedding = embedding + self.embed_class(label.clamp(max=last)) * (label <= last)[:, None]
        told = F.silu(embedding)
        return torch.cat([block.film(told) for block in self._told()], dim=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """The network's raw output [n, c, h, w] for x [n, c, h, w] and conditions [n, f] made by `condition`."""
        films = iter(condition.split(self.film_sizes, dim=1))

        def run(module: nn.Module, h: Tensor) -> Tensor:
            out: Tensor = module(h, next(films)) if isinstance(module, Block) else module(h)
            return out

        h = self.conv_in(x)
        skips = [h]
        for module in self.down:
            h = run(module, h)
            skips.append(h)
        for module in self.middle:
            h = run(module, h)
        for module, skipped in zip(self.up, self.takes_skip, strict=True):
            h = run(module, torch.cat([h, skips.pop()], dim=1) if skipped else h)
        out: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return out
