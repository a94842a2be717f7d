from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from models.card import ImageShape, ModelCard, NetworkSpec
from models.evaluation.budgets import within
from models.plan import offered, plan
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.heun import Heun
from models.samplers.langevin import Langevin
from models.samplers.sampler import SamplerRefused
from models.samplers.settings import SamplerSettings

KIND: TypeAdapter[SamplerSettings] = TypeAdapter(SamplerSettings)
LEVELS = (1.0, 0.5, 0.25, 0.1, 0.05)


def card(size: int = 28, **changes: Any) -> ModelCard:
    values: dict[str, Any] = {
        "name": "m",
        "version": 1,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "image": ImageShape(channels=1, height=size, width=size),
        "sigma_min": 0.01,
        "sigma_max": 10.0,
        "network": NetworkSpec(kind="unet", data_mean=0.1, data_std=0.3),
        "sampler": AnnealedLangevin(levels=40, steps_per_level=5, sigma_max=5.0, sigma_min=0.03),
        "weights_sha256": "0" * 64,
    }
    return ModelCard.model_validate(values | changes)


OF_SCORES = [sampler.known_as() for sampler in offered(card(), known=True)]


def spent(name: str, evaluations: int, of: ModelCard) -> int:
    sampler = KIND.validate_python({"name": name})
    return len(plan(within(sampler, evaluations, of, sampler.needs_known), of, sampler.needs_known)[1])


@pytest.mark.parametrize("name", OF_SCORES)
@given(evaluations=st.integers(10, 1000), size=st.sampled_from([2, 8, 28, 64]))
def test_a_budget_is_nearly_spent_and_never_overspent(name: str, evaluations: int, size: int) -> None:
    found = spent(name, evaluations, card(size))
    assert 0.8 * evaluations < found <= evaluations


def test_the_counts_of_each_sampler() -> None:
    assert [spent(name, 35, card()) for name in OF_SCORES] == [34, *[35] * (len(OF_SCORES) - 1)]
    assert within(Heun(name="heun"), 36, card()) == Heun(name="heun", levels=18)
    assert within(Langevin(name="langevin", denoise=False), 20, card()).model_dump()["steps"] == 20


def test_annealed_langevin_has_the_levels_of_technique_2_once_there_are_three_steps_for_each() -> None:
    """65 levels are as many as the range from 5 to 0.03 needs for 784 pixels."""
    chosen = [within(AnnealedLangevin(), n, card()) for n in (100, 250, 1000)]
    assert all(isinstance(s, AnnealedLangevin) for s in chosen)
    assert [(s.model_dump()["levels"], s.model_dump()["steps_per_level"]) for s in chosen] == [
        (33, 3),
        (83, 3),
        (66, 15),
    ]


def test_the_noise_range_is_that_of_the_models_own_annealed_langevin() -> None:
    for name in ("annealed_langevin", "consistent_annealed"):
        complete, _ = plan(within(KIND.validate_python({"name": name}), 50, card()), card())
        assert (complete.model_dump()["sigma_max"], complete.model_dump()["sigma_min"]) == (5.0, 0.03)
    given_one = KIND.validate_python({"name": "consistent_annealed", "sigma_max": 8.0})
    complete, _ = plan(within(given_one, 50, card()), card())
    assert (complete.model_dump()["sigma_max"], complete.model_dump()["sigma_min"]) == (8.0, 0.03)


def test_a_model_of_few_levels_takes_more_steps_at_each() -> None:
    few = card(sigmas=LEVELS, sigma_max=1.0, sigma_min=0.05, sampler=AnnealedLangevin(denoise=False))
    assert spent("annealed_langevin", 100, few) == 100
    assert spent("consistent_annealed", 100, few) == 5
    assert spent("langevin", 100, few) == 100
    for name, n in (("annealed_langevin", 4), ("consistent_annealed", 4), ("heun", 100)):
        with pytest.raises(SamplerRefused):
            spent(name, n, few)


ONE_IS_TOO_FEW = ["heun", "euler", "ancestral", "dpmpp_2m_sde", "adams_bashforth", "langevin", "annealed_langevin"]


@pytest.mark.parametrize("name", ONE_IS_TOO_FEW)
def test_a_single_evaluation_is_too_few(name: str) -> None:
    with pytest.raises(SamplerRefused, match="at least"):
        spent(name, 1, card())


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "heun", "levels": 5},
        {"name": "euler", "sigmas": [2.0, 1.0]},
        {"name": "langevin", "steps": 5},
        {"name": "annealed_langevin", "levels": 5},
        {"name": "annealed_langevin", "steps_per_level": 5},
    ],
)
def test_what_decides_the_evaluations_itself_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(SamplerRefused, match="decides how many evaluations are spent, not 35"):
        within(KIND.validate_python(settings), 35, card())


def test_other_settings_are_kept() -> None:
    assert within(Heun(name="heun", rho=3.0), 9, card()) == Heun(name="heun", rho=3.0, levels=5)
