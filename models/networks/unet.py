"""A small noise-conditional U-Net that spends its arithmetic at low resolution."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.layers import Attention, Pointwise


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a FiLM (per-channel scale and shift) between them."""

    def __init__(self, in_channels: int, out_channels: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(groups, in_channels)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm_out = nn.GroupNorm(groups, out_channels)
        self.dropout = dropout
        self.conv_out = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if in_channels == out_channels else Pointwise(in_channels, out_channels)
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        scale, shift = film[:, :, None, None].chunk(2, dim=1)
        h = self.conv_in(F.silu(self.norm_in(x)))
        h = F.silu(self.norm_out(h) * (1 + scale) + shift)
        h = self.conv_out(F.dropout(h, self.dropout, self.training))
        out: Tensor = self.skip(x) + h
        return out


class Stage(nn.Module):
    """The residual blocks of one resolution, each followed by self-attention where the stage attends."""

    def __init__(
        self, widths: Sequence[tuple[int, int]], attend: bool, groups: int, head_channels: int, dropout: float
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(i, o, groups, dropout) for i, o in widths)
        self.attention = nn.ModuleList(
            Attention(o, groups, o // head_channels) if attend else nn.Identity() for _, o in widths
        )
        self.film_sizes = [2 * o for _, o in widths]

    def forward(self, h: Tensor, films: Iterator[Tensor]) -> Tensor:
        for block, attention in zip(self.blocks, self.attention, strict=True):
            h = attention(block(h, next(films)))
        return h


class UNet(nn.Module):
    """U-Net over pixel-unshuffled images, conditioned on the noise level, and the class if it knows any, by FiLM.

    `condition` and `forward` are apart because what depends on the noise level and the class alone is worth computing
    once for each: a sampler knows its levels in advance, and computed over the batch it would make an image's bits
    depend on the batch's width.

    Args:
        image_channels: channels of the image, in and out.
        channels: feature channels of each resolution, from the finest; every entry after the first halves the side.
        blocks: residual blocks of each resolution on the way down (and as many on the way up).
        attention: whether each resolution has self-attention after its blocks.
        patch: pixel-unshuffle factor at the door; an image's side must be a multiple of patch * 2**(len(channels) - 1).
        embedding: width of the noise-level embedding.
        groups: groups of every GroupNorm.
        head_channels: channels of an attention head.
        dropout: dropout inside the residual blocks while training.
        classes: how many classes it knows; 0 for none.

    Raises:
        ValueError: channels, blocks and attention differ in length, or a width that attends is no multiple of
            head_channels.
    """

    frequencies: Tensor

    def __init__(
        self,
        image_channels: int = 1,
        channels: Sequence[int] = (64, 128),
        blocks: Sequence[int] = (1, 2),
        attention: Sequence[bool] = (False, True),
        patch: int = 2,
        embedding: int = 256,
        groups: int = 8,
        head_channels: int = 32,
        dropout: float = 0.0,
        classes: int = 0,
    ) -> None:
        super().__init__()
        if not len(channels) == len(blocks) == len(attention):
            raise ValueError(
                f"channels, blocks and attention have {len(channels)}, {len(blocks)} and {len(attention)} entries; "
                "they must have one for each resolution"
            )
        if not channels or min(*channels, *blocks, patch, embedding, groups, head_channels) < 1:
            raise ValueError(
                f"channels {list(channels)}, blocks {list(blocks)}, patch, embedding, groups and head_channels must be "
                "1 or more, of one resolution at least"
            )
        if any(attend and width % head_channels for width, attend in zip(channels, attention, strict=True)):
            raise ValueError(f"where there is attention, channels {channels} must be multiples of {head_channels}")
        self.patch = patch
        self.side_multiple = patch * 2 ** (len(channels) - 1)
        self.register_buffer("frequencies", torch.exp(torch.linspace(0, 5, 32)), persistent=False)
        self.embed = nn.Sequential(nn.Linear(64, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        if classes:
            self.embed_label = nn.Embedding(classes + 1, embedding)  # the last stands for no label
            nn.init.zeros_(self.embed_label.weight)
        self.conv_in = nn.Conv2d(image_channels * patch**2, channels[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        for i, width in enumerate(channels):
            coarsest = i == len(channels) - 1
            inputs = [width] * blocks[i]
            self.down.append(Stage([(w, width) for w in inputs], attention[i], groups, head_channels, dropout))
            if not coarsest:
                inputs[0] = 2 * width  # the skip connection
                self.shrink.append(nn.Conv2d(width, channels[i + 1], 3, stride=2, padding=1))
                self.grow.append(nn.Conv2d(channels[i + 1], width, 3, padding=1))
            self.up.append(Stage([(w, width) for w in inputs], attention[i], groups, head_channels, dropout))
        self.film_sizes = [size for stage in (*self.down, *reversed(self.up)) for size in stage.film_sizes]
        self.film = nn.Linear(embedding, sum(self.film_sizes))
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        self.norm_out = nn.GroupNorm(groups, channels[0])
        self.conv_out = nn.Conv2d(channels[0], image_channels * patch**2, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)

    def condition(self, noise_level: Tensor, label: Tensor | None = None) -> Tensor:
        """FiLM parameters [n, f].

        Args:
            noise_level: [n], given as c_noise = log(sigma) / 4 (Karras 2022, Table 1).
            label: int64 [n], the class of each, or the number of classes for none; left out where it knows no classes.
        """
        phases = noise_level[:, None] * self.frequencies
        h = self.embed[0](torch.cat([phases.cos(), phases.sin()], dim=1))
        if label is not None:
            h = h + self.embed_label(label)
        film: Tensor = self.film(self.embed[1:](h))
        return film

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """The network's raw output [n, c, h, w] for x [n, c, h, w] and conditions [n, f] made by `condition`."""
        films = iter(condition.split(self.film_sizes, dim=1))
        h = self.conv_in(F.pixel_unshuffle(x, self.patch))
        skips = []
        for i, stage in enumerate(self.down):
            h = stage(h, films)
            if i < len(self.shrink):
                skips.append(h)
                h = self.shrink[i](h)
        for i in reversed(range(len(self.up))):
            h = self.up[i](h, films)
            if i > 0:
                h = self.grow[i - 1](F.interpolate(h, scale_factor=2.0, mode="nearest"))
                h = torch.cat([h, skips.pop()], dim=1)
        h = self.conv_out(F.silu(self.norm_out(h)))
        return F.pixel_shuffle(h, self.patch)
