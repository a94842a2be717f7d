"""Lane: one version of a model on a device, its engine, and the shards that it works on."""

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from models.card import ModelCard
from models.environment import device_name
from models.images import Pixels
from models.plan import plan
from models.sampling.chain import Chain
from models.sampling.choice import Choice, Remembered, choose, key
from models.sampling.engine import ROWS, Engine
from models.sampling.execution import Execution
from models.sampling.sample import to_pixels
from models.score import ScoreModel

log = logging.getLogger(__name__)

# That a step of several rows may last, since the worker listens between steps only; what it does there costs as much as
# a step of a very small network does.
STEP_SECONDS = {"cuda": 0.02, "cpu": 0.005}
PACE_SECONDS = 5.0  # of work, over which the pace follows what is seen
OUTLIER = 2.0  # times as long or as short as expected: more is not believed at once


class DeviceFailed(RuntimeError):
    """The device fails whatever it is given: only another process can go on."""


@dataclass(eq=False)
class Part:
    """One shard in hand.

    Args:
        lane: the lane of its model.
        chains: its images, in order.
        number: how many parts the batch had taken on before.
        waiting: those of the chains that have not been admitted yet.
        fault: why it can never be finished.
        ahead: whether its chains go before those of parts that are older.
    """

    lane: "Lane"
    chains: list[Chain]
    number: int = 0
    waiting: deque[Chain] = field(default_factory=deque)
    fault: str | None = None
    ahead: bool = False

    @property
    def image_steps_done(self) -> int:
        return sum(chain.image_steps_done for chain in self.chains)

    @property
    def finished(self) -> bool:
        return all(not chain.remaining for chain in self.chains)

    @property
    def ended(self) -> bool:
        return self.fault is not None or self.finished

    @property
    def seconds_until_free(self) -> float:
        """When the first of its slots will be free, by the pace with all slots in use; infinite if it has none."""
        rows = [chain.remaining for chain in set(self.chains).difference(self.waiting) if chain.remaining]
        pace = self.lane.image_steps_per_second / self.lane.engine.slots  # rows a second
        return min(rows, default=float("inf")) / pace if pace else float("inf")

    @property
    def sigma(self) -> float | None:
        """Noise level of the slowest image that is on its way; None if none is."""
        under_way = [chain for chain in self.chains if chain.cursor and chain.remaining]
        if not under_way:
            return None
        slowest = max(under_way, key=lambda chain: chain.remaining)
        return float(slowest.table.column("sigma")[slowest.cursor])

    def estimates(self, most: int) -> Pixels:
        """What the first images look like by now, uint8 [n, h, w, c]; black before their first step here.

        They are the denoised estimates of the last step, if the engine is `watched`, and of finished images these.
        """
        return self._pixels(
            [self.lane.engine.estimate(chain) if chain.remaining else chain.x for chain in self.chains[:most]]
        )

    def states(self, most: int) -> Pixels:
        """The first images themselves by now, noise and all, uint8 [n, h, w, c]; black before their first step here."""
        return self._pixels([self.lane.engine.state(chain) for chain in self.chains[:most]])

    def frames(self) -> Pixels | None:
        """What the images of a finished part looked like on their way, uint8 [n, frames - 1, h, w, c]; None if none."""
        if not self.chains[0].keep:
            return None
        return np.stack([torch.stack(chain.frames).numpy() for chain in self.chains])

    def look_for_faults(self) -> None:
        """Sets `fault` if an image that is in no slot is not finite; those in slots are looked at by the engine."""
        there = [chain for chain in self.chains if chain.x is not None]
        if self.fault is not None or not there:
            return
        with self.lane.heard():
            finite = torch.isfinite(self._stacked(there)).flatten(1).all(1).tolist()
        self.fault = next((divergence(chain) for chain, good in zip(there, finite, strict=True) if not good), None)

    def pixels(self) -> Pixels:
        """The images uint8 [n, h, w, c] of a finished part without fault."""
        with self.lane.heard():
            return to_pixels(self._stacked(self.chains))

    def _pixels(self, looks: Sequence[Tensor | None]) -> Pixels:
        """Images float32 [c, h, w] as uint8 [n, h, w, c]; black where there is none."""
        c, h, w = self.lane.card.image.chw
        out = np.zeros((len(looks), h, w, c), np.uint8)
        if there := [look for look in looks if look is not None]:
            device = self.lane.engine.model.device
            with self.lane.heard():  # all at once: the device is waited for once
                found = to_pixels(torch.stack([look.to(device) for look in there]))
            out[[look is not None for look in looks]] = found
        return out

    def _stacked(self, chains: Sequence[Chain]) -> Tensor:
        """The x of chains that are in no slot, float32 [n, c, h, w] on the device: some may come from saved state."""
        device = self.lane.engine.model.device
        return torch.stack([chain.x.to(device) for chain in chains if chain.x is not None])


