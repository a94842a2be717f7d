"""Batch: what one worker has in hand, from shards to chains in the slots of engines and back to images."""

import gc
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from itertools import count as counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.card import ModelCard
from models.labels import LabelRefused, guidance_of, labels_of
from models.plan import plan
from models.samplers.sampler import SamplerRefused
from models.samplers.table import snapshots
from models.sampling.chain import Chain
from models.sampling.choice import Remembered
from models.sampling.execution import Execution
from models.sampling.memory import out_of_memory
from models.sampling.projections import Blocks, Grey, Projection, Unmasked
from models.sampling.sample import from_pixels
from models.score import ScoreModel
from models.store import BrokenModel, ModelNotFound, ModelStore
from worker.device import state
from worker.device.lane import DeviceFailed, Lane, Part, works
from worker.queue.requests import ColorizeRequest, InpaintRequest, Request, UpscaleRequest

log = logging.getLogger(__name__)


class Refused(ValueError):
    """A request that no worker can fulfil, now or later; the message says why."""


class Lacking(RuntimeError):
    """A model that cannot be run here, though another worker might; the message says why."""


class NoRoom(RuntimeError):
    """A model that has to wait until others are not in use any more.

    Args:
        card: of its version.
    """

    def __init__(self, card: ModelCard) -> None:
        super().__init__(f"no room for model {card.name} version {card.version} beside those in use")
        self.card = card


