"""The engine: chains of one model in slots, advanced together by one network evaluation a step."""

import logging
from collections.abc import Collection, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.sampling import noise
from models.sampling.chain import Chain, quantize
from models.sampling.tables import COLUMNS
from models.score import ScoreModel

log = logging.getLogger(__name__)


def advance(
    x: Tensor, score: Tensor, previous: Tensor, drift: Tensor, carry: Tensor, noise: Tensor, z: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One row of every slot's own table: the new x and the new `previous`.

    Each multiplication and addition is an operation of its own, rounded as such in every slot: a fused one could round
    differently at the end of a tensor.

    Args:
        x, score, previous: [n, c, h, w].
        drift, carry, noise: the rows' columns, [n, 1, 1, 1].
        z: standard normal [n, c, h, w]; None if no row has noise.
    """
    current = drift * score
    x = x + (current + carry * previous)
    return (x if z is None else x + noise * z), current


class Engine:
    """Advances up to `slots` chains of one model, each through its own table.

    The chains in slots 0 to n - 1 are the active ones; a chain may change its slot, which its pixels do not notice.
    Work is proportional to the active slots. Where memory does not last for all of them at once, the network sees them
    in narrower pieces, `width` at a time, from then on.

    Args:
        model: the score model.
        slots: how many chains may be active.
    """

    def __init__(self, model: ScoreModel, slots: int) -> None:
        if slots < 1:
            raise ValueError(f"an engine needs at least one slot, not {slots}")
        self.model, self.slots, self.width = model, slots, slots
        self.chains: list[Chain] = []
        self.image_steps = 0
        self.watched = False  # whether estimates are kept
        self._estimates: dict[Chain, Tensor] = {}
        shape = (slots, *model.image.chw)
        self._x = torch.zeros(shape, device=model.device)
        self._previous = torch.zeros_like(self._x)
        self._known = torch.zeros_like(self._x)
        self._repaint = torch.ones(shape, dtype=torch.bool, device=model.device)

    @property
    def free(self) -> int:
        """Slots without a chain."""
        return self.slots - len(self.chains)

    def admit(self, chains: Collection[Chain]) -> None:
        """Gives each chain a slot; it takes part from the next step on.

        Raises:
            ValueError: there are more chains than free slots, or one has no rows left.
        """
        if len(chains) > self.free:
            raise ValueError(f"{len(chains)} chains for {self.free} free slots")
        if any(not chain.remaining for chain in chains):
            raise ValueError("a chain without rows left cannot be admitted")
        for chain in chains:
            slot = len(self.chains)
            self._x[slot] = chain.initial(self.model.image.chw) if chain.x is None else chain.x
            self._previous[slot] = 0 if chain.previous is None else chain.previous
            if chain.known is not None and chain.mask is not None:
                self._known[slot] = chain.known
                self._repaint[slot] = chain.mask
            chain.x = chain.previous = None  # from here on they live in the slot
            self.chains.append(chain)

    @torch.inference_mode()
    def step(self) -> list[Chain]:
        """One network evaluation for every active chain; returns those that are finished, with their x."""
        n = len(self.chains)
        if n == 0:
            return []
        rows = np.stack([chain.table.rows[chain.cursor] for chain in self.chains])
        conditions = torch.stack([self.model.condition(sigma) for sigma in rows[:, 0].tolist()])
        score = self._score(self._x[:n], conditions)
        columns = torch.from_numpy(rows.T.astype(np.float32)).to(self.model.device)[:, :, None, None, None]
        sigma, drift, carry, noise_std, known_std = columns
        self._estimates = self._denoised(score, sigma) if self.watched else {}
        z = self._noise(rows[:, COLUMNS.index("noise")] != 0, noise.STEP)
        x, current = advance(self._x[:n], score, self._previous[:n], drift, carry, noise_std, z)
        if any(chain.known is not None for chain in self.chains):
            inpainting = [chain.known is not None for chain in self.chains]
            z = self._noise(inpainting & (rows[:, COLUMNS.index("known")] != 0), noise.KNOWN)
            known = self._known[:n] if z is None else self._known[:n] + known_std * z
            x = torch.where(self._repaint[:n], x, known)
        frames = self._frames(x)
        self._x[:n], self._previous[:n] = x, current  # from here on nothing can fail: a step is done or not
        self.image_steps += n
        for chain in self.chains:
            chain.cursor += 1
        for chain, frame in frames:
            chain.frames.append(frame)
        return self._release([chain for chain in self.chains if not chain.remaining])

    def estimate(self, chain: Chain) -> Tensor | None:
        """What an active chain's image looks like by now: the denoised x of its last step, float32 [c, h, w].

        None before the first step that was `watched`.
        """
        return self._estimates.get(chain)

    def diverged(self) -> list[Chain]:
        """The active chains whose x is not finite any more, and never will be again."""
        finite = self._x[: len(self.chains)].isfinite().flatten(1).all(1).tolist()
        return [chain for chain, good in zip(self.chains, finite, strict=True) if not good]

    @torch.inference_mode()
    def evict(self, chains: Iterable[Chain]) -> list[Chain]:
        """Takes chains out of their slots as they are, so that they can be admitted again, here or elsewhere."""
        return self._release([chain for chain in chains if chain in self.chains])

    def _denoised(self, score: Tensor, sigma: Tensor) -> dict[Chain, Tensor]:
        """E[x_0 | x] = x + sigma^2 score (Tweedie's formula) of each chain; what is known of it is as known."""
        n = len(self.chains)
        denoised = self._x[:n] + sigma**2 * score
        if any(chain.known is not None for chain in self.chains):
            denoised = torch.where(self._repaint[:n], denoised, self._known[:n])
        return dict(zip(self.chains, denoised, strict=True))

    def _frames(self, x: Tensor) -> list[tuple[Chain, Tensor]]:
        """The chains that are looked at after this row, and what they look like, uint8 [h, w, c]."""
        slots = [slot for slot, chain in enumerate(self.chains) if chain.cursor + 1 in chain.keep]
        if not slots:
            return []
        return list(zip([self.chains[slot] for slot in slots], quantize(x[slots]).cpu(), strict=True))

    def _score(self, x: Tensor, conditions: Tensor) -> Tensor:
        """Scores of all active slots, at most `width` at a time; a piece that memory does not last for is halved."""
        done: list[Tensor] = []
        begin = 0
        while begin < len(x):
            piece = slice(begin, begin + self.width)
            try:
                done.append(self.model.conditioned_score(x[piece], conditions[piece]))
            except Exception as error:
                if not _out_of_memory(error) or self.width == 1:
                    raise
                failed = min(self.width, len(x) - begin)
            else:
                begin += self.width
                continue
            self.width = max(1, failed // 2)  # here, so that the error's frames hold no tensors any more
            if x.device.type == "cuda":
                torch.cuda.empty_cache()
            log.warning("out of memory with %d images at once; going on with %d", failed, self.width)
        return done[0] if len(done) == 1 else torch.cat(done)

    def _noise(self, wanted: NDArray[np.bool_], stream: int) -> Tensor | None:
        """Normal noise [n, c, h, w] where `wanted` [n] is true, 0 in the other slots; None if it is nowhere."""
        slots = np.flatnonzero(wanted)
        if not len(slots):
            return None
        drawn = [self.chains[slot] for slot in slots]
        z = noise.normal(
            [chain.seed for chain in drawn],
            [chain.index for chain in drawn],
            [chain.cursor for chain in drawn],
            stream,
            self.model.image.chw,
            self.model.device,
        )
        if len(slots) == len(wanted):
            return z
        out = torch.zeros((len(wanted), *z.shape[1:]), device=z.device)
        out[torch.from_numpy(slots).to(z.device)] = z
        return out

    def _release(self, chains: list[Chain]) -> list[Chain]:
        """Empties the chains' slots, each filled by the last active chain, and hands the chains their state back."""
        for chain in chains:
            slot, last = self.chains.index(chain), len(self.chains) - 1
            chain.x, chain.previous = self._x[slot].clone(), self._previous[slot].clone()
            for buffer in (self._x, self._previous, self._known, self._repaint):
                buffer[slot] = buffer[last]
            self._repaint[last] = True
            self.chains[slot] = self.chains[last]
            self.chains.pop()
        return chains


def _out_of_memory(error: Exception) -> bool:
    """A device says so by a class of its own; torch's allocator on a CPU by its words alone."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
