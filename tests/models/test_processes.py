"""What a network is told of a noise level, against each process's own formulas."""

import math

import numpy as np
import pytest

from models.processes import (
    Betas,
    DiscreteVariancePreserving,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
)

ALPHAS = tuple(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)).tolist())


@pytest.mark.parametrize("t", [1e-4, 0.03, 0.5, 1.0])
@pytest.mark.parametrize("kind", [VariancePreserving, SubVariancePreserving])
def test_the_time_of_a_continuous_process_is_where_its_level_is(kind: type[VariancePreserving], t: float) -> None:
    """t -> s by the integral of beta, and back."""
    integral = 0.1 * t + 19.9 * t**2 / 2
    a = math.exp(-integral / 2)
    b = math.sqrt(-math.expm1(-integral)) if kind is VariancePreserving else -math.expm1(-integral)
    seen = kind().seen(b / a)
    assert seen.label == pytest.approx(999 * t, rel=1e-9)
    assert seen.a == pytest.approx(a, rel=1e-12)
    if t == 1:
        assert kind().range[1] == pytest.approx(b / a)


def test_a_discrete_process_is_told_whole_times_at_its_levels_and_those_between_by_the_log() -> None:
    process = DiscreteVariancePreserving(alphas_cumprod=ALPHAS, times=2)
    for t in (0, 7, 999):
        level = math.sqrt((1 - ALPHAS[t]) / ALPHAS[t])
        assert process.seen(level).label == pytest.approx(2 * t, abs=1e-9)
        assert process.seen(level).a == pytest.approx(math.sqrt(ALPHAS[t]))
    between = math.sqrt(process.levels[7] * process.levels[8])
    assert process.seen(between).label == pytest.approx(15)


@pytest.mark.parametrize(
    ("betas", "first", "last"),
    [
        (Betas(schedule="linear", steps=1000), 1 - 1e-4, 4.0358e-5),
        (Betas(schedule="linear", steps=1000, single=True), float(np.float32(1 - 1e-4)), 4.0358e-5),
        (Betas(schedule="scaled_linear", steps=1000, start=0.00085, end=0.012), 1 - 0.00085, 4.6602e-3),
        (Betas(schedule="cosine", steps=1000), 1 - 4.1276e-5, 2.4286e-9),
    ],
    ids=["linear", "in single precision", "scaled linear", "cosine"],
)
def test_the_schedules_of_betas_have_their_published_ends(betas: Betas, first: float, last: float) -> None:
    process = DiscreteVariancePreserving(betas=betas)
    assert process.levels[0] == pytest.approx(math.sqrt(1 / first - 1), rel=1e-4)
    assert process.levels[-1] == pytest.approx(math.sqrt(1 / last - 1), rel=1e-4)
    assert len(process.levels) == 1000


def test_a_process_that_explodes_is_told_what_is_asked_for() -> None:
    assert VarianceExploding().seen(3).label == math.log(3)
    assert VarianceExploding(per=2, times=250).seen(3).label == 250 * math.log(1.5)
    assert VarianceExploding(label="sigma", per=2).seen(3) == (1, 1.5)
    assert VarianceExploding(label="none").seen(3) == (1, 0)
