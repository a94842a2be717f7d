"""NCSN++ and DDPM++ (Song 2021, "Score-based generative modeling through SDEs", appendix H), also as EDM trains them.

One U-Net with options. The two differ in how the side is halved and doubled (by a binomial filter or by means and
copies, after StyleGAN2), in what the picture does beside the features (it is shrunk along and added to them; their
pictures are added up on the way out), and in how the noise level is told (random Fourier features or sines). EDM
(Karras 2022, appendix F.1) has both under the name SongUNet, and adds classes.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.layers import Attention, Pointwise

Direction = Literal["down", "up"]
EPS = 1e-6  # of every norm
ROOT_HALF = math.sqrt(0.5)


def groups_of(channels: int) -> int:
    """Groups of a norm: of four channels or more, and no more than 32 of them."""
    return max(1, min(channels // 4, 32))


class Resample(nn.Module):
    """Halves or doubles the side by a filter; the picture is 0 beyond its edge.

    Args:
        kernel: the filter along one side, symmetric and of even length; (1, 1) gives means of 2 x 2 and copies.
        direction: which of the two.

    Raises:
        ValueError: there is no such filter.
    """

    kernel: Tensor

    def __init__(self, kernel: Sequence[float], direction: Direction) -> None:
        super().__init__()
        taps = list(kernel)
        if not taps or len(taps) % 2 or taps != taps[::-1] or not 0 < sum(taps) < math.inf:
            raise ValueError(f"a filter must be symmetric, of even length and of positive sum, not {taps}")
        one = torch.tensor(taps, dtype=torch.float32) / sum(taps)
        square = one.outer(one)
        self.direction = direction
        self.padding = (len(taps) - 1) // 2
        self.register_buffer("kernel", 4 * square if direction == "up" else square, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        weight = self.kernel.expand(channels, 1, -1, -1)
        function = F.conv_transpose2d if self.direction == "up" else F.conv2d
        return function(x, weight, stride=2, padding=self.padding, groups=channels)


class Block(nn.Module):
    """A residual block as BigGAN's, told of the noise level, with self-attention behind it where it `attends`.

    Args:
        in_channels, out_channels: of the features.
        embedding: width of what it is told.
        rescale: what the sum with the shortcut is multiplied by.
        resample: what changes the side of features and shortcut alike, before the first convolution.
        attends: whether self-attention comes last.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding: int,
        rescale: float,
        resample: Resample | None = None,
        attends: bool = False,
    ) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(groups_of(in_channels), in_channels, EPS)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.film = nn.Linear(embedding, out_channels)
        self.norm_out = nn.GroupNorm(groups_of(out_channels), out_channels, EPS)
        self.conv_out = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels and resample is None
        self.skip = nn.Identity() if same else Pointwise(in_channels, out_channels)
        self.resample = nn.Identity() if resample is None else resample
        self.attention = Attention(out_channels, groups_of(out_channels), 1, EPS, rescale) if attends else nn.Identity()
        self.rescale = rescale
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        h = self.conv_in(self.resample(F.silu(self.norm_in(x))))
        h = self.conv_out(F.silu(self.norm_out(h + film[:, :, None, None])))
        out: Tensor = self.attention((self.skip(self.resample(x)) + h) * self.rescale)
        return out


