"""Saved state: where the chains of a shard were when their worker stopped, so that another goes on there."""

from collections.abc import Sequence

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from models.images import Pixels
from models.sampling.chain import Chain
from models.sampling.sample import from_pixels, to_pixels


def pack(chains: Sequence[Chain], arithmetic: str) -> bytes:
    """All there is to save of a shard's chains, none of them in a slot: see `Chain`.

    `arithmetic` says whose bits they have: they do not go on in another.

    Of finished images the pixels alone are kept, of those on their way x, and `previous` where the next row carries it;
    of all, their frames.
    """
    under_way = [chain for chain in chains if chain.remaining and chain.cursor]
    state = {
        "arithmetic": torch.tensor(list(arithmetic.encode()), dtype=torch.uint8),
        "cursors": torch.tensor([chain.cursor for chain in chains]),
        "x": _stack([chain.x for chain in under_way]),
        "previous": _stack([chain.previous for chain in under_way if _carries(chain)]),
        "pixels": _stack([torch.from_numpy(to_pixels(c.x)) for c in chains if not c.remaining and c.x is not None]),
        "frames": _stack([frame for chain in chains for frame in chain.frames]),
    }
    return safetensors.torch.save(state)


def pack_done(images: Pixels, frames: Pixels | None, rows: int, arithmetic: str) -> bytes:
    """The same of chains that are finished, from what they have made.

    Args:
        images: uint8 [n, h, w, c].
        frames: what they looked like on their way, uint8 [n, frames - 1, h, w, c]; None if none is kept.
        rows: of each table.
        arithmetic: whose bits they have.
    """
    none = torch.zeros(0, dtype=torch.float32)
    state = {
        "arithmetic": torch.tensor(list(arithmetic.encode()), dtype=torch.uint8),
        "cursors": torch.full((len(images),), rows),
        "x": none,
        "previous": none,
        "pixels": torch.from_numpy(np.ascontiguousarray(images)),
        "frames": none
        if frames is None
        else torch.from_numpy(np.ascontiguousarray(frames.reshape(-1, *frames.shape[2:]))),
    }
    return safetensors.torch.save(state)


def unpack(data: bytes, chains: Sequence[Chain], shape: tuple[int, int, int], arithmetic: str) -> None:
    """Puts fresh chains where the saved ones were.

    Args:
        data: what `pack` made of chains of the same request.
        chains: not begun.
        shape: of one image, c, h, w.
        arithmetic: in which they go on.

    Raises:
        ValueError: it is not the state of these chains, or was computed in another arithmetic.
    """
    try:
        state = safetensors.torch.load(data)
        computed = bytes(state["arithmetic"].tolist()).decode()
        if computed != arithmetic:
            raise ValueError(f"it was computed in {computed}, and would go on in {arithmetic}")
        cursors = state["cursors"].tolist()
        x, previous, pixels = (list(state[name]) for name in ("x", "previous", "pixels"))
        frames = list(state.get("frames", ()))
        for chain, cursor in zip(chains, cursors, strict=True):
            chain.cursor = cursor
            if cursor >= len(chain.table):
                chain.cursor, chain.x = len(chain.table), from_pixels(pixels.pop(0).numpy())
            elif cursor:
                chain.x = x.pop(0)
                if _carries(chain):
                    chain.previous = previous.pop(0)
            passed = sum(row <= chain.cursor for row in chain.keep)
            chain.frames, frames = frames[:passed], frames[passed:]
            if len(chain.frames) < passed:
                raise ValueError("it has too few frames")
            if chain.x is not None and chain.x.shape != shape:
                raise ValueError(f"an image is {list(chain.x.shape)}, not {list(shape)}")
        if x or previous or pixels or frames:
            raise ValueError("it has more images than it says")
    except (safetensors.SafetensorError, KeyError, IndexError, ValueError) as error:
        for chain in chains:
            chain.cursor, chain.x, chain.previous, chain.frames = 0, None, None, []
        raise ValueError(f"saved state does not fit: {error}") from error


def _carries(chain: Chain) -> bool:
    """Whether the next row adds something of the row before."""
    return bool(chain.table.column("carry")[chain.cursor])


def _stack(tensors: Sequence[Tensor | None]) -> Tensor:
    there = [tensor for tensor in tensors if tensor is not None]
    if len({tensor.device for tensor in there}) > 1:  # some come from saved state
        there = [tensor.cpu() for tensor in there]
    return torch.stack(there).cpu() if there else torch.zeros(0, dtype=torch.float32)  # a GPU is waited for once
