"""The benchmark of small grids, of made up systems: ours takes a tenth of a second more for each."""

import asyncio
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from benchmarks import grids


class Quick:
    name = "scoreserve"
    asked: list[tuple[str, int]]

    def __init__(self, asked: list[tuple[str, int]]) -> None:
        self.asked = asked

    async def ask(self, _: Any, arrival: Any) -> np.ndarray:
        self.asked.append((self.name, arrival.seed))
        return np.zeros((arrival.count, 8, 8, 1), np.uint8)


class Slow(Quick):
    name = "theirs"

    async def ask(self, http: Any, arrival: Any) -> np.ndarray:
        await asyncio.sleep(0.1)
        return await super().ask(http, arrival)


@pytest.mark.parametrize("ours_first", [True, False])
def test_both_are_asked_in_turn_for_the_same(monkeypatch: pytest.MonkeyPatch, ours_first: bool) -> None:
    monkeypatch.setattr(grids, "SYSTEMS", (Quick, Slow) if ours_first else (Slow, Quick))
    asked: list[tuple[str, int]] = []
    started = [nullcontext(system(asked)) for system in grids.SYSTEMS] * 2  # type: ignore[call-arg]
    given = iter(started)
    found = grids.measure(lambda _: next(given), rounds=2, alone=2, bursts=1, count=3)  # type: ignore[arg-type, return-value]
    names = [name for name, _ in asked]
    first, second = (system.name for system in grids.SYSTEMS)
    assert names == ([first] * (3 + 2 * 3) + [second] * (3 + 2 * 3)) * 2
    seeds = [[seed for name, seed in asked if name == which] for which in (first, second)]
    assert seeds[0] == seeds[1]
    assert (found["alone_ratio"]["median"] < 1) == (found["burst_ms_more_a_grid"]["median"] < 0) == ours_first
    assert abs(found["burst_ms_more_a_grid"]["median"]) > 0.9 * 100 / 3
