"""RePaint: its rows, and what it is for."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.card import ModelCard
from models.plan import plan
from models.samplers.ancestral import Ancestral
from models.samplers.euler import Euler
from models.samplers.repaint import Repaint
from models.samplers.sampler import SamplerRefused
from models.samplers.settings import bare
from models.schedules import karras

SIGMAS = karras(10, 0.01, 6, 7)


def test_done_once_and_without_feedback_and_persistence_it_is_ancestral_sampling() -> None:
    assert Repaint.table(SIGMAS, 1, 0.0, 0.0).rows == pytest.approx(Ancestral.table(SIGMAS).rows)


def test_each_level_but_the_last_is_done_again_and_again() -> None:
    table = Repaint.table(SIGMAS, 4, 0.0, 0.0)
    assert table.column("sigma").tolist() == [sigma for sigma in SIGMAS[:-1] for _ in range(4)] + SIGMAS[-1:]
    known = [level for sigma, following in pairwise(SIGMAS) for level in [sigma] * 3 + [following]]
    assert table.column("known").tolist() == [*known, 0.0]


@given(resamples=st.integers(1, 5), persistence=st.floats(0, 0.99))
def test_the_noise_is_that_of_the_level_after_every_row(resamples: int, persistence: float) -> None:
    """Of a single point the score is (point - x) / sigma^2 and the noise of x is all that there is of it."""
    made = known_too = SIGMAS[0] ** 2
    for sigma, drift, _, noise, known, _, kept, _ in Repaint.table(SIGMAS, resamples, 0.0, persistence).rows:
        made = (1 - drift / sigma**2) ** 2 * made + noise**2
        known_too = kept**2 * known_too + known**2
        assert made == pytest.approx(known_too, rel=1e-9, abs=1e-12)


def test_feedback_is_as_asked_for_until_what_is_known_is_put_in_exactly() -> None:
    table = Repaint.table(SIGMAS, 3, 1.5)
    assert table.column("feedback").tolist() == [1.5] * (len(table) - 1) + [0.0]
    assert table.column("kept")[-1] == 0


def test_it_is_refused_where_nothing_is_known(tiny_card: ModelCard) -> None:
    with pytest.raises(SamplerRefused, match=r"name: repaint makes.*nothing is known; allowed: .*heun") as caught:
        plan(bare("repaint"), tiny_card)
    assert "repaint" not in caught.value.allowed
    complete, table = plan(bare("repaint"), tiny_card, known=True)
    assert isinstance(complete, Repaint)
    assert (complete.levels, complete.sigma_max) == (30, 10.0)
    assert complete.resamples is not None
    assert len(table) == 29 * complete.resamples + 1
    assert plan(complete, tiny_card, known=True)[1].rows.tobytes() == table.rows.tobytes()


def test_a_card_says_what_runs_where_something_is_known(tiny_card: ModelCard) -> None:
    assert plan(None, tiny_card)[0].name == "annealed_langevin"
    assert plan(None, tiny_card, known=True)[0].name == "repaint"
    own = tiny_card.model_copy(update={"inpainting": Repaint(name="repaint", levels=4, sigma_max=3.0)})
    assert plan(None, own, known=True)[0].model_dump(include={"levels", "sigma_max"}) == {"levels": 4, "sigma_max": 3.0}
    assert plan(Repaint(name="repaint", levels=5), own, known=True)[0].model_dump()["sigma_max"] == 3.0
    other = tiny_card.model_copy(update={"inpainting": Euler(name="euler", levels=7)})
    assert len(plan(None, other, known=True)[1]) == 7
    with pytest.raises(ValueError, match="repaint is for images of which something is known: it belongs into inpaint"):
        ModelCard.model_validate(tiny_card.model_dump() | {"sampler": {"name": "repaint"}})


def test_a_model_of_few_levels_is_inpainted_by_its_own_sampler(tiny_card: ModelCard) -> None:
    few = tiny_card.model_copy(update={"sigmas": (10.0, 1.0, 0.01)})
    few = few.model_copy(update={"sampler": bare("annealed_langevin")})
    assert plan(None, few, known=True)[0].name == "annealed_langevin"


def test_too_many_rows_are_refused(tiny_card: ModelCard) -> None:
    with pytest.raises(SamplerRefused, match="resamples: this takes 2,900,001 network evaluations"):
        plan(Repaint(name="repaint", resamples=100_000), tiny_card, known=True)


def test_evaluations_are_spent_on_the_levels_that_the_model_is_known_to_need(tiny_card: ModelCard) -> None:
    def spent(evaluations: int, card: ModelCard) -> tuple[int | None, int | None]:
        found = Repaint(name="repaint").within(evaluations, card)
        assert len(plan(found, card, known=True)[1]) <= evaluations
        return found.levels, found.resamples

    assert [spent(n, tiny_card) for n in (10, 35, 300)] == [(10, 1), (35, 1), (30, 10)]
    own = tiny_card.model_copy(update={"inpainting": Repaint(name="repaint", levels=10, resamples=10)})
    assert [spent(n, own) for n in (10, 35, 300)] == [(10, 1), (12, 3), (10, 33)]
    other = tiny_card.model_copy(update={"inpainting": Euler(name="euler", levels=10)})
    assert spent(300, other) == (30, 10)
