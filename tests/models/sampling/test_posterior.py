"""Completions against the true posterior, by repaint as it is by default, and by one pass of replacement beside it."""

from dataclasses import replace

import pytest

from models.samplers.euler import Euler
from models.samplers.repaint import Repaint
from models.samplers.table import Table
from models.schedules import karras
from tests.models.sampling.posterior import Case, cases, completed, distinct

DEFAULT = Repaint.table(karras(10.0, 0.01, Repaint.usual_levels, 7.0))
ONE_PASS = Euler.table(karras(10.0, 0.01, 35, 7.0))


def starting(table: Table, case: Case) -> Table:
    """A table that starts at the mean of the mixture, as a model's card has it."""
    mean = (case.weights[:, None] * case.means.flatten(1)).sum(0).mean()
    return replace(table, initial_mean=float(mean))


def test_the_default_takes_at_most_a_hundred_evaluations() -> None:
    assert len(DEFAULT) == 88


@pytest.mark.parametrize(
    ("dimensions", "projection", "most", "count"),
    [(2, "mask", 0.03, 500), (2, "means", 0.03, 500), (16, "mask", 0.03, 500), (16, "means", 0.05, 1000)],
)
def test_completions_have_the_weights_of_the_posterior(
    dimensions: int, projection: str, most: float, count: int
) -> None:
    """Within 5 % in total variation, beyond what as many exact samples have, on average over mixtures.

    The means of four blocks say little of 16 numbers: modes part there before what is known of them tells much.
    """
    found = [completed(case, starting(DEFAULT, case), count) for case in cases(dimensions, projection)]
    assert sum(one.distance - one.floor for one in found) / len(found) < most
    for one in found:
        assert one.mean < 0.4
        assert 0.6 < one.spread < 1.1, "repeating wide steps narrows the modes"


@pytest.mark.parametrize("projection", ["mask", "means"])
def test_in_784_dimensions_the_modes_that_what_is_known_excludes_are_not_made(projection: str) -> None:
    """Their weights are nearly right; one pass of replacement lands between modes, or in others."""
    (case, *_) = cases(784, projection)
    judged = completed(case, starting(DEFAULT, case), 40)
    assert judged.distance - judged.floor < 0.1
    assert judged.mean < 0.5


def test_one_pass_of_replacement_makes_modes_that_what_is_known_excludes() -> None:
    found = {
        name: max(completed(case, starting(table, case), 200).distance for case in distinct())
        for name, table in (("default", DEFAULT), ("one pass", ONE_PASS))
    }
    assert found["default"] < 0.1
    assert found["one pass"] > 0.2
