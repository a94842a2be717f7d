"""Batches that stay as wide as they began."""

import numpy as np

from benchmarks.padded import run_padded
from models.card import ModelCard
from models.plan import plan
from models.samplers.heun import Heun
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.sample import sample, to_pixels
from models.score import ScoreModel


def test_a_padded_batch_costs_its_width_times_its_longest_and_gives_the_same_images(
    tiny_card: ModelCard, tiny_model: ScoreModel
) -> None:
    tables = [plan(Heun(name="heun", levels=levels), tiny_card)[1] for levels in (2, 6, 3)]
    chains = [Chain(table, seed=7, index=index) for index, table in enumerate(tables)]
    longest = max(chain.remaining for chain in chains)
    engine = Engine(tiny_model, slots=4)
    run_padded(engine, chains)
    assert engine.image_steps == 3 * longest
    assert engine.free == 4
    for index, (chain, table) in enumerate(zip(chains, tables, strict=True)):
        assert np.array_equal(to_pixels(chain.x), sample(tiny_model, table, count=1, seed=7, first=index)[0])
