"""The promise of a batch: the pixels of a job depend on its own request alone, whatever kind it is and is beside.

That they do in an engine is in tests/models/sampling/test_engine.py; here are whole requests, of a model with colours
and of one without, and state that is saved in one batch and gone on from in another.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.images import Pixels
from models.plan import plan
from models.samplers.ancestral import Ancestral
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.heun import Heun
from models.samplers.repaint import Repaint
from models.samplers.settings import SamplerSettings
from models.sampling.execution import Execution
from models.store import ModelStore
from worker.device import state
from worker.device.batch import Batch
from worker.device.lane import Part
from worker.queue.requests import ColorizeRequest, InpaintRequest, Request, SampleRequest, UpscaleRequest

Kind = Literal["sample", "inpaint", "upscale", "colorize"]
SAMPLERS: list[SamplerSettings] = [
    Heun(name="heun", levels=4),
    AnnealedLangevin(levels=3, steps_per_level=2),
    Ancestral(name="ancestral", levels=5),
    Repaint(name="repaint", levels=3, resamples=3),  # of those of which something is known
]
SLOTS = {1: 1, 2: 2, 5: 3, 8: 4}  # of the batches, and on how many threads each computes


@dataclass(frozen=True)
class Asked:
    """What a job's pixels may depend on."""

    kind: Kind
    colour: bool
    sampler: int
    seed: int
    count: int

    def request(self, store: ModelStore) -> Request:
        card = store.card("colour" if self.colour or self.kind == "colorize" else "tiny")
        known = self.kind != "sample"
        sampler = SAMPLERS[self.sampler if known else self.sampler % 3]
        fields: dict[str, Any] = {
            "model": card.name,
            "version": 1,
            "count": self.count,
            "seed": self.seed,
            "sampler": plan(sampler, card, known=known)[0],
            "kind": self.kind,
        }
        draw, (c, h, w) = np.random.default_rng(self.seed), card.image.chw
        match self.kind:
            case "inpaint":
                mask = draw.integers(0, 2, h * w, np.uint8).tobytes()
                return InpaintRequest.model_construct(**fields, image=draw.bytes(c * h * w), mask=mask)
            case "upscale":
                factor = 2 + 2 * (self.seed % 2)
                image = draw.bytes(c * h * w // factor**2)
                return UpscaleRequest.model_construct(**fields, image=image, factor=factor)
            case "colorize":
                return ColorizeRequest.model_construct(**fields, image=draw.bytes(h * w))
        return SampleRequest(**fields)


@dataclass(frozen=True)
class Visit:
    """A job that arrives at a step, and whose worker stops after others: its state goes on in the next batch."""

    asked: Asked
    arrives: int
    leaves: frozenset[int]


ASKED = st.builds(
    Asked,
    st.sampled_from(get_args(Kind)),
    st.booleans(),
    st.integers(0, len(SAMPLERS) - 1),
    st.integers(0, 9),
    st.integers(1, 4),
)
VISITS = st.builds(Visit, ASKED, st.integers(0, 6), st.frozensets(st.integers(1, 12), max_size=3))


@pytest.fixture(scope="session")
def batch_of(colours: ModelStore) -> Callable[[int], Batch]:
    """A batch of so many slots, the same one each time."""

    @cache
    def make(slots: int) -> Batch:
        return Batch(colours, slots, "cpu", execution=Execution(), threads=SLOTS[slots])

    return make


@pytest.fixture(scope="session")
def alone(colours: ModelStore) -> Callable[[Asked], Pixels]:
    """The pixels of a job that has a batch for itself."""
    batch = Batch(colours, 1, "cpu", execution=Execution())

    @cache
    def run(asked: Asked) -> Pixels:
        part = batch.admit(asked.request(colours), 0, asked.count)
        while batch.parts:
            batch.step()
        return part.pixels()

    return run


@settings(max_examples=40, deadline=None)
@given(
    visits=st.lists(VISITS, min_size=1, max_size=7),
    slots=st.lists(st.sampled_from(sorted(SLOTS)), min_size=2, max_size=2),
)
def test_every_kind_of_job_in_any_company_has_the_pixels_it_has_alone(
    colours: ModelStore,
    batch_of: Callable[[int], Batch],
    alone: Callable[[Asked], Pixels],
    visits: list[Visit],
    slots: list[int],
) -> None:
    for visit, pixels in zip(visits, visited([batch_of(n) for n in slots], visits, colours), strict=True):
        assert np.array_equal(pixels, alone(visit.asked)), visit.asked
        request = visit.asked.request(colours)
        if isinstance(request, InpaintRequest):
            shape = colours.card(request.model).image
            kept = np.frombuffer(request.mask, np.uint8).reshape(shape.height, shape.width) == 0
            given_image = np.frombuffer(request.image, np.uint8).reshape(pixels.shape[1:])
            assert (pixels[:, kept] == given_image[kept]).all()


def visited(batches: list[Batch], visits: list[Visit], store: ModelStore) -> list[Pixels]:
    """The pixels of each job, once all have come and gone."""
    done: dict[int, Pixels] = {}
    held: dict[int, tuple[int, Part]] = {}  # which batch it is in
    saved: dict[int, tuple[int, bytes]] = {}  # which batch goes on with it
    step = 0
    while len(done) < len(visits):
        for number, visit in enumerate(visits):
            if number in held and step in visit.leaves:
                at, part = held.pop(number)
                batches[at].pause(part)
                saved[number] = (at + 1) % len(batches), state.pack(part.chains, part.lane.arithmetic)
                batches[at].drop(part)
            elif number not in held and number not in done and step >= visit.arrives:
                at, data = saved.pop(number, (number % len(batches), None))
                request = visit.asked.request(store)
                part = batches[at].admit(request, 0, visit.asked.count, data)
                assert data is None or part.image_steps_done == sum(chain.cursor for chain in part.chains)
                held[number] = at, part
        for batch in batches:
            ended = batch.step()
            for number, (_, part) in list(held.items()):
                if part in ended:
                    done[number] = held.pop(number)[1].pixels()
        step += 1
    return [done[number] for number in range(len(visits))]
