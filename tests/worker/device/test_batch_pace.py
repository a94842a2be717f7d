"""The pace of a batch's lanes, which ETA and deadlines rest on."""

from types import SimpleNamespace

import pytest

from models.card import ModelCard
from models.plan import plan
from models.samplers.follow_scores import FollowScores
from models.sampling.chain import Chain
from worker.device.batch import Batch
from worker.device.lane import Lane
from worker.queue.requests import SampleRequest

LONG = FollowScores(name="follow_scores", steps=1000)
pytestmark = pytest.mark.usefixtures("no_network")  # what a step takes is for the device to say, in a time of its own


class Device:
    """Takes 0.1 s for a step, and 0.02 s more for each image after the first; the host may have to wait for it later.

    Args:
        batch: whose lanes run on it.
        late: whether the host waits when it looks for what diverged, as with a GPU, and not at each step.
    """

    def __init__(self, batch: Batch, late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batch, self.late, self.now, self.behind = batch, late, 0.0, 0.0
        for module in ("batch", "lane"):
            monkeypatch.setattr(f"worker.device.{module}.time", SimpleNamespace(perf_counter=lambda: self.now))

    def attach(self, lane: Lane) -> None:
        step, diverged = lane.engine.step, lane.diverged

        def timed_step() -> object:
            self.behind += 0.08 + 0.02 * len(lane.engine.chains)
            done = step()
            if self.late:
                self.now += 0.001
                self.behind -= 0.001
            else:
                self.wait()
            return done

        def timed_look() -> object:
            self.wait()
            return diverged()

        lane.engine.step, lane.diverged = timed_step, timed_look  # type: ignore[method-assign, assignment]

    def wait(self) -> None:
        self.now += self.behind
        self.behind = 0.0


def begin(batch: Batch, card: ModelCard, count: int) -> Lane:
    request = SampleRequest(model="tiny", version=1, count=count, seed=1, sampler=plan(LONG, card)[0])
    return batch.admit(request, 0, count).lane


def settle(batch: Batch, device: Device) -> None:
    """Runs the batch for long, after which all paces are what the device takes."""
    for _ in range(160):
        for _ in range(5):
            batch.step()
        batch.diverged()
        device.now += 100.0  # with other things
    for alone, rate in batch.paces().values():
        assert alone == pytest.approx(0.1, rel=0.05)
        assert rate == pytest.approx(5 / 0.18, rel=0.05)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("count", "measured"), [(1, 10.0), (5, 10.0), (2, 0.1), (2, 1.0)])
def test_the_pace_follows_what_steps_take(
    batch: Batch, tiny_card: ModelCard, count: int, measured: float, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = begin(batch, tiny_card, count)
    device = Device(batch, late, monkeypatch)
    device.attach(lane)
    lane.step_seconds, lane.image_steps_per_second = measured * 0.1, 5 / (measured * 0.18)
    settle(batch, device)


@pytest.mark.parametrize("late", [False, True])
def test_the_paces_of_lanes_that_take_turns_do_not_mix(
    batch: Batch, tiny_card: ModelCard, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = begin(batch, tiny_card, 2)
    (key,) = batch._lanes
    second = batch._lanes["second", *key[1:]] = Lane(tiny_card, first.engine.model, 5)
    _, table = plan(LONG, tiny_card)
    second.engine.admit([Chain(table, seed=0, index=index) for index in range(2)])
    device = Device(batch, late, monkeypatch)
    for lane, measured in ((first, 10.0), (second, 1.0)):
        device.attach(lane)
        lane.step_seconds, lane.image_steps_per_second = measured * 0.1, 5 / (measured * 0.18)
    settle(batch, device)


def test_a_time_in_which_the_worker_was_frozen_changes_the_pace_little(
    batch: Batch, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = begin(batch, tiny_card, 1)
    device = Device(batch, False, monkeypatch)
    device.attach(lane)
    lane.step_seconds, lane.image_steps_per_second = 0.1, 5 / 0.18
    device.behind = 3600.0
    batch.step()
    batch.diverged()
    assert 0.1 < lane.step_seconds < 0.102


def test_a_lane_that_was_not_run_keeps_its_pace(
    batch: Batch, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = begin(batch, tiny_card, 1)
    device = Device(batch, False, monkeypatch)
    device.attach(lane)
    (key,) = batch._lanes
    idle = batch._lanes["idle", *key[1:]] = Lane(tiny_card, lane.engine.model, 5)
    for there in (lane, idle):
        there.step_seconds, there.image_steps_per_second = 0.01, 50.0
    batch.step()
    batch.diverged()
    assert lane.step_seconds > 0.01
    assert idle.step_seconds == 0.01
