"""The RefineNets of NCSN (Song & Ermon 2019) and NCSNv2 (Song & Ermon 2020), as their authors trained them.

Both are one structure: residual stages, of which the later ones dilate instead of shrinking the image, then RefineNet
blocks (Lin 2017) from the last stage back to the first. Modules have the names that they have in the authors' code, but
for `stages` and `refine`, which are numbered there in a way of their own.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.layers import Pointwise

Norm = Callable[[int], nn.Module]
Pool = Callable[[Tensor], Tensor]


class StageShape(NamedTuple):
    """A residual stage: its channels in parts of the network's, whether it halves the image, and its dilation."""

    width: int
    shrinks: bool
    dilation: int


STAGES = {
    4: (StageShape(1, False, 1), StageShape(2, True, 1), StageShape(2, False, 2), StageShape(2, False, 4)),
    5: (
        StageShape(1, False, 1),
        *[StageShape(2, True, 1)] * 2,
        StageShape(4, False, 2),
        StageShape(4, False, 4),
    ),
    6: (
        StageShape(1, False, 1),
        *[StageShape(2, True, 1)] * 3,
        StageShape(4, False, 2),
        StageShape(4, False, 4),
    ),
}


class NoNorm(nn.Module):
    """Stands where a network has no normalisation."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:  # noqa: ARG002 (as other norms are called)
        return x


class InstanceNormPlus(nn.Module):
    """InstanceNorm++ (Song & Ermon 2019, Appendix A.1) for all noise levels alike."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(nn.init.normal_(torch.empty(channels), 1.0, 0.02))
        self.alpha = nn.Parameter(nn.init.normal_(torch.empty(channels), 1.0, 0.02))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:  # noqa: ARG002 (as other norms are called)
        return instance_norm_plus(x, self.gamma[None], self.alpha[None], self.beta[None])


class ConditionalInstanceNormPlus(nn.Module):
    """InstanceNorm++ with a scale, a weight of the means and a shift of its own for each of the noise levels.

    `part` is where its row of `embed` lies in the condition that the network is given.
    """

    part = slice(0)

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(levels, 3 * channels)
        with torch.no_grad():
            self.embed.weight[:, : 2 * channels].normal_(1.0, 0.02)
            self.embed.weight[:, 2 * channels :].zero_()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gamma, alpha, beta = condition[:, self.part].chunk(3, dim=1)
        return instance_norm_plus(x, gamma, alpha, beta)