class Batch:
    """Everything that one worker advances together.

    Chains of all shards share `slots` slots; every version of a model is a lane with an engine of its own. Each step
    is that of one lane: the one whose chains have had least of the device. Models are loaded when they are asked for;
    where memory is short the one that was used longest ago leaves, but never one in use.

    Args:
        store: where models come from.
        slots: chains that may be in slots, over all lanes.
        device: torch device name.
        memory: bytes that the weights of all models may take; a model that is larger still may be there alone.
        exact: an image's bits depend on its request alone.
        remembered: how models are run fastest here, as far as it was measured before.
        threads: on which a CPU evaluates pieces of a batch; torch is to have one in each.
        execution: how all networks are run; by default as their cards say, or as is fastest.
    """

    def __init__(
        self,
        store: ModelStore,
        slots: int,
        device: str,
        memory: float = float("inf"),
        exact: bool = True,
        remembered: Remembered | None = None,
        threads: int = 1,
        execution: Execution | None = None,
    ) -> None:
        self.store, self.slots, self.device, self.memory = store, slots, device, memory
        self.exact, self.remembered, self.threads, self.execution = exact, remembered, threads, execution
        self._lanes: dict[tuple[str, int, str], Lane] = {}  # that used longest ago first
        self._numbers = counter()
        self._alone: set[str] = set()  # sha256 of weights that found too little memory beside others
        self._turn = 0.0  # that of the lane that was last to have one: none that comes later begins before it
        self.image_steps = 0  # computed so far
        self._seconds = 0.0  # of steps, since the last look at their pace
        self._changed = False  # whether a part may have ended, since somebody last looked
        self.soon_seconds = 0.0  # before a chain is done, from when on its slot is free to be claimed for
        # model, image-steps, network evaluations, seconds
        self.on_step: Callable[[ModelCard, int, int, float], None] = lambda *_: None
        self.on_load: Callable[[bool], None] = lambda _: None  # whether it begins, or has ended

    @property
    def parts(self) -> list[Part]:
        """All shards in hand, oldest first."""
        return sorted((part for lane in self._lanes.values() for part in lane.parts), key=lambda part: part.number)

    @property
    def free(self) -> int:
        """Slots that nothing in hand will fill, now or within `soon_seconds`."""
        lanes = self._lanes.values()
        waiting = sum(len(part.waiting) for lane in lanes for part in lane.parts)
        return max(0, self.slots - self.active - waiting + sum(lane.leaving(self.soon_seconds) for lane in lanes))

    @property
    def active(self) -> int:
        """Chains in slots."""
        return sum(len(lane.engine.chains) for lane in list(self._lanes.values()))

    @property
    def cards(self) -> list[ModelCard]:
        """Models in memory."""
        return [lane.card for lane in list(self._lanes.values())]

    @property
    def arithmetics(self) -> dict[str, str]:
        """Model in memory -> the execution and the device whose bits its images have."""
        return {lane.card.name: lane.arithmetic for lane in list(self._lanes.values())}

    @property
    def longest_step(self) -> float:
        """Seconds that a step may be expected to take, with all slots in use and guided."""
        paces = [lane.image_steps_per_second for lane in list(self._lanes.values())]
        return max((2 * self.slots / pace for pace in paces if pace), default=0.0)

    def frees(self, part: Part) -> bool:
        """Whether there would be free slots without a part, and not only chains of others that wait for them."""
        others = [chain for there in self.parts if there is not part for chain in there.chains if chain.remaining]
        return len(others) < self.slots

    def warm_up(self, name: str) -> None:
        """Loads the newest version of a model and runs it, so that the first job does not wait."""
        self._lane(self.store.card(name))

    def paces(self) -> dict[str, tuple[float, float]]:
        """Model -> seconds of a step of one image, and image-steps a second with all slots in use."""
        return {name: (lane.step_seconds, lane.image_steps_per_second) for (name, *_), lane in self._lanes.items()}

    def passed(self, seconds: float) -> list[Part]:
        """Parts whose images wait for slots that another's may have before: some is free within so many seconds.

        None while images that were let in so wait themselves, so that nobody waits for long.
        """
        if any(part.ahead and part.waiting for part in self.parts):
            return []
        return [part for part in self.parts if part.waiting and part.seconds_until_free <= seconds]

    def admit(self, request: Request, first: int, count: int, saved: bytes | None = None, ahead: bool = False) -> Part:
        """Takes on `count` images of a request, from image `first` on, where `saved` left them.

        What is `ahead` gets the next slots, before the images in hand that wait for some.

        Raises:
            Refused: the request cannot be fulfilled.
            Lacking: its model cannot be run here.
            NoRoom: its model has to wait.
            DeviceFailed: the device cannot run the model.
        """
        try:
            lane = self._lane_of(request)
        except (ModelNotFound, BrokenModel) as error:
            raise Lacking(str(error)) from error
        try:
            _, table = plan(request.sampler, lane.card, known=request.kind != "sample")
            labels_of(None, request.labels, lane.card)
            guidance = guidance_of(request.guidance, request.guidance_interval, request.labels, lane.card, table)
        except (SamplerRefused, LabelRefused) as error:
            raise Refused(str(error)) from error
        known, projection = _known(request, lane.card)
        if request.frames > len(table):
            raise Refused(f"{request.frames} frames were asked for, of {len(table)} network evaluations")
        keep = snapshots(len(table), request.frames)[:-1]
        chains = [
            Chain(
                table, request.seed, index, known, projection, label=request.label(index), guidance=guidance, keep=keep
            )
            for index in range(first, first + count)
        ]
        if saved is not None:
            try:
                state.unpack(saved, chains, lane.card.image.chw, lane.arithmetic)
            except ValueError as error:
                log.warning("beginning again: %s", error)
        waiting = deque(chain for chain in chains if chain.remaining)
        part = Part(lane, chains, next(self._numbers), waiting, ahead=ahead)
        lane.parts.append(part)
        self._changed = True  # it may have been done before
        self._fill()
        return part

    def step(self) -> list[Part]:
        """One step of the engine of one lane; returns the parts that are ended, which leave.

        Raises:
            DeviceFailed: the device cannot go on.
        """
        clock = time.perf_counter()
        lanes = [lane for lane in self._lanes.values() if lane.engine.chains]
        if lanes:
            lane = min(lanes, key=lambda lane: lane.turn)
            self._turn = lane.turn
            done, evaluations, begun = lane.engine.image_steps, lane.engine.evaluations, time.perf_counter()
            self._changed |= lane.step()
            stepped, evaluations = lane.engine.image_steps - done, lane.engine.evaluations - evaluations
            self.image_steps += stepped
            self.on_step(lane.card, stepped, evaluations, time.perf_counter() - begun)
        ended = self._ended() if self._changed else []
        self._seconds += time.perf_counter() - clock
        return ended

    def _ended(self) -> list[Part]:
        """The parts that are ended, which leave; what is free is filled."""
        self._changed = False
        ended = [part for part in self.parts if part.ended]
        for part in ended:
            part.look_for_faults()
            self.drop(part)
        self._fill()
        return ended

    def diverged(self) -> list[Part]:
        """The parts of which an image became NaN or infinite; they leave. Waits for the device: not for every step."""
        clock = time.perf_counter()
        found = [part for lane in self._lanes.values() for part in lane.diverged()]
        self._look_at_pace(self._seconds + time.perf_counter() - clock)
        for part in found:
            self.drop(part)
        return found

    def _look_at_pace(self, seconds: float) -> None:
        """Lets the paces follow what all steps since the last look have taken, down to their end on the device.

        The machine may have been busy when they were measured, or be so now.
        """
        seen = sum(lane.seen_seconds for lane in self._lanes.values())
        for lane in self._lanes.values():
            lane.follow(seconds / seen if seen else 1.0)
        self._seconds = 0.0

    def watch(self, parts: Collection[Part]) -> None:
        """Keeps from now on estimates of what the images of these parts look like, and of no others."""
        for lane in self._lanes.values():
            lane.engine.watched = any(part in parts for part in lane.parts)

    def pause(self, part: Part) -> None:
        """Takes a part out of its slots, until the next step at least, so that its state can be saved."""
        part.lane.engine.evict(part.chains)
        part.waiting = deque(chain for chain in part.chains if chain.remaining)
        self._changed = True

    def drop(self, part: Part) -> None:
        """Takes a part out of hand as it is; its slots are free at once."""
        part.lane.engine.evict(part.chains)
        part.waiting.clear()
        if part in part.lane.parts:
            part.lane.parts.remove(part)
        self._fill()

    def _fill(self) -> None:
        """Gives the free slots to the chains that wait, oldest part first, but for those that were let in."""
        free = self.slots - self.active
        for part in sorted((part for part in self.parts if part.waiting), key=lambda part: not part.ahead):
            admitted = [part.waiting.popleft() for _ in range(min(free, len(part.waiting)))]
            if admitted and not part.lane.engine.chains:  # who was away has not saved up turns
                part.lane.turn = max(part.lane.turn, self._turn)
            part.lane.engine.admit(admitted)
            free -= len(admitted)

    def _lane_of(self, request: Request) -> Lane:
        """The lane of a request's model; the version that is loaded stays what it is, whatever happens to its files."""
        for (name, version, sha256), lane in self._lanes.items():
            if (name, version) == (request.model, request.version) and request.weights_sha256 in (None, sha256):
                return self._lane(lane.card)
        card = self.store.card(request.model, request.version)
        if request.weights_sha256 not in (None, card.weights_sha256):
            raise Lacking(
                f"model {card.name} version {card.version} was replaced by other weights after the job was accepted: "
                "ask again, and publish changed weights as a new version"
            )
        return self._lane(card)

    def serves(self, name: str) -> bool:
        """Whether a model is in memory, or can be loaded while all that are there stay."""
        if any(card.name == name for card in self.cards):
            return True
        with suppress(ModelNotFound, BrokenModel):
            card = self.store.card(name)
            loaded = sum(lane.bytes for lane in self._lanes.values())
            return card.weights_sha256 not in self._alone and loaded + self.store.size(card) <= self.memory
        return True  # one that is gone takes no room

    def fits(self, card: ModelCard) -> bool:
        """Whether a model can be loaded, if those that are not in use leave. One that is gone takes no room."""
        in_use = [lane.bytes for lane in self._lanes.values() if lane.parts]
        if in_use and card.weights_sha256 in self._alone:
            return False
        try:
            return not in_use or sum(in_use) + self.store.size(card) <= self.memory
        except (ModelNotFound, BrokenModel):
            return True

    def _lane(self, card: ModelCard) -> Lane:
        key = card.name, card.version, card.weights_sha256
        lane = self._lanes.pop(key, None) or self._load(card)
        self._lanes[key] = lane
        return lane

    def _load(self, card: ModelCard) -> Lane:
        if not self.fits(card):
            raise NoRoom(card)
        self.on_load(True)
        try:
            return self._loaded(card)
        finally:
            self.on_load(False)

    def _loaded(self, card: ModelCard) -> Lane:
        self._make_room(self.memory - self.store.size(card))
        try:
            lane = None
            try:
                lane = self._start(card)
            except Exception as error:
                if not out_of_memory(error):
                    raise
            idle = any(not there.parts for there in self._lanes.values())
            if lane is None or (lane.engine.narrowed and idle):  # here: an error's frames hold tensors no longer
                log.warning("there is too little memory for model %s version %d beside others", card.name, card.version)
                lane = None  # and its memory is free
                self._make_room(0)
                lane = self._start(card)
        except (ModelNotFound, BrokenModel):
            raise
        except Exception as error:
            if out_of_memory(error) and any(lane.parts for lane in self._lanes.values()):
                self._alone.add(card.weights_sha256)
                raise NoRoom(card) from error
            reason = f"model {card.name} version {card.version} cannot be run on {self.device}: {error}"
            raise (Lacking(reason) if works(self.device) else DeviceFailed(reason)) from error
        log.info(
            "loaded model %s version %d on %s, run in %s", card.name, card.version, self.device, lane.choice.execution
        )
        return lane

    def _start(self, card: ModelCard) -> Lane:
        model = ScoreModel.load(self.store, card, self.device)
        lane = Lane(card, model, self.slots, self.exact, self.remembered, self.threads, self.execution)
        lane.measure()
        return lane

    def _make_room(self, most: float) -> None:
        """Lets models that are not in use leave, that used longest ago first, until the others have at most this."""
        for key in [key for key, lane in self._lanes.items() if not lane.parts]:
            if sum(there.bytes for there in self._lanes.values()) > most:
                log.info("model %s version %d leaves", *key[:2])
                del self._lanes[key]
                gc.collect()  # now, and not when there is too little memory already
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()


def _known(request: Request, card: ModelCard) -> tuple[Tensor | None, Projection | None]:
    """What is known of a request's images, float32 [c, h, w] in [0, 1], and of what in them: see Chain."""
    c, h, w = card.image.chw
    match request:
        case InpaintRequest():
            mask = torch.from_numpy(_array("mask", request.mask, (1, h, w), card) != 0)
            return from_pixels(_array("image", request.image, (h, w, c), card)), Unmasked(mask)
        case UpscaleRequest(factor=k):
            small = _array("image", request.image, (h // k, w // k, c), card)
            return from_pixels(small.repeat(k, 0).repeat(k, 1)), Blocks(k)
        case ColorizeRequest():
            grey = _array("image", request.image, (h, w, 1), card)
            return from_pixels(grey.repeat(c, 2)), Grey()
    return None, None


def _array(name: str, data: bytes, shape: tuple[int, int, int], card: ModelCard) -> NDArray[np.uint8]:
    array = np.frombuffer(data, np.uint8)
    if array.size != math.prod(shape):
        raise Refused(f"{name} has {array.size} pixels; {card.name} takes {math.prod(shape)}")
    return array.reshape(shape)
