"""The filmstrip: chains in pieces are chains in one, and what is told of their moments."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.samplers.annealed_langevin import AnnealedLangevin
from models.sampling.chain import quantize
from models.sampling.sample import sample
from models.score import ScoreModel
from models.study.digits import filmstrip_report
from models.study.digits.filmstrip import SEED, Found, between, study


def test_chains_that_are_looked_at_on_their_way_end_where_others_do(tiny_model: ScoreModel) -> None:
    table = AnnealedLangevin.table([1.0, 0.3], 3, 0.05, True, 1.0)
    half = between(tiny_model, table, 5, 0, 4, None)
    told: list[int] = []
    whole = quantize(between(tiny_model, table, 5, 4, 7, half, told.append)).numpy()
    assert np.array_equal(whole, sample(tiny_model, table, count=5, seed=SEED))
    assert not np.array_equal(quantize(half).numpy(), whole)
    assert told[-1] == 5 * 3


def run(models_dir: Path, data: Path, directory: Path, classifiers: Path, told: list[tuple[int, int]]) -> Found:
    tell = lambda _, done, of: told.append((done, of))  # noqa: E731
    return study("tiny", models_dir, data, 12, 3, directory, classifiers, "cpu", tell)


def test_moments_are_even_and_the_last_is_the_end_and_nothing_is_drawn_twice(
    tmp_path: Path, models_dir: Path, labelled: Callable[[int], Path], classifiers: Path
) -> None:
    told: list[tuple[int, int]] = []
    found = run(models_dir, labelled(8), tmp_path, classifiers, told)
    first, second, last = found.moments
    rows = last.evaluations
    assert (first.evaluations, second.evaluations) == (-(-rows // 3), -(-2 * rows // 3))
    assert told[-1] == (12 * rows, 12 * rows)
    assert first.sigma > second.sigma > last.sigma
    assert (last.decided, last.off) == (1.0, 0.0)
    assert np.array_equal(last.noisy, last.denoised)
    assert first.off > 0
    assert first.noisy.shape == (12, 8, 8, 1)

    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    assert len(kept) == 3
    next(iter(sorted(kept))).unlink()
    again = run(models_dir, labelled(8), tmp_path, classifiers, told)
    assert filmstrip_report.figures(again) == filmstrip_report.figures(found)
    assert len(list(tmp_path.rglob("*.npz"))) == 3

    (section,) = filmstrip_report.sections(found)
    (table,) = section.tables
    assert [row[0] for row in table.rows] == [str(m.evaluations) for m in found.moments]
    assert table.rows[-1][4:] == ["100%", "0.000"]


def test_more_moments_than_evaluations_are_refused(
    tmp_path: Path, models_dir: Path, labelled: Callable[[int], Path], classifiers: Path
) -> None:
    with pytest.raises(ValueError, match="5000 moments of"):
        study("tiny", models_dir, labelled(8), 12, 5000, tmp_path, classifiers, "cpu", lambda *_: None)
