"""The benchmark of serving, of made up systems: ours answers at once, the others in turns of a tenth of a second."""

import asyncio
import json
from pathlib import Path
from typing import ClassVar

import httpx
import numpy as np
import pytest

from benchmarks import serving
from benchmarks.arrivals import Arrival
from benchmarks.servers import Server

TURN = 0.1


class Quick(Server):
    """Computes what it is asked for, and nothing that was cancelled."""

    name = "scoreserve"
    pixels: ClassVar[int] = 1

    def __enter__(self) -> "Quick":
        self.done = 0
        return self

    async def ask(self, http: httpx.AsyncClient, arrival: Arrival) -> np.ndarray:
        self.done += arrival.image_steps
        return np.full((arrival.count, 8, 8, 1), self.pixels, np.uint8)

    async def ask_in_vain(self, http: httpx.AsyncClient, arrival: Arrival, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def computed(self, http: httpx.AsyncClient) -> int:
        return self.done

    async def capacity(self, http: httpx.AsyncClient) -> float:
        return 20_000.0


class Slow(Quick):
    """Computes what was cancelled too."""

    name = "LitServe"

    async def ask(self, http: httpx.AsyncClient, arrival: Arrival) -> np.ndarray:
        await asyncio.sleep(TURN)
        return await super().ask(http, arrival)

    async def ask_in_vain(self, http: httpx.AsyncClient, arrival: Arrival, seconds: float) -> None:
        self.done += arrival.image_steps


class Compacting(Slow):
    name = "LitServe, compacting"


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict:
    monkeypatch.setattr(serving, "SYSTEMS", (Quick, Slow, Compacting))
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)  # of the tests themselves
    path = tmp_path / "serving.json"
    monkeypatch.setattr("sys.argv", ["serving", "--loads", "0.3,0.6", "--minutes", "0.05", "--json", str(path)])
    serving.main()
    return json.loads(path.read_text())


def test_it_tells_latency_throughput_and_waste(capsys: pytest.CaptureFixture, figures: dict) -> None:
    told = [line.partition(": ")[0] for line in capsys.readouterr().err.splitlines()]
    names = [system.name for system in (Quick, Slow, Compacting)]
    assert told[:3] == [f"capacity of {name}" for name in names]
    assert told[3:] == [f"{load} load, {name}" for load in ("30%", "60%") for name in names]
    assert [run["load"] for run in figures["runs"]] == [0.3, 0.6]
    for run in figures["runs"]:
        ours, theirs = run["scoreserve"], run["LitServe"]
        assert ours["p50_seconds"] <= ours["p99_seconds"] < TURN <= theirs["p50_seconds"] <= theirs["p99_seconds"]
        assert list(run["ratios"]) == ["LitServe", "LitServe, compacting"]
        for other, ratios in run["ratios"].items():
            assert ratios["p50_seconds"] == ours["p50_seconds"] / run[other]["p50_seconds"]
        assert len(ours["latencies_seconds"]) == run["jobs"] - run["cancelled"]
        assert ours["image_steps_wasted"] == 0
        assert run["same_pixels"]
    assert figures["runs"][1]["jobs"] > figures["runs"][0]["jobs"]


def test_all_have_their_turn_as_often_as_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(serving, "SYSTEMS", (Quick, Slow, Compacting))
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)  # of the tests themselves
    path = tmp_path / "serving.json"
    asked = ["--loads", "0.5", "--minutes", "0.03", "--rounds", "3", "--peer", Slow.name, "--json", str(path)]
    monkeypatch.setattr("sys.argv", ["serving", *asked])
    serving.main()
    captured, figures = capsys.readouterr(), json.loads(path.read_text())
    told = [line.partition(": ")[0].partition(", ")[2] for line in captured.err.splitlines()[2:]]
    assert told == ["scoreserve", "LitServe", "LitServe", "scoreserve", "scoreserve", "LitServe"]
    found = [run["ratios"]["LitServe"]["p50_seconds"] for run in figures["runs"]]
    assert len({str(run["scoreserve"]["latencies_seconds"]) for run in figures["runs"]}) == 3
    (ratios,) = figures["ratios"]
    assert (ratios["load"], ratios["rounds"]) == (0.5, 3)
    assert ratios["LitServe"]["p50_seconds"] == {
        "median": sorted(found)[1],
        "lowest": min(found),
        "highest": max(found),
    }
    assert "50% load: LitServe" in captured.out.splitlines()[-1]


def test_it_says_so_if_the_two_do_not_give_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = serving.same_pixels([serving.Outcome(1.0, "a"), serving.Outcome(2.0, "b")], [serving.Outcome(3.0, "a")] * 2)
    assert not found


def test_the_bare_loop_of_steps_has_a_limit_of_its_own() -> None:
    figures = {name: 1.0 for _, name, _ in serving.REPORTED}
    names = (serving.ContinuousLitServe.name, "mosec, compacting")
    run = {"load": 0.9, "scoreserve": figures, **{name: figures for name in names}}
    rows = serving.rows_of(run | {"ratios": {name: figures for name in names}})
    assert rows[0][3] == "1.00 (<= 1.05 met)"
    assert rows[0][5] == "1.00 (<= 0.4 MISSED)"


def test_what_was_cancelled_and_computed_is_waste() -> None:
    trace = [Arrival(0.0, 4, 200, 1, None), Arrival(0.5, 1, 200, 2, 0.6), Arrival(1.0, 1, 35, 3, None)]
    outcomes = [serving.Outcome(2.0, "a"), serving.Outcome(float("nan"), ""), serving.Outcome(1.25, "b")]
    found = serving.figures_of(trace, outcomes, computed=1000)
    assert found["image_steps_delivered"] == 835
    assert found["image_steps_wasted"] == 165
    assert found["wasted_share"] == 0.165
    assert found["images_per_second"] == 2.5
    assert found["latencies_seconds"] == [2.0, 0.25]
    assert found["p50_seconds_of_the_shortest"] == 0.25
