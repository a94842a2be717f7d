"""Lane: one version of a model on a device, its engine, and the shards that it works on."""

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from models.card import ModelCard
from models.images import Pixels
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.plan import plan
from models.sampling.sample import to_pixels
from models.score import ScoreModel

log = logging.getLogger(__name__)


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
    """

    lane: "Lane"
    chains: list[Chain]
    number: int = 0
    waiting: deque[Chain] = field(default_factory=deque)
    fault: str | None = None

    @property
    def image_steps_done(self) -> int:
        return sum(chain.cursor for chain in self.chains)

    @property
    def finished(self) -> bool:
        return all(not chain.remaining for chain in self.chains)

    @property
    def ended(self) -> bool:
        return self.fault is not None or self.finished

    @property
    def sigma(self) -> float | None:
        """Noise level of the slowest image that is on its way; None if none is."""
        under_way = [chain for chain in self.chains if chain.cursor and chain.remaining]
        if not under_way:
            return None
        slowest = max(under_way, key=lambda chain: chain.remaining)
        return float(slowest.table.column("sigma")[slowest.cursor])

    def estimates(self, most: int) -> Pixels:
        """What the first images look like by now, uint8 [n, h, w, c]; black before their first step.

        They are the denoised estimates of the last step, if the engine is `watched`, and of finished images these.
        """
        c, h, w = self.lane.card.image.chw
        looks = [chain.x if chain.x is not None else self.lane.engine.estimate(chain) for chain in self.chains[:most]]
        return np.stack([np.zeros((h, w, c), np.uint8) if look is None else to_pixels(look) for look in looks])

    def frames(self) -> Pixels | None:
        """What the images of a finished part looked like on their way, uint8 [n, frames - 1, h, w, c]; None if none."""
        if not self.chains[0].keep:
            return None
        return np.stack([torch.stack(chain.frames).numpy() for chain in self.chains])

    def look_for_faults(self) -> None:
        """Sets `fault` if an image that is in no slot is not finite; those in slots are looked at by the engine."""
        for chain in self.chains:
            if self.fault is None and chain.x is not None and not bool(torch.isfinite(chain.x).all()):
                self.fault = divergence(chain)

    def pixels(self) -> Pixels:
        """The images uint8 [n, h, w, c] of a finished part without fault."""
        return np.stack([to_pixels(chain.x) for chain in self.chains if chain.x is not None])


class Lane:
    """One version of a model: its engine, and the parts that use it, oldest first.

    Args:
        card: of the version.
        model: loaded.
        slots: chains that may be in slots.
    """

    def __init__(self, card: ModelCard, model: ScoreModel, slots: int) -> None:
        self.card, self.engine = card, Engine(model, slots)
        self.parts: list[Part] = []
        self.turn = 0.0  # seconds of the device that each of its chains has had
        self.step_seconds = self.image_steps_per_second = 0.0
        self.bytes = sum(p.numel() * p.element_size() for p in model.network.parameters())

    def step(self) -> None:
        """One network evaluation for every chain in a slot. A part that cannot be sampled gets a `fault`, no other.

        Raises:
            DeviceFailed: not the parts are at fault.
        """
        begun, active = time.perf_counter(), len(self.engine.chains)
        try:
            self.engine.step()
        except Exception as error:  # whatever a device can throw
            log.warning("a step failed, so each shard is tried alone: %s", error)
            self._isolate()
        self.turn += (time.perf_counter() - begun) / max(1, active)

    def diverged(self) -> list[Part]:
        """The parts of which an image became NaN or infinite; they have a `fault` now."""
        chains = self.engine.diverged()
        for part in self.parts:
            part.look_for_faults()
            for chain in _of(part, chains):
                part.fault = divergence(chain)
        return [part for part in self.parts if part.fault]

    def measure(self) -> None:
        """Runs the lane for the first time, and takes its pace: of one image alone, and with all slots in use."""
        self.try_out(1)
        self.step_seconds = self.try_out(1)
        self.image_steps_per_second = self.engine.slots / self.try_out(self.engine.slots)

    def try_out(self, width: int) -> float:
        """Runs the model's own sampler for one step of `width` chains, while no slot is used; returns the seconds."""
        _, table = plan(None, self.card)
        chains = [Chain(table, seed=0, index=i) for i in range(width)]
        self.engine.admit(chains)
        begun, image_steps = time.perf_counter(), self.engine.image_steps
        try:
            self.engine.step()
            if self.engine.model.device.type == "cuda":
                torch.cuda.synchronize(self.engine.model.device)
        finally:
            self.engine.evict(chains)
            self.engine.image_steps = image_steps  # these are nobody's
        return time.perf_counter() - begun

    def _isolate(self) -> None:
        """After a step that failed, and so changed nothing: the same step once more, for each part alone."""
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


def divergence(chain: Chain) -> str:
    """What a client is told of an image that is not finite any more."""
    return (
        f"image {chain.index} became NaN or infinite within {chain.cursor} of {len(chain.table)} network evaluations: "
        "this model's scores diverge with these sampler settings; try a smaller step_size or more levels"
    )


def _of(part: Part, chains: Sequence[Chain]) -> list[Chain]:
    return [chain for chain in chains if chain in part.chains]
