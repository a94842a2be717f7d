"""The study of objectives, small: what it trains, and what it tells of scores that are known."""

from pathlib import Path

import pytest
import torch

from models.study import mixture, objectives_report
from models.study.objectives import NAMES, RUNS, SHOWN, SIGMAS, Agreement, Learnt, Run, exact_on_square, study
from models.study.plane import noised
from models.training.objectives import FUNCTIONS


def known(run: Run, factor: float) -> Learnt:
    """One that has learnt a multiple of the exact score."""
    at_data = {sigma: factor * mixture.score(noised(sigma), sigma) for sigma in SIGMAS}
    return Learnt(run, at_data, factor * exact_on_square())


def test_all_that_score_matching_is_known_by_is_trained_twice() -> None:
    assert set(NAMES) == set(FUNCTIONS) - {"edm", "consistency"}
    assert {run.objective for run in RUNS if run.seed == 0} == {run.objective for run in RUNS if run.seed == 1}
    assert len(set(RUNS)) == 2 * len(NAMES)


def test_an_error_is_from_the_exact_score_in_parts_of_a_typical_one() -> None:
    right, doubled = known(Run("exact"), 1.0), known(Run("sliced"), 2.0)
    typical = mixture.score(noised(SHOWN), SHOWN).norm(dim=1).mean() * mixture.spread(SHOWN)
    assert right.error(SHOWN) == 0
    assert doubled.error(SHOWN) == pytest.approx(float(typical), rel=1e-5)
    assert doubled.apart(right, SHOWN) == pytest.approx(doubled.error(SHOWN), rel=1e-5)


def test_agreement_is_told_of_the_truth_of_seeds_and_of_other_objectives() -> None:
    factors = {"exact": (1.0, 1.1), "sliced": (1.2, 1.5), "denoising": (0.9, 1.0)}
    found = [known(Run(name, seed), factor) for name in NAMES for seed, factor in enumerate(factors[name])]
    one = known(Run("exact"), 2.0).error(SHOWN)  # the distance that a factor of one more makes
    agreement = Agreement.of("exact", found, SHOWN)
    assert agreement.error == pytest.approx(0.05 * one, rel=1e-4)
    assert agreement.seeds == pytest.approx(0.1 * one, rel=1e-4)
    pairs = [abs(a - b) for a in (1.0, 1.1) for b in (1.2, 1.5, 0.9, 1.0)]
    assert agreement.others == pytest.approx(sum(pairs) / 8 * one, rel=1e-4)
    (section,) = objectives_report.sections(found)
    (table,) = section.tables
    assert [row[:2] for row in table.rows[3:6]] == [["1", name] for name in NAMES]
    assert table.rows[3][2:] == [f"{agreement.error:.3f}", f"{agreement.seeds:.3f}", f"{agreement.others:.3f}"]


def test_every_objective_is_trained_and_none_twice(tmp_path: Path) -> None:
    told: dict[str, list[tuple[int, int]]] = {}
    found = study(tmp_path, 0.03, "cpu", lambda what, done, of: told.setdefault(what, []).append((done, of)))
    assert [one.run for one in found] == list(RUNS)
    assert len({one.error(SHOWN) for one in found}) == len(RUNS)  # none is another
    assert [done for done, _ in told["training by the sliced objective, seed 0"]] == [1, 2]
    again = study(tmp_path, 0.03, "cpu", lambda what, done, of: told.setdefault(what, []).append((done, of)))
    assert [done for done, _ in told["training by the sliced objective, seed 0"]] == [1, 2, 2]  # kept
    assert torch.equal(again[2].on_square, found[2].on_square)
    numbers = objectives_report.figures(found)
    assert numbers["networks"][1]["error"] == pytest.approx(found[0].error(SHOWN))
    assert len(numbers["objectives"]) == len(NAMES) * len(SIGMAS)
