"""The study of objectives, small: what it trains, and what it tells of scores that are known."""

from pathlib import Path

import pytest
import torch

from models.study import mixture, objectives_report
from models.study.objectives import EXACT, RUNS, SHOWN, SIGMAS, Learnt, Run, exact_on_square, study
from models.study.plane import noised
from models.training.objectives import FUNCTIONS


def known(run: Run, factor: float) -> Learnt:
    """One that has learnt a multiple of the exact score."""
    at_data = {sigma: factor * mixture.score(noised(sigma), sigma) for sigma in SIGMAS}
    return Learnt(run, at_data, factor * exact_on_square())


def test_all_that_score_matching_is_known_by_is_trained_and_one_of_them_twice() -> None:
    assert {run.objective for run in RUNS} == set(FUNCTIONS) - {"edm"}
    assert [run for run in RUNS if run.seed] == [Run("exact", seed=1)]


def test_errors_are_those_from_the_exact_score_and_from_each_other() -> None:
    right, doubled = known(EXACT, 1.0), known(Run("sliced"), 2.0)
    assert right.error(SHOWN) == 0
    typical = mixture.score(noised(SHOWN), SHOWN).norm(dim=1).mean() * mixture.spread(SHOWN)
    assert doubled.error(SHOWN) == pytest.approx(float(typical), rel=1e-5)
    assert doubled.apart(right, SHOWN) == pytest.approx(doubled.error(SHOWN), rel=1e-5)
    (section,) = objectives_report.sections([right, doubled])
    (table,) = section.tables
    assert len(table.columns) == 1 + 2 * len(SIGMAS)
    assert table.rows[0] == ["exact", "0.000", "0.000", "0.000", "", "", ""]
    assert table.rows[1][1:4] == table.rows[1][4:]


def test_every_objective_is_trained_and_none_twice(tmp_path: Path) -> None:
    told: dict[str, list[tuple[int, int]]] = {}
    found = study(tmp_path, 0.03, "cpu", lambda what, done, of: told.setdefault(what, []).append((done, of)))
    assert [one.run for one in found] == list(RUNS)
    assert len({one.error(SHOWN) for one in found}) == len(RUNS)  # none is another
    assert [done for done, _ in told["training by the sliced objective, seed 0"]] == [1, 2]
    again = study(tmp_path, 0.03, "cpu", lambda what, done, of: told.setdefault(what, []).append((done, of)))
    assert [done for done, _ in told["training by the sliced objective, seed 0"]] == [1, 2, 2]  # kept
    assert torch.equal(again[2].on_square, found[2].on_square)
    numbers = objectives_report.figures(found)["learnt"]
    assert numbers[1]["levels"][1]["error"] == pytest.approx(found[1].error(SHOWN))
    assert objectives_report.named(found[1].run) == "exact, another seed"
