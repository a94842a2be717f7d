"""Sampling without a service: run an engine until all is done."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from models.guidance import UNGUIDED, Guidance
from models.images import Pixels
from models.samplers.table import Table
from models.sampling.chain import Chain, quantize
from models.sampling.engine import Engine
from models.sampling.pieces import one_each
from models.score import ScoreModel


def run(engine: Engine, chains: Sequence[Chain], on_step: Callable[[int], None] = lambda _: None) -> None:
    """Runs chains of any kinds to their end, as many at a time as there are slots.

    Args:
        engine: has no active chains.
        chains: their `x` is the result.
        on_step: called after every step with the image-steps done so far.
    """
    waiting = list(reversed(chains))
    before = engine.image_steps
    while waiting or engine.chains:
        engine.admit([waiting.pop() for _ in range(min(engine.free, len(waiting)))])
        engine.step()
        on_step(engine.image_steps - before)


def sample(
    model: ScoreModel,
    table: Table,
    count: int,
    seed: int,
    slots: int = 16,
    first: int = 0,
    on_step: Callable[[int], None] = lambda _: None,
    labels: Sequence[int] | None = None,
    guidance: Guidance = UNGUIDED,
) -> Pixels:
    """`count` images uint8 [count, h, w, c], from number `first` on; image i depends on (seed, i), the table, its label
    and guidance.

    Where the bits of a score change with the width of a batch, as on most GPUs, its last bits depend on `slots` and
    `count` too. `on_step` is called after every step with the image-steps done so far; `labels` are those of images 0,
    1 and so on, repeated, and `guidance` leads to them.
    """
    chains = [
        Chain(table, seed, index, label=None if labels is None else labels[index % len(labels)], guidance=guidance)
        for index in range(first, first + count)
    ]
    with one_each() as threads:
        run(Engine(model, slots, threads=threads), chains, on_step)
    return np.stack([to_pixels(chain.x) for chain in chains if chain.x is not None])


def to_pixels(x: Tensor) -> Pixels:
    """uint8 [h, w, c] of an image float32 [c, h, w], clamped to [0, 1]."""
    pixels: Pixels = quantize(x).cpu().numpy()
    return pixels


def from_pixels(pixels: Pixels) -> Tensor:
    """float32 [c, h, w] in [0, 1] of uint8 [h, w, c]; `to_pixels` gives exactly the same pixels back."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).to(torch.float32) / 255
