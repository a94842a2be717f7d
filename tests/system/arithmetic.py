"""How this machine's processor and libraries round: which bits a network gives is up to their kernels."""

import hashlib

import torch
from torch import Tensor
from torch.nn import functional as F


def fingerprint() -> str:
    """sha256 of what a few operations give, of the kinds and shapes that the shipped networks are made of.

    Where it is the same, an image has the same bits. It says nothing of code of ours, which none of it calls, and holds
    for one thread, which is what tests run torch with.
    """
    digest = hashlib.sha256()
    with torch.inference_mode():
        for tensor in _operations():
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _operations() -> list[Tensor]:
    found = []
    for n in (1, 2, 4, 16):
        for inputs, outputs, side, stride in (
            (4, 64, 14, 1),
            (64, 64, 14, 1),
            (128, 64, 14, 1),
            (64, 128, 14, 2),
            (128, 128, 7, 1),
            (4, 32, 14, 1),
            (32, 64, 14, 2),
            (64, 4, 14, 1),
        ):
            x, weight = _numbers(n, inputs, side, side), _numbers(outputs, inputs, 3, 3) / 32
            found.append(F.conv2d(x, weight, _numbers(outputs), stride, padding=1))
        x = _numbers(n, 128, 7, 7)
        found += [F.group_norm(x, 8, _numbers(128), _numbers(128)), F.silu(x)]
        found.append(torch.matmul(_numbers(384, 128), x.flatten(2)))
        found.append(F.scaled_dot_product_attention(*_numbers(3, n, 4, 49, 32)))
    found.append(F.linear(_numbers(2, 256), _numbers(640, 256), _numbers(640)))
    for kind in (torch.float32, torch.float64):
        x = _numbers(784).to(kind)
        found += [x.exp(), x.abs().add(1 / 8).log(), x.cos(), x.sin(), x.abs().sqrt(), x.sum()]
    return found


def _numbers(*shape: int) -> Tensor:
    """Numbers in [-1, 1), float32, the same everywhere: multiples of 1/512."""
    count = torch.Size(shape).numel()
    return ((torch.arange(count) * 7919 % 1021 - 510) / 512).reshape(shape)
