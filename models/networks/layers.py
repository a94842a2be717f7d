"""Layers that more than one network is made of."""

from torch import Tensor, matmul, nn
from torch.nn import functional as F


class Pointwise(nn.Conv2d):
    """A 1x1 convolution, as one matrix product an image.

    As a convolution it becomes a single product over the batch, whose blocking, and so whose rounding, changes with the
    batch's width (from 16 images on, with 384 channels at 7 x 7): an image's bits would depend on its company.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        out = matmul(self.weight[:, :, 0, 0], x.flatten(2))
        if self.bias is not None:
            out = out + self.bias[:, None]
        return out.reshape(n, -1, height, width)


class Attention(nn.Module):
    """Self-attention over all positions of an image, as a residual.

    Args:
        channels: of the features.
        groups: of the norm.
        heads: each of channels / heads channels; the rows of `qkv` are (q k v, head, channel).
        eps: of the norm.
        rescale: what the sum with the features themselves is multiplied by.

    Raises:
        ValueError: the channels cannot be shared out to the heads.
    """

    def __init__(self, channels: int, groups: int, heads: int, eps: float = 1e-5, rescale: float = 1.0) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be shared out to {heads} heads of attention")
        self.heads, self.rescale = heads, rescale
        self.norm = nn.GroupNorm(groups, channels, eps)
        self.qkv = Pointwise(channels, 3 * channels)
        self.out = Pointwise(channels, channels)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        if q.is_cuda:  # whose fused attention is for channels that lie side by side
            q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(n, c, height, width)
        out: Tensor = x + self.out(h)
        return out if self.rescale == 1 else out * self.rescale
