"""Saved state of what is finished; that of what is under way is in test_batch.py and test_batch_company.py."""

import numpy as np
import pytest

from models.plan import plan
from models.store import ModelStore
from tests.worker.device.parts import SHORT, run
from worker.device import state
from worker.device.batch import Batch
from worker.queue.requests import SampleRequest


@pytest.mark.parametrize("frames", [0, 3])
@pytest.mark.parametrize("model", ["tiny", "colour"])
def test_what_is_finished_is_gone_on_from_without_a_step(colours: ModelStore, model: str, frames: int) -> None:
    """As by a worker that stops while the results store is away."""
    card = colours.card(model)
    sampler, table = plan(SHORT, card)
    asked = SampleRequest(model=model, version=1, count=4, seed=1, sampler=sampler, frames=frames)
    batch, other = (Batch(colours, 4, "cpu") for _ in range(2))
    part = batch.admit(asked, 0, 4)
    pixels = run(batch)[part]
    saved = state.pack_done(pixels, part.frames(), len(table), part.lane.arithmetic)
    again = other.admit(asked, 0, 4, saved)
    assert other.step() == [again]
    assert other.image_steps == 0
    assert np.array_equal(again.pixels(), pixels)
    shown, expected = again.frames(), part.frames()
    assert (shown is None) == (expected is None) == (frames == 0)
    assert shown is None or np.array_equal(shown, expected)
