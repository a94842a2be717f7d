"""How a lane runs its model: as was measured, before or now, and in steps that do not last long."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from models.card import ModelCard
from models.plan import plan
from models.sampling.ahead import Row, ahead
from models.sampling.buckets import Call, plain
from models.sampling.chain import Chain
from models.sampling.choice import Choice, Remembered, key
from models.sampling.engine import Engine
from models.sampling.execution import Execution
from models.score import ScoreModel
from models.store import ModelStore
from worker.device.lane import Lane

FAST = Execution("channels_last")


@pytest.fixture
def model(models_dir: Path, tiny_card: ModelCard) -> ScoreModel:
    return ScoreModel.load(ModelStore(models_dir), tiny_card)


@pytest.fixture
def remembered(tmp_path: Path) -> Remembered:
    return Remembered(tmp_path / "executions.json")


def choosing(found: Choice, asked: list[bool]) -> Callable[..., Choice]:
    """In place of the measurement, which notes whether it was asked to be exact."""

    def choose(
        model: ScoreModel, table: object, slots: int, exact: bool, threads: int, fixed: Execution | None
    ) -> Choice:
        asked.append(exact)
        model.executed = found.execution.of(model.network)
        return found

    return choose


def test_what_was_measured_once_is_not_measured_again(
    model: ScoreModel, tiny_card: ModelCard, remembered: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("worker.device.lane.choose", choosing(Choice(FAST, (4,)), asked))
    for _ in range(2):
        model.executed = None
        lane = Lane(tiny_card, model, 5, exact=True, remembered=remembered)
        assert lane.choice == Choice(FAST, (4,))
        assert lane.engine.only == (4,)
        assert model.executed is not None
    assert asked == [True]
    for slots, exact in ((5, False), (6, True)):
        Lane(tiny_card, model, slots, exact, remembered)
    assert asked == [True, False, True]


def test_what_works_no_longer_is_measured_again(
    model: ScoreModel, tiny_card: ModelCard, remembered: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(execution: Execution, network: nn.Module) -> nn.Module:
        raise RuntimeError("no compiler")

    asked: list[bool] = []
    name = key(model, tiny_card.weights_sha256, 5, exact=False)
    remembered.put(name, Choice(Execution("compile")))
    monkeypatch.setattr(Execution, "of", of)
    monkeypatch.setattr("worker.device.lane.choose", lambda *_, **__: asked.append(True) or Choice(Execution()))
    lane = Lane(tiny_card, model, 5, exact=False, remembered=remembered)
    assert lane.choice == Choice(Execution())
    assert asked == [True]
    assert remembered.get(name) == Choice(Execution())


def test_its_memory_is_that_of_all_weights_that_it_holds(
    model: ScoreModel, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_network = sum(p.nbytes for p in model.network.parameters())
    for execution, parts in ((Execution(), 1.0), (FAST, 2.0), (Execution("eager", "bfloat16"), 1.5)):
        monkeypatch.setattr("worker.device.lane.choose", choosing(Choice(execution), []))
        assert Lane(tiny_card, model, 5).bytes == parts * of_network


@pytest.mark.parametrize(("seconds", "rows"), [(1e-9, 8), (0.0013, 3), (3.0, 1)])
def test_a_step_has_as_many_rows_as_do_not_last_long(
    model: ScoreModel, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch, seconds: float, rows: int
) -> None:
    monkeypatch.setattr("worker.device.lane.STEP_SECONDS", {"cpu": 0.005})
    lane = Lane(tiny_card, model, 5)
    lane.engine = Engine(model, 5, capture=plain)
    tried: list[int] = []
    monkeypatch.setattr(lane, "try_out", lambda width: tried.append(width) or seconds)
    lane.measure()
    assert lane.engine.rows == rows
    assert {1, 2, 4, 5} <= set(tried), "all that will be recorded is recorded before work begins"
    assert tried[0] == 5
    lane.seen_rows[5], lane.seen_seconds = 10**11, 1.0
    lane.follow(1e15)  # it takes twice as long by now
    assert lane.rows(5) == (8 if rows == 8 else 1)


def test_of_few_images_a_step_has_more_rows_than_of_many(
    model: ScoreModel, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.device.lane.STEP_SECONDS", {"cpu": 0.005})
    lane = Lane(tiny_card, model, 5)
    monkeypatch.setattr(lane, "try_out", lambda width: 0.0004 * (1 + width))
    lane.measure()
    assert [lane.rows(images) for images in (1, 2, 5, 10)] == [6, 4, 2, 1]
    steps: list[tuple[int, int]] = []

    def step() -> None:
        n = len(lane.engine.chains)
        steps.append((n, lane.engine.rows))
        lane.engine.image_steps += 2 * n  # all are guided
        lane.engine.evaluations += 1

    monkeypatch.setattr(lane.engine, "step", step)
    table = plan(None, tiny_card)[1]
    lane.engine.admit([Chain(table, 0, index) for index in range(2)])
    lane.step()
    lane.engine.admit([Chain(table, 0, index) for index in range(2, 5)])
    lane.step()
    lane.step()
    assert steps == [(2, 4), (5, 2), (5, 1)], "the last by what was seen of the step before"


def test_a_pace_is_taken_row_by_row_and_leaves_no_trace(model: ScoreModel, tiny_card: ModelCard) -> None:
    lane = Lane(tiny_card, model, 5)
    lane.engine = Engine(model, 5, capture=plain)
    lane.measure()
    assert (lane.engine.image_steps, lane.engine.evaluations, lane.engine.chains) == (0, 0, [])
    assert lane.step_seconds > 0
    assert lane.image_steps_per_second > 0


def test_all_noise_is_recorded_when_a_lane_is_measured(model: ScoreModel, tiny_card: ModelCard) -> None:
    lane = Lane(tiny_card, model, 5)
    recorded: list[int] = []

    def capture(call: Call) -> Call:
        recorded.append(len(call()))
        return call

    lane.engine = Engine(model, 5, capture=capture)
    lane.measure()
    before = list(recorded)
    lane.engine.record_noise()
    assert recorded == before
    assert recorded.count(5) == 3, "scores, and two streams of noise"


def test_the_pace_is_that_of_a_step_and_not_of_making_many_rows_or_emptying_slots(
    model: ScoreModel, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = Lane(tiny_card, model, 5)
    clock = 0.0

    def evict(chains: Iterable[Chain]) -> list[Chain]:
        nonlocal clock
        clock += 100
        return Engine.evict(lane.engine, chains)

    def rows(*asked: Any, **besides: Any) -> Iterator[Row]:
        nonlocal clock
        clock += 100
        return ahead(*asked, **besides)

    monkeypatch.setattr("worker.device.lane.time.perf_counter", lambda: clock)
    monkeypatch.setattr("models.sampling.engine.ahead", rows)
    monkeypatch.setattr(lane.engine, "evict", evict)
    assert lane.try_out(5) == 0
