"""The engine: chains of one model in slots, advanced together by one network evaluation at a time."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.sampling import noise
from models.sampling.ahead import Row, ahead
from models.sampling.buckets import Bucketed, Capture, CudaGraphs, Pace, bucket_widths, pinned_width
from models.sampling.chain import Chain, initial, quantize
from models.sampling.memory import out_of_memory, sent
from models.sampling.pieces import Pieces
from models.sampling.projections import Means, Unmasked
from models.score import ScoreModel

log = logging.getLogger(__name__)

ROWS = 8  # of a step, at most, and made at once
DRAWN_TOGETHER = 4, 64  # images whose noise a CPU draws at once: each draw costs some by itself, and has to fit a cache


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
    On a CPU the network sees them in pieces, each on a thread of its own, and work is proportional to the active
    slots; on a GPU the network and the noise are CUDA graphs of a few widths, and only the last piece of a batch is
    filled up to one. A guided chain has one slot and is evaluated twice, in the same batch; what is more than `width`,
    as many as there are slots, is evaluated one part after another. Where memory does not last for that, the parts are
    narrower from then on.

    Args:
        model: the score model.
        slots: how many chains may be active.
        only: the only widths at which the network is evaluated, ascending, since they give an image the same bits; None
            where all do, or bits do not matter. A CPU has one of them. A network that needs one width has it in any
            case.
        capture: what records a call so that it can be repeated; by default CUDA graphs on a GPU, nothing on a CPU.
        threads: on which a CPU evaluates pieces; see `Pieces`, and `one_each` there.
        piece: most images of a piece; by default as many as give each thread one.
    """

    def __init__(
        self,
        model: ScoreModel,
        slots: int,
        only: Sequence[int] | None = None,
        capture: Capture | None = None,
        threads: int = 1,
        piece: int | None = None,
    ) -> None:
        if slots < 1:
            raise ValueError(f"an engine needs at least one slot, not {slots}")
        if only is None and model.needs_one_width:
            only = [pinned_width(model.device)]
        of_noise = capture
        if capture is None and model.device.type == "cuda":  # each with its own memory, to be given back by itself
            capture, of_noise = CudaGraphs(model.device), CudaGraphs(model.device)
        self.model, self.slots, self.only = model, slots, None if only is None else tuple(only)
        self._pieces = Pieces(model.conditioned_score, threads, piece, None if only is None else only[-1])
        self.width = self._widest = slots if capture is None or only is None else only[-1]
        self.rows = 1 if capture is None else ROWS  # of a step, at most: between two looks at the host
        self.chains: list[Chain] = []
        self.image_steps = self.evaluations = 0
        self.watched = False  # whether estimates are kept
        self._estimates: dict[Chain, Tensor] = {}
        shape = (slots, *model.image.chw)
        self._x = torch.zeros(shape, device=model.device)
        self._previous = torch.zeros_like(self._x)
        self._known = torch.zeros_like(self._x)
        self._repaint = torch.ones(shape, dtype=torch.bool, device=model.device)
        self._pace = Pace(model.device)
        self._ahead: Iterator[Row] = iter(())  # the next rows of the chains that are there
        self._row: Row | None = None  # the first of them
        self._knowing = np.zeros(0, bool)  # which of the chains know something of their image
        self._kept: list[tuple[int, Chain]] = []  # slots and chains of those that are looked at on their way
        self._scores: Bucketed | None = None
        if capture is not None:
            of_scores = bucket_widths(slots) if only is None else only
            self._scores = Bucketed(model.conditioned_score, of_scores, capture)
        self._normals: dict[int, Bucketed] = {}  # by stream
        if of_noise is not None:
            for stream in (noise.STEP, noise.KNOWN):
                function = partial(noise.normal_of, stream=stream, shape=model.image.chw)
                self._normals[stream] = Bucketed(function, bucket_widths(slots), of_noise)

    @property
    def widths(self) -> list[int]:
        """The numbers of active chains to be tried before work begins: those that something is recorded for."""
        recorded = [w for bucketed in self._normals.values() for w in bucketed.widths]
        return sorted({1, self.slots, *(w for w in recorded if w <= self.slots)})

    @torch.inference_mode()
    def record_noise(self) -> None:
        """Records the noise at all widths, where noise is recorded, so that no step has to wait for that."""
        for bucketed in self._normals.values():
            bucketed.record(torch.zeros(bucketed.widths[-1], 4, dtype=torch.int64, device=self.model.device))

    def evaluated(self, n: int) -> int:
        """How many images the network sees where n are to be evaluated: the last piece may be filled up."""
        if self._scores is None:
            return self._pieces.evaluated(n)
        whole, rest = divmod(n, self.width)
        return whole * self.width + (self._scores.bucket(rest) if rest else 0)

    @property
    def narrowed(self) -> bool:
        """Whether memory did not last for all slots at once."""
        return self.width < self._widest

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
        if not chains:
            return
        self._forget_rows()
        n = len(self.chains)
        fresh = [chain for chain in chains if chain.x is None]
        begun = iter(self._sent(initial(fresh, self.model.image.chw)) if fresh else ())
        there = iter(self._together([chain.x for chain in chains if chain.x is not None]))
        before = iter(self._together([chain.previous for chain in chains if chain.previous is not None]))
        x = torch.stack([next(begun if chain.x is None else there) for chain in chains])
        none = torch.zeros_like(x[0])
        previous = torch.stack([none if chain.previous is None else next(before) for chain in chains])
        self._x[n : n + len(chains)], self._previous[n : n + len(chains)] = x, previous
        for _, run in groupby(chains, key=lambda chain: (id(chain.known), id(chain.projection))):
            alike = list(run)  # of one request, which know the same
            slots, known, projection = slice(n, n + len(alike)), alike[0].known, alike[0].projection
            if known is not None:
                self._known[slots] = self._sent(known)
            if isinstance(projection, Unmasked):
                self._repaint[slots] = self._sent(projection.repaint)
            n += len(alike)
        for chain in chains:
            chain.x = chain.previous = None  # from here on they live in the slot
            self.chains.append(chain)

    @torch.inference_mode()
    def step(self) -> list[Chain]:
        """Advances every active chain by up to `rows` network evaluations, by fewer if one is finished before.

        Returns those that are finished, with their x.
        """
        if not self.chains:
            return []
        count = min(self.rows, *(chain.remaining for chain in self.chains))
        for _ in range(count):
            self._advance(self._next_row())
            self._row = None
        self._pace.step()
        return self._release([chain for chain in self.chains if not chain.remaining])

    @torch.inference_mode()
    def prepare(self) -> None:
        """Makes the next rows of the chains that are there, as the next step would first."""
        self._next_row()

    def _next_row(self) -> Row:
        """The next row of every chain. Several are made at once, and lost when other chains come or go."""
        if self._row is None:
            self._row = next(self._ahead, None)
        if self._row is None:
            count = min(ROWS, *(chain.remaining for chain in self.chains))
            self._ahead = ahead(self.chains, count, self.model, with_keys=bool(self._normals))
            self._row = next(self._ahead)
            self._knowing = np.array([chain.known is not None for chain in self.chains])
            self._kept = [(slot, chain) for slot, chain in enumerate(self.chains) if chain.keep]
        return self._row

    def _forget_rows(self) -> None:
        self._ahead, self._row = iter(()), None

    def estimate(self, chain: Chain) -> Tensor | None:
        """What an active chain's image looks like by now: the denoised x of its last step, float32 [c, h, w].

        None before the first step that was `watched`.
        """
        return self._estimates.get(chain)

    def state(self, chain: Chain) -> Tensor | None:
        """The x of a chain by now, noise and all, float32 [c, h, w]; None before it has been in a slot."""
        return self._x[self.chains.index(chain)] if chain in self.chains else chain.x

    def diverged(self) -> list[Chain]:
        """The active chains whose x is not finite any more, and never will be again."""
        finite = self._x[: len(self.chains)].isfinite().flatten(1).all(1).tolist()
        return [chain for chain, good in zip(self.chains, finite, strict=True) if not good]

    @torch.inference_mode()
    def evict(self, chains: Iterable[Chain]) -> list[Chain]:
        """Takes chains out of their slots as they are, so that they can be admitted again, here or elsewhere."""
        return self._release([chain for chain in chains if chain in self.chains])

    def _advance(self, row: Row) -> None:
        """One row of every active chain. If it fails, nothing has changed."""
        n = len(self.chains)
        known = self._knowing
        z, drawing = self._noise(row, row.noisy, noise.STEP)
        known_z, drawing_known = self._noise(row, known & row.known_noisy, noise.KNOWN)
        score = self._guided(row, [*drawing, *drawing_known])
        self._estimates = self._denoised(score) if self.watched else {}
        x, current = advance(self._x[:n], score, self._previous[:n], row.drift, row.carry, row.noise, z)
        if known.any():
            given = self._known[:n]
            target = given if known_z is None else given + row.known * known_z
            if (known & row.holding).any():
                denoised = self._x[:n] + row.sigma**2 * score
                target = target + row.feedback * (given - denoised) + row.kept * (self._x[:n] - given)
            x = self._project(x, target, ~row.known_noisy)
        if row.aiming.any():
            current = torch.where(row.aim != 0, self._x[:n] + row.sigma**2 * score - x, current)
        frames = self._frames(x)
        self._x[:n], self._previous[:n] = x, current  # from here on nothing can fail: a row is done or not
        self.image_steps += len(row.conditions)
        self.evaluations += 1
        for chain in self.chains:
            chain.cursor += 1
        for chain, frame in frames:
            chain.frames.append(frame)

    def _denoised(self, score: Tensor) -> dict[Chain, Tensor]:
        """E[x_0 | x] = x + sigma^2 score (Tweedie's formula) of each chain; what is known of it is as known."""
        n = len(self.chains)
        sigmas = torch.tensor([chain.table.rows[chain.cursor, 0] for chain in self.chains], dtype=torch.float32)
        denoised = self._x[:n] + sent(sigmas, score.device)[:, None, None, None] ** 2 * score
        if any(chain.known is not None for chain in self.chains):
            denoised = self._project(denoised, self._known[:n], np.zeros(n, bool))
        return dict(zip(self.chains, denoised, strict=True))

    def _project(self, x: Tensor, target: Tensor, exact: NDArray[np.bool_]) -> Tensor:
        """x + Q (target - x) of every chain, Q being what is known of it; x where nothing is.

        Args:
            x, target: [n, c, h, w].
            exact: host's bool [n], where x is to be an image in [0, 1] besides.
        """
        x = torch.where(self._repaint[: len(x)], x, target)
        groups: dict[tuple[Means, bool], list[int]] = {}
        for slot, chain in enumerate(self.chains):
            if isinstance(chain.projection, Means):
                groups.setdefault((chain.projection, bool(exact[slot])), []).append(slot)
        for (projection, ends), slots in groups.items():
            project = projection.exactly if ends else projection.toward
            at = self._at(slots)
            x[at] = project(x[at], target[at])
        return x

    def _frames(self, x: Tensor) -> list[tuple[Chain, Tensor]]:
        """The chains that are looked at after this row, and what they look like, uint8 [h, w, c]."""
        slots = [slot for slot, chain in self._kept if chain.cursor + 1 in chain.keep]
        if not slots:
            return []
        return list(zip([self.chains[slot] for slot in slots], quantize(x[self._at(slots)]).cpu(), strict=True))

    def _guided(self, row: Row, beside: Sequence[Callable[[], None]]) -> Tensor:
        """Scores of all active slots; those that are guided are evaluated again without their label, in one batch.

        As in `advance`, each multiplication and addition is an operation of its own. What is to be done `beside` has
        been done then.
        """
        x = self._x[: len(self.chains)]
        if row.guided is None:
            return self._score(x, row.conditions, beside)
        slots, weights = row.guided
        score, of_all = self._score(torch.cat([x, x[slots]]), row.conditions, beside).tensor_split([len(x)])
        score[slots] = of_all + weights * (score[slots] - of_all)
        return score

    def _score(self, x: Tensor, conditions: Tensor, beside: Sequence[Callable[[], None]] = ()) -> Tensor:
        """Scores of images, about `width` at a time; a part that memory does not last for is halved."""
        done: list[Tensor] = []
        begin = 0
        while begin < len(x):
            size = self._part(len(x) - begin)
            piece = slice(begin, begin + size)
            try:
                if self._scores is not None:
                    done.append(self._scores(x[piece], conditions[piece]))
                else:
                    done.append(self._pieces(x[piece], conditions[piece], beside=beside))
                    beside = ()
            except Exception as error:
                if not out_of_memory(error) or self.width == 1:
                    raise
                failed = size
            else:
                begin += size
                continue
            self._narrow(failed)  # here, so that the error's frames hold no tensors any more
        return done[0] if len(done) == 1 else torch.cat(done)

    def _part(self, left: int) -> int:
        """How many of the images that are left are evaluated next.

        At most `width`; or less than twice as many on a CPU whose memory has lasted, where few cost more for each.
        """
        if self._scores is not None or self.narrowed:
            return min(self.width, left)
        return left // max(1, left // self.width)

    def _narrow(self, failed: int) -> None:
        if self._scores is not None:
            self.width = self._scores.narrow(failed)
        else:
            self.width = max(1, failed // 2)
            if self.only and self.width < self.only[0]:
                self._pieces.pinned = None
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning("out of memory with %d images at once; going on with %d", failed, self.width)
        if self.only and self.width not in self.only:
            log.warning("on this device another width gives an image other last bits: free some memory, start again")

    def _noise(
        self, row: Row, wanted: NDArray[np.bool_], stream: int
    ) -> tuple[Tensor | None, Sequence[Callable[[], None]]]:
        """Normal noise [n, c, h, w] where `wanted` [n] is true, or None if it is nowhere; and what draws it.

        On a CPU that is to be called, in any order and on any thread, before the noise is there; in the other slots it
        is 0. Where noise is recorded it is there, and in the other slots it is some, which the row multiplies by 0.
        """
        slots = np.flatnonzero(wanted)
        if not len(slots):
            return None, ()
        if row.keys is not None:
            return self._normals[stream](row.keys), ()
        out = torch.zeros((len(wanted), *self.model.image.chw))

        def draw(some: NDArray[np.int64]) -> None:
            drawn = [self.chains[slot] for slot in some]
            out[torch.from_numpy(some)] = noise.normal(
                [chain.seed for chain in drawn],
                [chain.index for chain in drawn],
                [chain.cursor for chain in drawn],
                stream,
                self.model.image.chw,
            )

        least, most = DRAWN_TOGETHER
        parts = max(1, min(self._pieces.threads, len(slots) // least), -(-len(slots) // most))
        return out, [partial(draw, some) for some in np.array_split(slots, parts)]

    def _release(self, chains: list[Chain]) -> list[Chain]:
        """Empties the chains' slots, which the last active chains fill, and hands the chains their state back.

        All at once: each operation costs a GPU's host some 10 us, and each look at the host more.
        """
        if not chains:
            return chains
        self._forget_rows()
        slots = {chain: slot for slot, chain in enumerate(self.chains)}
        leaving, left = {slots[chain] for chain in chains}, len(self.chains) - len(chains)
        at = self._at(slots[chain] for chain in chains)
        for chain, x, previous in zip(chains, self._x[at], self._previous[at], strict=True):
            chain.x, chain.previous = x, previous
        empty = [slot for slot in range(left) if slot in leaving]
        moving = [slot for slot in range(left, len(self.chains)) if slot not in leaving]
        if empty:
            to, of = self._at(empty), self._at(moving)
            for buffer in (self._x, self._previous, self._known, self._repaint):
                buffer[to] = buffer[of]
        self._repaint[left : len(self.chains)] = True
        for slot, last in zip(empty, moving, strict=True):
            self.chains[slot] = self.chains[last]
        del self.chains[left:]
        return chains

    def _together(self, tensors: Sequence[Tensor]) -> Tensor | Sequence[Tensor]:
        """Some of one shape, on the device: those of the host are sent at once."""
        if tensors and all(tensor.device.type == "cpu" for tensor in tensors):
            return self._sent(torch.stack(list(tensors)))
        return [tensor.to(self.model.device) for tensor in tensors]

    def _at(self, slots: Iterable[int]) -> Tensor:
        """Slots as an index on the device."""
        return self._sent(torch.tensor(list(slots)))

    def _sent(self, tensor: Tensor) -> Tensor:
        return sent(tensor, self.model.device)
