"""Batch: what one worker has in hand, from shards to chains in the slots of engines and back to images."""

import logging
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from models.card import ModelCard
from models.images import Pixels
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.plan import SamplerRefused, plan
from models.sampling.sample import from_pixels, to_pixels
from models.score import ScoreModel
from models.store import BrokenModel, ModelNotFound, ModelStore
from worker.requests import InpaintRequest, SampleRequest

log = logging.getLogger(__name__)


class Refused(ValueError):
    """A request that no worker can fulfil, now or later; the message says why."""


@dataclass(eq=False)
class Part:
    """One shard in hand.

    Args:
        lane: the lane of its model.
        chains: its images, in order.
        waiting: how many of them have not been admitted yet; they are the last ones.
    """

    lane: "Lane"
    chains: list[Chain]
    waiting: deque[Chain] = field(default_factory=deque)

    @property
    def image_steps_done(self) -> int:
        return sum(chain.cursor for chain in self.chains)

    @property
    def finished(self) -> bool:
        return all(not chain.remaining for chain in self.chains)

    def pixels(self) -> Pixels:
        """The images uint8 [n, h, w, c] of a finished part.

        Raises:
            Refused: an image is not finite.
        """
        images = []
        for chain in self.chains:
            if chain.x is None or not bool(torch.isfinite(chain.x).all()):
                raise Refused(
                    f"image {chain.index} became NaN or infinite: this model's scores diverge with these sampler "
                    "settings; try a smaller step_size or more levels"
                )
            images.append(to_pixels(chain.x))
        return np.stack(images)


class Lane:
    """One version of a model: its engine, and the parts that use it, oldest first."""

    def __init__(self, card: ModelCard, model: ScoreModel, slots: int) -> None:
        self.card, self.engine = card, Engine(model, slots)
        self.parts: list[Part] = []

    def fill(self, slots: int) -> int:
        """Admits waiting chains to at most `slots` slots, oldest part first; returns how many."""
        admitted: list[Chain] = []
        for part in self.parts:
            while part.waiting and len(admitted) < min(slots, self.engine.free):
                admitted.append(part.waiting.popleft())
        self.engine.admit(admitted)
        return len(admitted)


class Batch:
    """Everything that one worker advances together.

    Chains of all shards share `slots` slots; every version of a model is a lane with an engine of its own, and `step`
    advances each lane that has chains.

    Args:
        store: where models come from.
        slots: chains that may be in slots, over all lanes.
        device: torch device name.
    """

    def __init__(self, store: ModelStore, slots: int, device: str) -> None:
        self.store, self.slots, self.device = store, slots, device
        self._lanes: dict[tuple[str, int], Lane] = {}

    @property
    def parts(self) -> list[Part]:
        """All shards in hand."""
        return [part for lane in self._lanes.values() for part in lane.parts]

    @property
    def free(self) -> int:
        """Slots that nothing in hand will fill."""
        waiting = sum(len(part.waiting) for part in self.parts)
        return max(0, self.slots - self._active - waiting)

    @property
    def _active(self) -> int:
        return sum(len(lane.engine.chains) for lane in self._lanes.values())

    def warm_up(self, name: str) -> None:
        """Loads the newest version of a model and runs it once at full width, so that the first job does not wait."""
        card = self.store.card(name)
        lane = self._lane(name, card.version)
        _, table = plan(None, card)
        chains = [Chain(table, seed=0, index=i) for i in range(self.slots)]
        lane.engine.admit(chains)
        lane.engine.step()
        lane.engine.evict(chains)

    def admit(self, request: SampleRequest | InpaintRequest, first: int, count: int) -> Part:
        """Takes on `count` images of a request, from image `first` on.

        Raises:
            Refused: the request cannot be fulfilled.
        """
        try:
            lane = self._lane(request.model, request.version)
            _, table = plan(request.sampler, lane.card)
        except (ModelNotFound, BrokenModel, SamplerRefused) as error:
            raise Refused(str(error)) from error
        known, mask = _decode(request, lane.card) if isinstance(request, InpaintRequest) else (None, None)
        chains = [Chain(table, request.seed, index, known, mask) for index in range(first, first + count)]
        part = Part(lane, chains, deque(chains))
        lane.parts.append(part)
        self._fill()
        return part

    def step(self) -> list[Part]:
        """One network evaluation for every chain in a slot; returns the parts that are finished, which leave."""
        for lane in self._lanes.values():
            lane.engine.step()
        finished = [part for part in self.parts if not part.waiting and part.finished]
        for part in finished:
            part.lane.parts.remove(part)
        self._fill()
        return finished

    def drop(self, part: Part) -> None:
        """Takes a part out of hand; its slots are free at once."""
        part.lane.engine.evict(part.chains)
        part.waiting.clear()
        if part in part.lane.parts:
            part.lane.parts.remove(part)
        self._fill()

    def _fill(self) -> None:
        free = self.slots - self._active
        for lane in self._lanes.values():
            free -= lane.fill(free)

    def _lane(self, name: str, version: int) -> Lane:
        lane = self._lanes.get((name, version))
        if lane is None:
            card = self.store.card(name, version)
            lane = Lane(card, ScoreModel.load(self.store, card, self.device), self.slots)
            self._lanes[name, version] = lane
            log.info("loaded model %s version %d on %s", name, version, self.device)
        return lane


def _decode(request: InpaintRequest, card: ModelCard) -> tuple[Tensor, Tensor]:
    """The known image float32 [c, h, w] in [0, 1] and the mask bool [1, h, w], true = repaint."""
    c, h, w = card.image.chw
    image, mask = np.frombuffer(request.image, np.uint8), np.frombuffer(request.mask, np.uint8)
    if image.size != c * h * w or mask.size != h * w:
        raise Refused(
            f"image and mask have {image.size} and {mask.size} pixels; {card.name} takes {c * h * w} and {h * w}"
        )
    return from_pixels(image.reshape(h, w, c)), torch.from_numpy(mask.reshape(1, h, w) != 0)
