from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.evaluation.samples import Samples, key
from models.samplers.ancestral import Ancestral
from models.samplers.euler import Euler
from models.sampling.sample import sample
from models.schedules import karras
from models.score import ScoreModel

TABLE = Euler.table(karras(10, 0.01, 3, 7))


def test_what_was_drawn_is_kept_and_only_the_rest_is_drawn(tiny_model: ScoreModel, tmp_path: Path) -> None:
    samples, steps = Samples(tmp_path / "x"), []
    assert samples.count() == 0
    samples.draw(tiny_model, TABLE, seed=3, count=5, slots=4, on_step=steps.append)
    assert (samples.count(), steps[-1]) == (5, 15)
    first = samples.read(5)
    steps.clear()
    samples.draw(tiny_model, TABLE, seed=3, count=11, slots=4, on_step=steps.append)
    assert (samples.count(), steps[-1]) == (11, 18)
    assert steps == sorted(set(steps))
    every = samples.read(11)
    assert np.array_equal(every.pixels, sample(tiny_model, TABLE, 11, seed=3))
    assert np.array_equal(first.pixels, every.pixels[:5])
    assert every.seconds > first.seconds > 0, "seconds add up"
    assert len(every.devices) == 1
    samples.draw(tiny_model, TABLE, seed=3, count=7, slots=4, on_step=lambda _: pytest.fail("nothing was missing"))


def test_fewer_than_are_kept_took_their_part_of_the_seconds(tiny_model: ScoreModel, tmp_path: Path) -> None:
    samples = Samples(tmp_path)
    samples.draw(tiny_model, TABLE, seed=0, count=8, slots=4)
    few, every = samples.read(3), samples.read(8)
    assert np.array_equal(few.pixels, every.pixels[:3])
    assert few.seconds == pytest.approx(every.seconds * 3 / 8)


def test_an_interrupted_draw_goes_on_from_its_last_chunk(tiny_model: ScoreModel, tmp_path: Path) -> None:
    samples = Samples(tmp_path)

    def interrupt(done: int) -> None:
        if done == 16:  # in the second chunk of 4 images and 3 rows
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        samples.draw(tiny_model, TABLE, seed=0, count=8, slots=4, on_step=interrupt)
    assert samples.count() == 4
    with pytest.raises(ValueError, match="holds 4 samples, not 8"):
        samples.read(8)
    samples.draw(tiny_model, TABLE, seed=0, count=8, slots=4)
    assert np.array_equal(samples.read(8).pixels, sample(tiny_model, TABLE, 8, seed=0))
    assert all(not path.name.startswith(".") for path in tmp_path.iterdir())


def test_a_chunk_that_is_gone_or_damaged(tiny_model: ScoreModel, tmp_path: Path) -> None:
    samples = Samples(tmp_path)
    samples.draw(tiny_model, TABLE, seed=0, count=12, slots=4)
    before = samples.read(12).pixels
    middle = sorted(tmp_path.iterdir())[1]
    middle.write_bytes(middle.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"0000004-0000008\.npz cannot be read .*delete it"):
        samples.read(12)
    middle.unlink()
    assert samples.count() == 4
    samples.draw(tiny_model, TABLE, seed=0, count=12, slots=4)
    assert np.array_equal(samples.read(12).pixels, before)


def test_the_key_names_all_that_images_depend_on() -> None:
    names = {
        key("a", TABLE, 0),
        key("b", TABLE, 0),
        key("a", TABLE, 1),
        key("a", replace(TABLE, initial_mean=0.1), 0),
        key("a", replace(TABLE, initial_std=None), 0),
        key("a", Ancestral.table(karras(10, 0.01, 3, 7)), 0),
    }
    assert len(names) == 6
    assert key("a", TABLE, 0) == key("a", Euler.table(karras(10, 0.01, 3, 7)), 0)
