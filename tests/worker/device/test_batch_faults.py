"""What a batch does when an image, a step or the device fails."""

from collections.abc import Callable
from typing import NoReturn

import numpy as np
import pytest
from torch import Tensor

from models.card import ModelCard
from models.plan import plan
from models.sampling.sample import sample
from models.score import ScoreModel
from tests.worker.device.parts import request, run
from worker.device.batch import Batch
from worker.device.lane import DeviceFailed, Part


def poison(part: Part) -> None:
    """Makes the first image of a part NaN."""
    engine = part.lane.engine
    engine._x[engine.chains.index(part.chains[0])] = float("nan")


def test_an_image_that_is_not_finite_is_seen_on_its_way_and_leaves_alone(
    batch: Batch, tiny_card: ModelCard, tiny_model: ScoreModel
) -> None:
    r = request(tiny_card, 2)
    good, bad = batch.admit(r, 0, 2), batch.admit(request(tiny_card, 2, 2), 0, 2)
    batch.step()
    poison(bad)
    assert batch.diverged() == [bad]
    assert bad.fault is not None
    assert "image 0 became NaN or infinite within 1 of 7" in bad.fault
    assert batch.parts == [good]
    assert np.array_equal(run(batch)[good], sample(tiny_model, plan(r.sampler, tiny_card)[1], 2, 1))
    assert good.fault is None


def test_an_image_that_is_not_finite_at_its_end_is_a_fault(batch: Batch, tiny_card: ModelCard) -> None:
    good, bad = batch.admit(request(tiny_card, 1), 0, 1), batch.admit(request(tiny_card, 1, 2), 0, 1)
    for _ in range(6):
        batch.step()
    poison(bad)
    assert set(batch.step()) == {good, bad}
    assert good.fault is None
    assert bad.fault is not None
    assert "NaN" in bad.fault


def break_network(part: Part, monkeypatch: pytest.MonkeyPatch, when: Callable[[Tensor], bool]) -> None:
    """Makes the network of a part's lane throw whenever `when` says so of its input."""
    network = part.lane.engine.model.network
    real = network.forward

    def forward(x: Tensor, condition: Tensor) -> Tensor:
        if when(x):
            raise RuntimeError("illegal instruction")
        return real(x, condition)

    monkeypatch.setattr(network, "forward", forward)


def test_a_part_that_breaks_the_step_is_found_and_the_others_go_on(
    batch: Batch, tiny_card: ModelCard, tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    r = request(tiny_card, 1)
    parts = [batch.admit(r, index, 1) for index in range(3)]
    batch.step()
    poison(parts[1])
    break_network(parts[0], monkeypatch, lambda x: bool(x.isnan().any()))
    assert batch.step() == [parts[1]]
    assert parts[1].fault == "it cannot be sampled: illegal instruction"
    assert [part.image_steps_done for part in parts] == [2, 1, 2]
    done = run(batch)
    whole = sample(tiny_model, plan(r.sampler, tiny_card)[1], 3, 1)
    for index in (0, 2):
        assert np.array_equal(done[parts[index]], whole[[index]])


def test_an_error_that_passes_costs_nothing(
    batch: Batch, tiny_card: ModelCard, tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    r = request(tiny_card, 4)
    parts = [batch.admit(r, 0, 2), batch.admit(r, 2, 2)]
    errors = iter([False, True])
    break_network(parts[0], monkeypatch, lambda _: next(errors, False))
    done = run(batch)
    whole = sample(tiny_model, plan(r.sampler, tiny_card)[1], 4, 1)
    assert np.array_equal(np.concatenate([done[part] for part in parts]), whole)


def test_a_device_that_fails_at_everything_is_told_from_a_bad_part(
    batch: Batch, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = batch.admit(request(tiny_card, 1), 0, 1)
    break_network(part, monkeypatch, lambda _: True)
    with pytest.raises(DeviceFailed, match="illegal instruction"):
        batch.step()


@pytest.mark.parametrize("where", ["diverged", "look_for_faults", "pixels", "estimates", "states"])
def test_a_device_that_fails_is_told_wherever_the_host_hears_of_it(
    batch: Batch, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A GPU tells of an error in a step when the host next waits for it, which may be anywhere."""
    part = batch.admit(request(tiny_card, 1), 0, 1)
    batch.watch([part])
    batch.step()
    batch.pause(part)
    hear = {
        "diverged": batch.diverged,
        "look_for_faults": part.look_for_faults,
        "pixels": part.pixels,
        "estimates": lambda: part.estimates(1),
        "states": lambda: part.states(1),
    }[where]

    def fail(*_: object) -> NoReturn:
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr("torch.Tensor.isfinite", fail)
    monkeypatch.setattr("torch.isfinite", fail)
    monkeypatch.setattr("worker.device.lane.to_pixels", fail)
    if where == "estimates":  # of an image in its slot
        batch._fill()
        batch.step()
    with pytest.raises(RuntimeError, match="illegal memory"):  # something else than the device is at fault
        hear()
    monkeypatch.setattr("worker.device.lane.works", lambda _: False)
    with pytest.raises(DeviceFailed, match="illegal memory"):
        hear()