def instance_norm_plus(x: Tensor, gamma: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """gamma ((x - mu) / sd + alpha (mu - m) / v) + beta (Song & Ermon 2019, Appendix A.1), [n, c, h, w].

    mu and sd are the mean and standard deviation of each channel of an image, m and v those of its mus.

    Args:
        x: [n, c, h, w].
        gamma, alpha, beta: [n, c] or [1, c].
    """
    means = x.mean(dim=(2, 3))
    spread = means.var(dim=1, keepdim=True)  # unbiased, unlike that of InstanceNorm
    means = (means - means.mean(dim=1, keepdim=True)) / torch.sqrt(spread + 1e-5)
    h = F.instance_norm(x) + (alpha * means)[:, :, None, None]
    return gamma[:, :, None, None] * h + beta[:, :, None, None]


def elu(x: Tensor) -> Tensor:
    """ELU of [n, c, h, w], with bits that do not depend on n.

    The end of a tensor, and with two threads of each half of it, may be computed by another exponential than the rest:
    an image must not contain such an end in one batch and not in another.
    """
    return F.elu(x) if x[0].numel() % 64 == 0 else torch.stack([F.elu(image) for image in x])


def conv3x3(in_channels: int, out_channels: int, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=bias)


class ConvMeanPool(nn.Module):
    """A 3x3 convolution, then the means of 2x2 pixels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(x), 2)


class PointwiseMeanPool(nn.Module):
    """A 1x1 convolution and the means of 2x2 pixels, which commute: the means come first, at a quarter of the cost."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Pointwise(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.avg_pool2d(x, 2))
        return out


class ResidualBlock(nn.Module):
    """Norm, ELU, convolution, twice, beside a shortcut. The block that `enters` a stage changes the image's shape."""

    def __init__(self, in_channels: int, out_channels: int, shape: StageShape, enters: bool, norm: Norm) -> None:
        super().__init__()
        self.normalize1, self.normalize2 = norm(in_channels), norm(in_channels)
        self.conv1 = conv3x3(in_channels, in_channels, shape.dilation)
        self.conv2: nn.Module = conv3x3(in_channels, out_channels, shape.dilation)
        self.shortcut: nn.Module = nn.Identity()
        if enters and shape.shrinks:
            self.conv2 = ConvMeanPool(in_channels, out_channels)
            self.shortcut = PointwiseMeanPool(in_channels, out_channels)
        elif enters:
            self.shortcut = conv3x3(in_channels, out_channels, shape.dilation)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv1(elu(self.normalize1(x, condition)))
        h = self.conv2(elu(self.normalize2(h, condition)))
        out: Tensor = self.shortcut(x) + h
        return out


class ResidualConvUnits(nn.ModuleDict):
    """Residual units in a row, each of two norms, ELUs and convolutions without bias."""

    def __init__(self, channels: int, units: int, norm: Norm) -> None:
        super().__init__()
        self.units = units
        for name in (f"{unit}_{layer}" for unit in range(1, units + 1) for layer in (1, 2)):
            self[f"{name}_norm"] = norm(channels)
            self[f"{name}_conv"] = conv3x3(channels, channels, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for unit in range(1, self.units + 1):
            h = x
            for name in (f"{unit}_1", f"{unit}_2"):
                h = self[f"{name}_conv"](elu(self[f"{name}_norm"](h, condition)))
            x = x + h
        return x


class MultiResolutionFusion(nn.Module):
    """The sum of two feature maps, both brought to the channels wanted and the second to the size of the first."""

    def __init__(self, in_channels: Sequence[int], out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv3x3(c, out_channels) for c in in_channels)
        self.norms = nn.ModuleList(norm(c) for c in in_channels)

    def forward(self, xs: Sequence[Tensor], condition: Tensor) -> Tensor:
        fine, coarse = (conv(norm(x, condition)) for conv, norm, x in zip(self.convs, self.norms, xs, strict=True))
        if coarse.shape != fine.shape:
            coarse = F.interpolate(coarse, fine.shape[2:], mode="bilinear", align_corners=True)
        fused: Tensor = fine + coarse
        return fused


class ChainedResidualPooling(nn.Module):
    """Two poolings, one after the other, each with a convolution of its own, all added up."""

    def __init__(self, channels: int, norm: Norm, pool: Pool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv3x3(channels, channels, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(norm(channels) for _ in range(2))
        self.pool = pool

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = path = elu(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            path = conv(self.pool(norm(path, condition)))
            x = x + path
        return x


class RefineBlock(nn.Module):
    """Joins the features of a stage with what was refined so far (Lin 2017, section 3.2).

    Args:
        in_channels: of the stage's features and, but for the last stage, of what was refined so far.
        out_channels: of the result.
        units: residual units at the end.
        norm, pool: of the network.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, units: int, norm: Norm, pool: Pool) -> None:
        super().__init__()
        self.adapt_convs = nn.ModuleList(ResidualConvUnits(c, 2, norm) for c in in_channels)
        self.msf = MultiResolutionFusion(in_channels, out_channels, norm) if len(in_channels) > 1 else None
        self.crp = ChainedResidualPooling(out_channels, norm, pool)
        self.output_convs = ResidualConvUnits(out_channels, units, norm)

    def forward(self, xs: Sequence[Tensor], condition: Tensor) -> Tensor:
        hs = [adapt(x, condition) for adapt, x in zip(self.adapt_convs, xs, strict=True)]
        h = hs[0] if self.msf is None else self.msf(hs, condition)
        out: Tensor = self.output_convs(self.crp(h, condition), condition)
        return out


class RefineNet(nn.Module):
    """What both networks have in common.

    An image's side must be even, with 5 stages a multiple of 4, with 6 of 8, and larger than that.

    Args:
        image_channels: channels of the image, in and out.
        ngf: feature channels at full resolution.
        stages: residual stages: 4, 5 or 6.
        norm, refine_norm: normalisation of the residual stages and of the refining ones.
        pool: of the chained residual pooling, 5 x 5, keeping the size.

    Raises:
        ValueError: there is no network of so many stages.
    """

    def __init__(self, image_channels: int, ngf: int, stages: int, norm: Norm, refine_norm: Norm, pool: Pool) -> None:
        super().__init__()
        if stages not in STAGES:
            raise ValueError(f"no RefineNet of {stages} stages; allowed: {', '.join(map(str, STAGES))}")
        shapes = STAGES[stages]
        widths = [ngf * shape.width for shape in shapes]
        self.begin_conv = conv3x3(image_channels, ngf)
        self.stages = nn.ModuleList()
        for i, (shape, width) in enumerate(zip(shapes, widths, strict=True)):
            entering = ResidualBlock(widths[max(i - 1, 0)], width, shape, i > 0, norm)
            self.stages.append(nn.ModuleList([entering, ResidualBlock(width, width, shape, False, norm)]))
        self.refine = nn.ModuleList()
        for i in reversed(range(stages)):
            inputs = [widths[i]] if i == stages - 1 else [widths[i], widths[i]]
            units = 1 if i > 0 else 3
            self.refine.append(RefineBlock(inputs, widths[max(i - 1, 0)], units, refine_norm, pool))
        self.normalizer = norm(ngf)
        self.end_conv = conv3x3(ngf, image_channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """The network's raw output [n, c, h, w] for x [n, c, h, w] and conditions [n, f] made by `condition`."""
        h = self.begin_conv(2 * x - 1)
        features = []
        for stage in self.stages:
            for block in stage:  # type: ignore[attr-defined]
                h = block(h, condition)
            features.append(h)
        refined: list[Tensor] = []
        for block in self.refine:
            refined = [block([features.pop(), *refined], condition)]
        out: Tensor = self.end_conv(elu(self.normalizer(refined[0], condition)))
        return out


class RefineNetV1(RefineNet):
    """`CondRefineNetDilated` of NCSN: its output is the score, and every norm knows the index of the noise level.

    Args:
        levels: noise levels that it is trained at.
        image_channels, ngf, stages: see RefineNet.
    """

    def __init__(self, levels: int, image_channels: int = 1, ngf: int = 64, stages: int = 4) -> None:
        def norm(channels: int) -> ConditionalInstanceNormPlus:
            return ConditionalInstanceNormPlus(channels, levels)

        super().__init__(image_channels, ngf, stages, norm, norm, lambda x: F.avg_pool2d(x, 5, 1, 2))
        start = 0
        for module in self.norms():
            module.part = slice(start, start + module.embed.embedding_dim)
            start = module.part.stop

    def norms(self) -> list[ConditionalInstanceNormPlus]:
        """All norms, in the order of their parts of a condition."""
        return [module for module in self.modules() if isinstance(module, ConditionalInstanceNormPlus)]

    def condition(self, noise_level: Tensor) -> Tensor:
        """What all norms know of noise levels [n], given by their indices as floats: [n, f]."""
        indices = noise_level.long()
        return torch.cat([norm.embed(indices) for norm in self.norms()], dim=1)


class RefineNetV2(RefineNet):
    """`NCSNv2` and, with 5 and 6 stages, `NCSNv2Deeper` and `NCSNv2Deepest`: its output is sigma times the score.

    Args:
        image_channels, ngf, stages: see RefineNet.
    """

    def __init__(self, image_channels: int = 3, ngf: int = 128, stages: int = 4) -> None:
        super().__init__(
            image_channels, ngf, stages, InstanceNormPlus, lambda _: NoNorm(), lambda x: F.max_pool2d(x, 5, 1, 2)
        )

    def condition(self, noise_level: Tensor) -> Tensor:
        """Nothing, [n, 0]: the network is not told the noise level."""
        return noise_level.new_empty(len(noise_level), 0)
