"""Grids arrive as a Poisson process does, and the same ones for everybody."""

import numpy as np

from benchmarks.arrivals import CANCELLED, COUNTS, MEAN_IMAGE_STEPS, SAMPLERS, arrivals
from models.card import ModelCard
from models.plan import plan
from service.asking.schemas import SampleBody

STEP = 0.001


def test_they_ask_for_as_much_as_they_are_to() -> None:
    rate = 50 * MEAN_IMAGE_STEPS
    trace = arrivals(200, rate, STEP, seed=1)
    assert abs(sum(a.image_steps for a in trace) / 200 - rate) < 0.05 * rate
    assert {(a.count, a.evaluations) for a in trace} == {(c, e) for c in COUNTS for e in SAMPLERS}
    pauses = np.diff([0.0, *(a.at for a in trace)])
    assert pauses.min() >= 0
    assert abs(pauses.std() / pauses.mean() - 1) < 0.05  # an exponential distribution's
    assert trace[-1].at < 200


def test_some_are_cancelled_before_they_could_be_done() -> None:
    trace = arrivals(200, 50 * MEAN_IMAGE_STEPS, STEP, seed=2)
    cancelled = [a for a in trace if a.cancel_at is not None]
    assert abs(len(cancelled) / len(trace) - CANCELLED) < 0.01
    assert all(0 <= a.cancel_at - a.at < a.evaluations * STEP for a in cancelled)


def test_a_seed_is_a_trace() -> None:
    assert arrivals(2, 1e5, STEP, seed=3) == arrivals(2, 1e5, STEP, seed=3)
    assert arrivals(2, 1e5, STEP, seed=3) != arrivals(2, 1e5, STEP, seed=4)


def test_samplers_take_the_evaluations_that_they_stand_under(tiny_card: ModelCard) -> None:
    for evaluations, sampler in SAMPLERS.items():
        body = SampleBody.model_validate({"sampler": sampler})
        assert len(plan(body.sampler, tiny_card)[1]) == evaluations