class ShrunkPicture(nn.Module):
    """One level of the picture beside the features: shrunk, and brought to their channels.

    Args:
        in_channels, out_channels: of what comes in, and of the features.
        shrink: halves the side.
        kind: `skip` hands the shrunk picture down, its features being added to the others; of `residual` the sum itself
            is handed down, and takes the place of the features.
        rescale: what that sum is multiplied by.
    """

    def __init__(
        self, in_channels: int, out_channels: int, shrink: Resample, kind: Literal["skip", "residual"], rescale: float
    ) -> None:
        super().__init__()
        self.kind, self.rescale, self.shrink = kind, rescale, shrink
        # The filter and the larger convolution see as much beyond the edge as both have taps: their order is no matter.
        self.conv = (
            Pointwise(in_channels, out_channels)
            if kind == "skip"
            else nn.Conv2d(in_channels, out_channels, 3, padding=1 + shrink.padding)
        )

    def forward(self, picture: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """The picture of this level, and the features with it."""
        if self.kind == "skip":
            picture = self.shrink(picture)
            return picture, h + self.conv(picture)
        convolved = self.conv(picture)
        weight = self.shrink.kernel.expand(convolved.shape[1], 1, -1, -1)
        both = (F.conv2d(convolved, weight, stride=2, groups=len(weight)) + h) * self.rescale
        return both, both


class ToPixels(nn.Module):
    """Norm, SiLU, convolution: features made a picture."""

    def __init__(self, channels: int, image_channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups_of(channels), channels, EPS)
        self.conv = nn.Conv2d(channels, image_channels, 3, padding=1)
        nn.init.zeros_(self.conv.weight)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.conv(F.silu(self.norm(h)))
        return out


class NCSNpp(nn.Module):
    """The U-Net of NCSN++ and DDPM++.

    Its blocks stand in `down`, `middle` and `up` in the order in which they run. What each is told is computed in
    `condition`, for one noise level and class at a time, so that an image's bits do not depend on the batch's width.

    Args:
        image_channels: channels of the image, in and out.
        channels: feature channels that the multipliers multiply.
        multipliers: feature channels of each resolution, from the finest; every entry after the first halves the side.
        blocks: residual blocks of each resolution on the way down; there is one more on the way up.
        attention: whether each resolution has self-attention: after every block on the way down, after the last one up.
            There is always one in the middle.
        kernel: of the filter that halves and doubles the side.
        picture_in: whether the shrunk picture is added to the features of each resolution, and how (ShrunkPicture).
        pictures_out: whether the result is the sum of the pictures of all resolutions, rather than that of the finest.
        rescale: whether sums with shortcuts are divided by sqrt 2.
        fourier: whether the noise level is told by random Fourier features, of frequencies that are weights, rather
            than by sines of fixed ones.
        noise_channels: numbers that it is told by.
        embedding: width of what the blocks are told.
        classes: number of classes that it knows.

    Raises:
        ValueError: there is no such network; the message says why.
    """

    frequencies: Tensor

    def __init__(
        self,
        image_channels: int = 3,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 4,
        attention: Sequence[bool] = (False, True, False, False),
        kernel: Sequence[float] = (1, 3, 3, 1),
        picture_in: Literal["skip", "residual"] | None = "residual",
        pictures_out: bool = False,
        rescale: bool = True,
        fourier: bool = True,
        noise_channels: int | None = None,
        embedding: int | None = None,
        classes: int = 0,
    ) -> None:
        super().__init__()
        if not len(multipliers) == len(attention) > 0:
            raise ValueError(
                f"multipliers and attention have {len(multipliers)} and {len(attention)} entries; "
                "they must have one for each resolution"
            )
        if picture_in not in (None, "skip", "residual"):
            raise ValueError(f"a picture cannot go in by {picture_in!r}; allowed: skip, residual, null")
        noise_channels = noise_channels or (2 * channels if fourier else channels)
        embedding = embedding or 4 * channels
        if noise_channels % 2 or noise_channels < 4:
            raise ValueError(f"noise_channels must be even and at least 4, for sines and cosines, not {noise_channels}")
        widths = [channels * multiplier for multiplier in multipliers]
        scale = ROOT_HALF if rescale else 1.0
        self.classes = classes
        half = noise_channels // 2
        self._turn = 2 * math.pi if fourier else 1.0  # of a frequency of 1
        even = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float64) / (half - 1)).float()
        self.register_buffer("frequencies", 16 * torch.randn(half) if fourier else even, persistent=fourier)
        self.embed_class = nn.Embedding(classes + 1, noise_channels) if classes else None  # the last: none of them
        self.embed = nn.Sequential(
            nn.Linear(noise_channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )

        def block(ins: int, outs: int, direction: Direction | None = None, attends: bool = False) -> Block:
            resample = None if direction is None else Resample(kernel, direction)
            return Block(ins, outs, embedding, scale, resample, attends)

        width, pictured = channels, image_channels
        self.conv_in = nn.Conv2d(image_channels, width, 3, padding=1)
        skips = [width]
        self.down, self.up, self.pictures = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, wider in enumerate(widths):
            if level > 0:
                self.down.append(block(width, width, "down"))
                skips.append(width)
                if picture_in is not None:
                    shrink = Resample(kernel, "down")
                    self.pictures.append(ShrunkPicture(pictured, width, shrink, picture_in, scale))
                    pictured = width if picture_in == "residual" else image_channels
            for _ in range(blocks):
                self.down.append(block(width, wider, attends=attention[level]))
                width = wider
                skips.append(width)
        self.middle = nn.ModuleList([block(width, width, attends=True), block(width, width)])
        self.to_pixels = nn.ModuleList()
        for level, narrower in reversed(list(enumerate(widths))):
            for i in range(blocks + 1):
                self.up.append(block(width + skips.pop(), narrower, attends=attention[level] and i == blocks))
                width = narrower
            if pictures_out or level == 0:
                self.to_pixels.append(ToPixels(width, image_channels))
            if level > 0:
                self.up.append(block(width, width, "up"))
        self.grow = Resample(kernel, "up") if pictures_out else None
        self.film_sizes = [block.film.out_features for block in self._blocks()]

    def _blocks(self) -> list[Block]:
        """All blocks, in the order in which they run."""
        return [block for block in (*self.down, *self.middle, *self.up) if isinstance(block, Block)]

    def condition(self, noise_level: Tensor, label: Tensor | None = None) -> Tensor:
        """What all blocks are told, [n, f], of noise levels [n] as the network was trained to be told them.

        Args:
            noise_level: float32 [n].
            label: classes [n]; `classes`, or None, is none of them.
        """
        phases = self._turn * noise_level.double()[:, None] * self.frequencies.double()  # thousands of radians
        told = torch.cat([phases.sin(), phases.cos()], dim=1).float()
        if self.embed_class is not None:
            none = torch.full_like(noise_level, self.classes, dtype=torch.int64)
            told = told + self.embed_class(none if label is None else label)
        embedding = self.embed(told)
        return torch.cat([block.film(embedding) for block in self._blocks()], dim=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """The network's raw output [n, c, h, w] for x [n, c, h, w] and conditions [n, f] made by `condition`."""
        films = iter(condition.split(self.film_sizes, dim=1))
        pictures = iter(self.pictures)
        picture, h = x, self.conv_in(x)
        skips = [h]
        for block in self.down:
            h = block(h, next(films))
            if isinstance(block.resample, Resample) and len(self.pictures):
                picture, h = next(pictures)(picture, h)
            skips.append(h)
        for block in self.middle:
            h = block(h, next(films))
        to_pixels = iter(self.to_pixels)
        out: Tensor | None = None
        for block in self.up:
            if isinstance(block.resample, Resample):
                if self.grow is not None:
                    out = self._add(out, next(to_pixels)(h))
            else:
                h = torch.cat([h, skips.pop()], dim=1)
            h = block(h, next(films))
        return self._add(out, next(to_pixels)(h))

    def _add(self, coarse: Tensor | None, fine: Tensor) -> Tensor:
        """The pictures of two resolutions in one."""
        if coarse is None or self.grow is None:
            return fine
        grown: Tensor = self.grow(coarse)
        return grown + fine
