"""The study of reproducibility: its spreads by hand, and all of it once, small."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.evaluation.figures import Figures
from models.samplers.annealed_langevin import AnnealedLangevin
from models.sampling.sample import sample
from models.score import ScoreModel
from models.study import reproducible_report
from models.study.reproducible import VARIANTS, Found, Judged, Reproduction, Variant, draw
from models.training.data.formats import DataError

SMALL = Reproduction(seeds=2, epochs=1, checkpoints=2, samples=10, sampling_seeds=2, levels=2, steps_per_level=1)


def figures(distance: float, recognised: float = 0.5) -> Figures:
    return Figures(distance, 0.0, 0.0, recognised, 0.0, [1.0])


def found(distances: list[list[list[float]]]) -> Found:
    """With distances [training seeds, checkpoints, sampling seeds], alike for all variants, in no good order."""
    judged = [
        Judged(variant, seed, 10 * (i + 1), sampling, figures(distance, 0.1 * distance))
        for variant in VARIANTS
        for seed, of_seed in enumerate(distances)
        for i, of_step in enumerate(of_seed)
        for sampling, distance in enumerate(of_step)
    ]
    return Found(judged[::-1], figures(1.0), 1.0)


def test_the_spreads_of_a_variant_are_those_of_the_later_checkpoints() -> None:
    # Two seeds, three checkpoints, two sampling seeds; the first checkpoint, far off, must not count.
    early = [[100.0, 200.0], [300.0, 50.0]]
    spread = found([[early[0], [4.0, 6.0], [2.0, 4.0]], [early[1], [8.0, 10.0], [4.0, 6.0]]]).spread(VARIANTS[0])
    assert spread.distance == 4.0  # of 2, 4, 4 and 6
    assert spread.recognised == pytest.approx(0.4)
    assert spread.training == pytest.approx(math.sqrt((8 + 2) / 2))  # means 5 and 9, then 3 and 5
    assert spread.sampling == pytest.approx(math.sqrt(2))
    assert spread.checkpoints == 3.0  # from 5 to 3, and from 9 to 5


def test_one_seed_has_no_spread() -> None:
    spread = found([[[3.0]]]).spread(VARIANTS[0])
    assert spread.distance == 3.0
    assert math.isnan(spread.training)
    assert math.isnan(spread.sampling)
    assert math.isnan(spread.checkpoints)
    (section,) = reproducible_report.sections(found([[[3.0]]]))
    assert section.tables[0].rows[0][1:5] == ["3.00", "", "", ""]


def test_both_of_a_pair_are_what_the_sampler_gives_without_the_last_denoising_and_with_it(
    tiny_model: ScoreModel,
) -> None:
    sigmas = [1.0, 0.3]
    without, with_it = (AnnealedLangevin.table(sigmas, 2, 0.05, denoise, 1.0) for denoise in (False, True))
    raw, denoised = draw(tiny_model, without, count=5, seed=3, slots=3, on_step=lambda _: None)
    assert np.array_equal(raw, sample(tiny_model, without, count=5, seed=3))
    assert np.abs(denoised.astype(int) - sample(tiny_model, with_it, count=5, seed=3)).max() <= 1
    assert not np.array_equal(raw, denoised)


def test_every_variant_is_judged_at_every_checkpoint_and_nothing_is_done_twice(
    tmp_path: Path, labelled: Callable[[int], Path], classifiers: Path
) -> None:
    told: dict[str, list[tuple[int, int]]] = {}

    def tell(what: str, done: int, of: int) -> None:
        told.setdefault(what, []).append((done, of))

    first = SMALL.study(labelled(28), tmp_path, classifiers, "cpu", tell)
    assert first.steps == [2, 4]
    places = {(j.variant, j.training_seed, j.step, j.sampling_seed) for j in first.judged}
    assert len(places) == len(first.judged) == 4 * 2 * 2 * 2
    assert told["training 1 of 2"] == [(step, 4) for step in (1, 2, 3, 4)]
    image_steps = 2 * 2 * 2 * 10 * 2
    assert told["samples of training 2"][-1] == (image_steps, image_steps)
    distances = {v: first.values(v, "distance") for v in VARIANTS}
    assert distances[VARIANTS[0]].shape == (2, 2, 2)
    assert len({float(values.sum()) for values in distances.values()}) == 4  # no variant is another

    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    assert len(kept) == 16
    again = SMALL.study(labelled(28), tmp_path, classifiers, "cpu", tell)
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")} == kept

    numbers = reproducible_report.figures(first)
    assert [n["ema"] for n in numbers["variants"]] == [False, False, True, True]
    assert numbers["variants"][3]["distance"] == pytest.approx(distances[Variant(True, True)][:, -1].mean())


def test_the_trainings_are_those_of_the_original_code() -> None:
    settings = SMALL.settings(seed=5)
    assert (settings.optimizer, settings.decay, settings.learning_rate, settings.warmup_steps) == (
        "adam",
        "constant",
        1e-3,
        0,
    )
    assert settings.seed == 5


def test_more_checkpoints_than_steps_are_refused(
    tmp_path: Path, labelled: Callable[[int], Path], classifiers: Path
) -> None:
    many = Reproduction(1, 1, checkpoints=9, samples=10, sampling_seeds=1, levels=2, steps_per_level=1)
    with pytest.raises(ValueError, match="4 steps has no 9 checkpoints"):
        many.study(labelled(28), tmp_path, classifiers, "cpu", lambda *_: None)


def test_data_of_another_shape_are_refused(tmp_path: Path, labelled: Callable[[int], Path], classifiers: Path) -> None:
    with pytest.raises(DataError, match="1 x 8 x 8"):
        SMALL.study(labelled(8), tmp_path, classifiers, "cpu", lambda *_: None)
