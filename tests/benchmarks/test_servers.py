"""Our service as the benchmark of serving asks it."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from benchmarks.arrivals import SAMPLERS, Arrival
from benchmarks.servers import Scoreserve
from benchmarks.serving import client
from models.card import ModelCard
from models.plan import plan
from models.samplers.heun import Heun
from models.sampling.sample import sample
from models.score import ScoreModel
from models.store import ModelStore


@pytest.mark.usefixtures("tiny_card")
def test_it_gives_grids_and_counts_what_they_took(
    monkeypatch: pytest.MonkeyPatch, models_dir: Path, tiny_card: ModelCard, tiny_model: ScoreModel
) -> None:
    async def replay(server: Scoreserve) -> tuple[np.ndarray, int, float]:
        async with client() as http:
            images = await server.ask(http, Arrival(0.0, 3, 35, 7, None))
            await server.ask_in_vain(http, Arrival(0.0, 16, 1000, 8, 0.0), 0.3)
            computed = await server.computed(http)
            return images, computed, await server.capacity(http)

    monkeypatch.setattr("benchmarks.servers.CAPACITY_SECONDS", 0.6)
    with Scoreserve(ModelStore(models_dir), "tiny", slots=4) as server:
        images, computed, capacity = asyncio.run(replay(server))
    _, table = plan(Heun(**SAMPLERS[35]), tiny_card)
    assert np.array_equal(images, sample(tiny_model, table, count=3, seed=7))
    assert 3 * 35 < computed < 16 * 1000, "what was cancelled did begin, and did not go on to its end"
    assert capacity > 0