class Lane:
    """One version of a model: its engine, and the parts that use it, oldest first.

    Args:
        card: of the version.
        model: loaded.
        slots: chains that may be in slots.
        exact: an image's bits depend on its request alone.
        remembered: what was measured before.
        threads: on which a CPU evaluates pieces of a batch.
        fixed: how an operator wants all networks to be run; by default as the card says, or as is fastest.
    """

    def __init__(
        self,
        card: ModelCard,
        model: ScoreModel,
        slots: int,
        exact: bool = True,
        remembered: Remembered | None = None,
        threads: int = 1,
        fixed: Execution | None = None,
    ) -> None:
        self.card = card
        if fixed is None and card.execution is not None:
            fixed = Execution.named(card.execution)
        self.choice = _choose(card, model, slots, exact, remembered, threads, fixed)
        bits_of = self.choice.execution if fixed or not exact else Execution()  # the fastest has the bits of this one
        self.arithmetic = f"{bits_of} on {device_name(model.device)}"  # where it is the same, so are an image's bits
        self.engine = Engine(model, slots, self.choice.widths, threads=threads, piece=self.choice.piece)
        self.parts: list[Part] = []
        self.turn = 0.0  # seconds of the device that each of its chains has had
        self.step_seconds = self.image_steps_per_second = 0.0  # its pace
        self.seen_seconds = 0.0  # of the steps since the last look at it
        self.seen_rows = Counter[int]()  # of them, by the images that the network saw
        self._saw = 0  # images, in the last of them
        self._rows: dict[int, int] = {}  # by images, by the pace of now
        modules = [module for module in (model.network, model.executed) if module is not None]
        weights = {p.data_ptr(): p.nbytes for module in modules for p in module.parameters()}
        self.bytes = sum(weights.values())

    def step(self) -> bool:
        """One step of the engine; says whether any chain has left its slot. A part that cannot be sampled gets a
        `fault`, no other.

        Raises:
            DeviceFailed: not the parts are at fault.
        """
        begun, active = time.perf_counter(), len(self.engine.chains)
        image_steps, evaluations = self.engine.image_steps, self.engine.evaluations
        self.engine.rows = self.rows(max(active, self._saw))
        try:
            left = bool(self.engine.step())
        except Exception as error:  # whatever a device can throw
            log.warning("a step failed, so each shard is tried alone: %s", error)
            self._isolate()
            left = True
        else:
            if rows := self.engine.evaluations - evaluations:
                self._saw = (self.engine.image_steps - image_steps) // rows
                self.seen_rows[self._saw] += rows
        seconds = time.perf_counter() - begun
        self.seen_seconds += seconds
        self.turn += seconds / max(1, active)
        return left

    def leaving(self, seconds: float) -> int:
        """Chains that leave their slots within so many seconds, by the pace with all slots in use."""
        rows = seconds * self.image_steps_per_second / self.engine.slots
        return sum(chain.remaining <= rows for chain in self.engine.chains) if rows >= 1 else 0

    def diverged(self) -> list[Part]:
        """The parts of which an image became NaN or infinite; they have a `fault` now."""
        with self.heard():
            chains = self.engine.diverged()
        for part in self.parts:
            part.look_for_faults()
            for chain in _of(part, chains):
                part.fault = divergence(chain)
        return [part for part in self.parts if part.fault]

    def measure(self) -> None:
        """Runs the lane for the first time, and takes its pace: of one image alone, and with all slots in use.

        How many rows a step may have follows from it; the engine is left with those of all slots.
        """
        self.engine.rows = 1
        for width in reversed(self.engine.widths):  # the widest first: those that are recorded later use its memory
            self.try_out(width)
        self.engine.record_noise()
        self.step_seconds = self.try_out(1)
        self.image_steps_per_second = self.engine.slots / self.try_out(self.engine.slots)
        self._rows.clear()
        self.engine.rows = self.rows(self.engine.slots)

    def follow(self, factor: float) -> None:
        """Moves the pace towards what was seen of the steps since the last time.

        Args:
            factor: what their time on the device is, over what the host has seen of it.
        """
        expected = sum(rows * self._expected(images) for images, rows in self.seen_rows.items())
        if expected:
            ratio = min(OUTLIER, max(1 / OUTLIER, factor * self.seen_seconds / expected))
            moved = ratio ** min(1.0, expected / PACE_SECONDS)
            self.step_seconds *= moved
            self.image_steps_per_second /= moved
            self._rows.clear()
        self.seen_seconds = 0.0
        self.seen_rows.clear()

    def rows(self, images: int) -> int:
        """As many rows of so many images as do not last long, by the pace: of few images more than of many."""
        if images not in self._rows:
            seconds, most = self._expected(images), STEP_SECONDS.get(self.engine.model.device.type, 0.0)
            self._rows[images] = max(1, min(ROWS, int(most / seconds))) if seconds > 0 else 1
        return self._rows[images]

    def _expected(self, images: int) -> float:
        """Seconds of one network evaluation of so many images, by the pace; 0 if it was not taken."""
        if not self.step_seconds:
            return 0.0
        alone, now, full = (self.engine.evaluated(n) for n in (1, images, self.engine.slots))
        share = (now - alone) / max(1, full - alone)
        return (1 - share) * self.step_seconds + share * self.engine.slots / self.image_steps_per_second

    def try_out(self, width: int) -> float:
        """The model's own sampler for one row of `width` chains, while no slot is used; returns the seconds."""
        _, table = plan(None, self.card)
        chains = [Chain(table, seed=0, index=i, label=self.engine.model.any_label) for i in range(width)]
        self.engine.admit(chains)
        image_steps, evaluations = self.engine.image_steps, self.engine.evaluations
        try:
            self.engine.prepare()  # of several rows at once, which is no part of each
            self._wait()
            begun = time.perf_counter()
            self.engine.step()
            self._wait()
            seconds = time.perf_counter() - begun  # before the slots are emptied, which is no part of a step
        finally:
            self.engine.evict(chains)
            self.engine.image_steps, self.engine.evaluations = image_steps, evaluations  # these are nobody's
        return seconds

    def _wait(self) -> None:
        """Until the device has done all that it was told to."""
        if self.engine.model.device.type == "cuda":
            torch.cuda.synchronize(self.engine.model.device)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Where the host waits for the device, it may hear of an error of a step before.

        Raises:
            DeviceFailed: in place of an error, if the device does not work any more.
        """
        try:
            yield
        except RuntimeError as error:
            if works(self.engine.model.device):
                raise
            raise DeviceFailed(f"the device fails: {error}") from error

    def _isolate(self) -> None:
        """After a row that failed, and so changed nothing: on from there, with each part alone."""
        try:
            chains = self.engine.evict(list(self.engine.chains))
            failed = [part for part in self.parts if not self._step_alone(_of(part, chains), part)]
            if failed:
                self.try_out(1)
            self.engine.admit(
                [c for part in self.parts if part not in failed for c in _of(part, chains) if c.remaining]
            )
        except Exception as error:
            raise DeviceFailed(f"the device fails, and not because of one shard: {error}") from error

    def _step_alone(self, chains: Sequence[Chain], part: Part) -> bool:
        self.engine.admit(chains)
        try:
            self.engine.step()
        except Exception as error:
            part.fault = f"it cannot be sampled: {error}"
        self.engine.evict(chains)
        return part.fault is None


def works(device: torch.device | str) -> bool:
    """Whether a device can still add."""
    try:
        return float(torch.ones(2, device=device).sum()) == 2
    except Exception:  # whatever a device can throw
        return False


def divergence(chain: Chain) -> str:
    """What a client is told of an image that is not finite any more."""
    return (
        f"image {chain.index} became NaN or infinite within {chain.cursor} of {len(chain.table)} network evaluations: "
        "this model's scores diverge with these sampler settings; try a smaller step_size or more levels"
    )


def _choose(
    card: ModelCard,
    model: ScoreModel,
    slots: int,
    exact: bool,
    remembered: Remembered | None,
    threads: int,
    fixed: Execution | None,
) -> Choice:
    """How the model is run from now on: as it was found to be best before, or as it is found now."""
    _, table = plan(None, card)
    name = key(model, card.weights_sha256, slots, exact, threads, fixed)
    choice = remembered.get(name) if remembered else None
    if choice is not None:
        try:
            model.executed = choice.execution.of(model.network)
            some = torch.zeros(2, *card.image.chw, device=model.device)
            model.denoise(some, float(table.column("sigma")[0]), model.any_label)
            return choice
        except Exception as error:  # whatever a compiler that is gone can throw
            log.warning("%s works no longer, so all is measured again: %s", choice.execution, error)
    choice = choose(model, table, slots, exact, threads=threads, fixed=fixed)
    if remembered:
        remembered.put(name, choice)
    return choice


def _of(part: Part, chains: Sequence[Chain]) -> list[Chain]:
    return [chain for chain in chains if chain in part.chains]
