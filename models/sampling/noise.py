"""Noise as a pure function of (seed, image index, row, pixel, stream): Philox-4x32-10 and Box-Muller.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". A chain therefore needs no generator state: its
noise is the same in any slot, in any company, on any worker, and after it was moved half way.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.sampling import kernel

Words = Any  # numpy.ndarray or Tensor; they share the operators that Philox needs

ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85
MASK = 0xFFFFFFFF
_PAIRS = [np.array(pair, np.uint64)[:, None, None] for pair in (MULTIPLIERS, WEYL)]


# Streams: the use that a draw is for.
INITIAL, STEP, KNOWN = 0, 1, 2


def philox(counter: Sequence[Words], key: Sequence[Words]) -> list[Words]:
    """Philox-4x32-10: four 32-bit words for every counter of four words and key of two.

    Words are uint64 arrays or int64 tensors that broadcast: products of 32 x 32 bits fill 64, and where they wrap into
    the sign an arithmetic shift and a mask still give the high word.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) & MASK) ^ (c1 ^ k0), p1 & MASK, ((p0 >> 32) & MASK) ^ (c3 ^ k1), p0 & MASK
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return [c0, c1, c2, c3]


def normal(
    seeds: Sequence[int],
    indices: Sequence[int],
    rows: Sequence[int],
    stream: int,
    shape: tuple[int, ...],
    device: torch.device | str = "cpu",
) -> Tensor:
    """Standard normal noise float32 [n, *shape]: Box-Muller on pairs of words, in float64."""
    return _box_muller(_bits(seeds, indices, rows, stream, math.prod(shape), torch.device(device)), shape)


def normal_of(keys: Tensor, stream: int, shape: tuple[int, ...]) -> Tensor:
    """`normal` of `keys` [n, 4] that are on the device already.

    Nothing is read from the host, so that a CUDA graph can hold it; there one kernel makes most of it.
    """
    size = math.prod(shape)
    if keys.is_cuda:
        compiled = kernel.compiled_for(stream, keys.device, _plainly(stream))
        if compiled is not None:
            return _shaped(kernel.drawn(compiled, keys, _blocks(size)), shape)
    return _box_muller(_words_on_device(keys, stream, size), shape)


def keys(seeds: Sequence[int], indices: Sequence[int], rows: Sequence[int]) -> NDArray[np.int64]:
    """What tells the noise of n images apart, int64 [n, 4]: low and high word of the seed, image index, row."""
    return np.array([[s & MASK, s >> 32, i, r] for s, i, r in zip(seeds, indices, rows, strict=True)], np.int64)


def uniform(
    seeds: Sequence[int],
    indices: Sequence[int],
    rows: Sequence[int],
    stream: int,
    shape: tuple[int, ...],
    device: torch.device | str = "cpu",
) -> Tensor:
    """Uniform noise in (0, 1), float32 [n, *shape]."""
    size = math.prod(shape)
    words = _bits(seeds, indices, rows, stream, size, torch.device(device))[:, :size]
    return (words >> 8).to(torch.float32).add_(0.5).mul_(2.0**-24).reshape(len(words), *shape)


def _bits(
    seeds: Sequence[int], indices: Sequence[int], rows: Sequence[int], stream: int, size: int, device: torch.device
) -> Tensor:
    """32 random bits for each of `size` pixels of each image, as int64 [n, size rounded up to 16].

    The counter is (number of the block of four, row, image index, stream), the key is the seed. Rounded up, each image
    begins on a cache line even in float64.
    """
    table = keys(seeds, indices, rows)
    if device.type != "cpu":
        return _words_on_device(torch.from_numpy(table).to(device), stream, size)
    return torch.from_numpy(_words_on_host(table, stream, size).view(np.int64))


def _words_on_host(table: NDArray[np.int64], stream: int, size: int) -> NDArray[np.uint64]:
    """`philox` of the words c0, c2 and of c1, c3 two at a time, in numpy: there few and small operations cost least."""
    low, high, index, row = table.astype(np.uint64).T
    even, odd = np.empty((2, 2, len(table), _blocks(size)), np.uint64)
    even[0], even[1], odd[0], odd[1] = np.arange(_blocks(size)), index[:, None], row[:, None], stream
    key, multipliers, weyl = np.stack([low, high])[:, :, None], *_PAIRS
    for _ in range(ROUNDS):
        product = (even * multipliers)[::-1]
        np.right_shift(product, np.uint64(32), out=even)
        even ^= odd
        even ^= key
        np.bitwise_and(product, np.uint64(MASK), out=odd)
        key = (key + weyl) & np.uint64(MASK)
    return np.concatenate([even[0], odd[0], even[1], odd[1]], axis=1)


def _words_on_device(keys: Tensor, stream: int, size: int) -> Tensor:
    block = torch.arange(_blocks(size), device=keys.device)[None]
    low, high, index, row = keys.T[:, :, None]
    return torch.cat(philox([block, row, index, torch.full_like(block, stream)], [low, high]), dim=1)


@cache
def _plainly(stream: int) -> Callable[[Tensor], Tensor]:
    """What the kernel of a stream has to draw of any keys, as the operations here do."""
    return partial(_drawn_plainly, stream=stream)


def _drawn_plainly(keys: Tensor, stream: int) -> Tensor:
    return _pairs(_words_on_device(keys, stream, 784))


def _blocks(size: int) -> int:
    return (size + 15) // 16 * 4


def _box_muller(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    return _shaped(_pairs(bits), shape)


def _shaped(z: Tensor, shape: tuple[int, ...]) -> Tensor:
    """float32 [n, *shape] of float64 [n, at least so many]."""
    return z[:, : math.prod(shape)].to(torch.float32).reshape(len(z), *shape)


def _pairs(bits: Tensor) -> Tensor:
    """Box-Muller's numbers of words, float64, as many."""
    u = bits.to(torch.float64).add_(0.5).mul_(2.0**-32)
    half = u.shape[1] // 2
    u, angle = u[:, :half].contiguous(), u[:, half:].mul(2 * math.pi)
    radius, cos, sin = (
        _transcendental(torch.log, u).mul_(-2),
        *(_transcendental(f, angle) for f in (torch.cos, torch.sin)),
    )
    radius = radius.sqrt_()  # rounded correctly, and so the same wherever it is
    return torch.cat([radius * cos, radius * sin], dim=1)


def _transcendental(function: Callable[..., Tensor], x: Tensor) -> Tensor:
    """`function` of float64 [n, k], on a CPU one row at a time.

    There log, cos and sin take another code path, an ulp apart, at the end of a tensor: an image's noise would
    depend on how many images are drawn together.
    """
    if x.device.type != "cpu":
        return function(x)
    out = torch.empty_like(x)
    for row, target in zip(x.unbind(), out.unbind(), strict=True):
        function(row, out=target)
    return out
