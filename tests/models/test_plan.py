import math
import time
import tracemalloc

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from models import schedules
from models.card import ModelCard
from models.plan import offered, plan, why_not
from models.samplers import NAMES
from models.samplers.adams_bashforth import AdamsBashforth
from models.samplers.ancestral import Ancestral
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.consistent_annealed import ConsistentAnnealed
from models.samplers.dpmpp_2m_sde import Dpmpp2mSde
from models.samplers.euler import Euler
from models.samplers.follow_scores import FollowScores
from models.samplers.heun import Heun
from models.samplers.langevin import Langevin
from models.samplers.multistep_consistency import MultistepConsistency
from models.samplers.sampler import MAX_ROWS, SamplerRefused
from models.samplers.settings import SamplerSettings, bare

ADAPTER: TypeAdapter[SamplerSettings] = TypeAdapter(SamplerSettings)
REQUESTS: list[SamplerSettings | None] = [
    None,
    AnnealedLangevin(levels=7, sigma_max=3.0),
    AnnealedLangevin(step_size=1.23456789e-4, denoise=False),
    Langevin(name="langevin"),
    Langevin(name="langevin", sigma=0.1234567, steps=5, denoise=False),
    FollowScores(name="follow_scores"),
    Heun(name="heun"),
    Heun(name="heun", levels=9, rho=3.3, sigma_min=0.02),
    ConsistentAnnealed(name="consistent_annealed"),
    ConsistentAnnealed(name="consistent_annealed", levels=20, eta=0.6),
    Ancestral(name="ancestral"),
    Dpmpp2mSde(name="dpmpp_2m_sde"),
    Dpmpp2mSde(name="dpmpp_2m_sde", levels=9, eta=0.7, churn=1.5, churn_max=2.0),
    Euler(name="euler", levels=12),
    AdamsBashforth(name="adams_bashforth", sigma_max=3.0),
]
V1 = (1.0, 0.5, 0.25, 0.125)


@pytest.fixture(scope="session")
def v1_card(tiny_card: ModelCard) -> ModelCard:
    """A model that knows four levels and no others."""
    update = {"sigmas": V1, "sigma_max": 1.0, "sigma_min": 0.125, "sampler": AnnealedLangevin(steps_per_level=3)}
    return ModelCard.model_validate(tiny_card.model_dump() | update)


def test_a_request_without_a_sampler_runs_the_one_of_the_card(tiny_card: ModelCard) -> None:
    settings, table = plan(None, tiny_card)
    sigmas = schedules.geometric(10.0, 0.01, 6)
    assert settings == AnnealedLangevin(
        levels=6,
        steps_per_level=2,
        step_size=schedules.langevin_step_size(sigmas, 2),
        denoise=True,
        sigma_max=10.0,
        sigma_min=0.01,
    )
    assert len(table) == 6 * 2 + 1
    assert table.initial_std == 10.0
    assert table.initial_mean == tiny_card.network.data_mean == 0.13
    assert table.column("sigma").tolist() == [s for s in sigmas for _ in range(2)] + [0.01]


def test_a_request_overrides_the_card_field_by_field(tiny_card: ModelCard) -> None:
    settings, table = plan(AnnealedLangevin(levels=4, denoise=False), tiny_card)
    assert isinstance(settings, AnnealedLangevin)
    assert (settings.levels, settings.steps_per_level, settings.denoise) == (4, 2, False)
    assert len(table) == 8


def test_the_step_size_of_the_card_goes_only_with_the_schedule_of_the_card(tiny_card: ModelCard) -> None:
    card = tiny_card.model_copy(update={"sampler": AnnealedLangevin(levels=6, steps_per_level=2, step_size=3e-5)})
    for request in (None, AnnealedLangevin(), AnnealedLangevin(denoise=False)):
        assert plan(request, card)[0].step_size == 3e-5  # type: ignore[union-attr]
    for request in (AnnealedLangevin(levels=50), AnnealedLangevin(sigma_min=0.1), AnnealedLangevin(steps_per_level=9)):
        settings, _ = plan(request, card)
        assert isinstance(settings, AnnealedLangevin)
        assert settings.sigma_max is not None
        assert settings.sigma_min is not None
        assert settings.levels is not None
        assert settings.steps_per_level is not None
        sigmas = schedules.geometric(settings.sigma_max, settings.sigma_min, settings.levels)
        assert settings.step_size == schedules.langevin_step_size(sigmas, settings.steps_per_level)


def test_another_sampler_than_the_card_s_takes_the_noise_range_of_the_card(tiny_card: ModelCard) -> None:
    settings, table = plan(Heun(name="heun"), tiny_card)
    assert settings == Heun(name="heun", levels=18, rho=7.0, sigma_max=10.0, sigma_min=0.01)
    assert len(table) == 35
    single, _ = plan(Langevin(name="langevin"), tiny_card)
    assert isinstance(single, Langevin)
    assert single.sigma == pytest.approx(math.sqrt(10.0 * 0.01))


def test_a_card_has_settings_of_its_own_for_several_samplers(tiny_card: ModelCard) -> None:
    own = (Heun(name="heun", levels=9, sigma_max=3.0), Euler(name="euler", levels=12))
    card = ModelCard.model_validate(tiny_card.model_dump() | {"samplers": own})
    assert card.own("heun") == own[0]
    assert card.own(card.sampler.name) == card.sampler
    assert card.own("ancestral") is None
    assert plan(None, card)[0] == plan(None, tiny_card)[0]
    assert plan(Euler(name="euler"), card)[0] == plan(Euler(name="euler", levels=12), tiny_card)[0]
    overridden = plan(Heun(name="heun", levels=4), card)[0]
    assert overridden == plan(Heun(name="heun", levels=4, sigma_max=3.0), tiny_card)[0]


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_complete_settings_planned_again_give_the_identical_table(
    tiny_card: ModelCard, request_: SamplerSettings | None
) -> None:
    complete, table = plan(request_, tiny_card)
    assert None not in complete.model_dump(exclude={"sigmas"}).values()
    through_json = ADAPTER.validate_json(ADAPTER.dump_json(complete))
    for settings in (complete, through_json):
        again, table_again = plan(settings, tiny_card)
        assert again == complete
        assert table_again.rows.tobytes() == table.rows.tobytes()
        assert (table_again.initial_mean, table_again.initial_std) == (table.initial_mean, table.initial_std)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (AnnealedLangevin(sigma_max=10.1), "sigma_max"),
        (AnnealedLangevin(sigma_min=0.0099), "sigma_min"),
        (AnnealedLangevin(sigma_max=1.0, sigma_min=1.0), "sigma_min"),
        (AnnealedLangevin(sigma_max=0.02, sigma_min=0.5), "sigma_min"),
        (AnnealedLangevin(levels=1), "levels"),
        (AnnealedLangevin(step_size=4e-4), "step_size"),
        (AnnealedLangevin(levels=50_000, steps_per_level=2), "levels"),
        (Langevin(name="langevin", sigma=11.0), "sigma"),
        (Langevin(name="langevin", sigma=0.001), "sigma"),
        (Langevin(name="langevin", sigma=0.5, step_size=1.0), "step_size"),
        (Langevin(name="langevin", steps=MAX_ROWS, denoise=True), "steps"),
        (FollowScores(name="follow_scores", sigma=11.0), "sigma"),
        (FollowScores(name="follow_scores", sigma=0.1, step_size=0.05), "step_size"),
        (Heun(name="heun", levels=1), "levels"),
        (Heun(name="heun", levels=50_001), "levels"),
        (Heun(name="heun", sigma_max=20.0), "sigma_max"),
        (Heun(name="heun", sigma_min=5.0, sigma_max=2.0), "sigma_min"),
        (Euler(name="euler", levels=1), "levels"),
        (Ancestral(name="ancestral", sigma_max=11.0), "sigma_max"),
        (ConsistentAnnealed(name="consistent_annealed", levels=1), "levels"),
        (ConsistentAnnealed(name="consistent_annealed", levels=11, eta=0.49), "eta"),
        (ConsistentAnnealed(name="consistent_annealed", levels=11, eta=1.51), "eta"),
    ],
    ids=str,
)
def test_what_a_model_cannot_follow_is_refused_by_name(
    tiny_card: ModelCard, settings: SamplerSettings, field: str
) -> None:
    with pytest.raises(SamplerRefused) as refused:
        plan(settings, tiny_card)
    assert refused.value.field == field
    assert str(refused.value) == f"{field}: {refused.value.reason}; allowed: {refused.value.allowed}"


def test_the_ends_of_what_is_allowed_are_allowed(tiny_card: ModelCard) -> None:
    plan(AnnealedLangevin(step_size=3.99e-4, sigma_max=10.0, sigma_min=0.01, levels=2), tiny_card)
    assert len(plan(Langevin(name="langevin", steps=MAX_ROWS - 1), tiny_card)[1]) == MAX_ROWS
    assert len(plan(FollowScores(name="follow_scores", steps=MAX_ROWS), tiny_card)[1]) == MAX_ROWS


LISTED = (9.0, 4.0, 0.5, 0.02)


@pytest.mark.parametrize("name", [name for name in NAMES if "sigmas" in type(bare(name)).model_fields])
def test_levels_may_be_listed(tiny_card: ModelCard, consistency_card: ModelCard, name: str) -> None:
    eta = {"eta": 1.0} if name == "consistent_annealed" else {}
    asked = ADAPTER.validate_python({"name": name, "sigmas": LISTED, **eta})
    card = consistency_card if asked.of_consistency else tiny_card
    complete, table = plan(asked, card, asked.needs_known)
    assert set(table.column("sigma")) == set(LISTED)
    assert complete.model_dump()["sigmas"] == LISTED
    assert {complete.model_dump().get(field) for field in ("levels", "rho", "sigma_max", "sigma_min")} == {None}
    again, same = plan(ADAPTER.validate_json(ADAPTER.dump_json(complete)), card, asked.needs_known)
    assert again == complete
    assert same.rows.tobytes() == table.rows.tobytes()


def test_a_list_of_what_the_formula_gives_gives_the_same_table(tiny_card: ModelCard) -> None:
    karras, geometric = schedules.karras(10.0, 0.01, 12, 7.0), schedules.geometric(10.0, 0.01, 12)
    for by_list, by_formula in (
        (Heun(name="heun", sigmas=tuple(karras)), Heun(name="heun", levels=12)),
        (AnnealedLangevin(sigmas=tuple(geometric)), AnnealedLangevin(levels=12)),
    ):
        (_, listed), (_, table) = plan(by_list, tiny_card), plan(by_formula, tiny_card)
        assert listed.rows == pytest.approx(table.rows, rel=1e-9)
        assert listed.initial_std == pytest.approx(table.initial_std)


def test_a_listed_sequence_takes_the_step_size_of_its_widest_step(tiny_card: ModelCard) -> None:
    complete, _ = plan(AnnealedLangevin(sigmas=(8.0, 4.0, 1.0, 0.5), steps_per_level=3), tiny_card)
    expected = schedules.langevin_step_size([4.0, 1.0, 0.5], 3)
    assert isinstance(complete, AnnealedLangevin)
    assert complete.step_size == expected


def test_what_the_card_says_of_levels_gives_way_to_a_list_and_its_list_to_what_a_request_says(
    tiny_card: ModelCard,
) -> None:
    by_formula = ModelCard.model_validate(
        tiny_card.model_dump() | {"samplers": [Heun(name="heun", levels=9, rho=5.0, sigma_max=3.0)]}
    )
    table = plan(Heun(name="heun", sigmas=LISTED), by_formula)[1]
    assert table.rows.tobytes() == plan(Heun(name="heun", sigmas=LISTED), tiny_card)[1].rows.tobytes()
    by_list = ModelCard.model_validate(tiny_card.model_dump() | {"samplers": [Heun(name="heun", sigmas=LISTED)]})
    assert set(plan(Heun(name="heun"), by_list)[1].column("sigma")) == set(LISTED)
    assert plan(Heun(name="heun", rho=5.0), by_list)[0] == plan(Heun(name="heun", rho=5.0), tiny_card)[0]
    own_step = ModelCard.model_validate(tiny_card.model_dump() | {"sampler": AnnealedLangevin(step_size=3e-5)})
    of_another_schedule, _ = plan(AnnealedLangevin(sigmas=LISTED), own_step)
    assert of_another_schedule == plan(AnnealedLangevin(sigmas=LISTED, steps_per_level=5), tiny_card)[0]


@pytest.mark.parametrize(
    ("sigmas", "says"),
    [
        ((), "single level leads nowhere"),
        ((1.0,), "single level leads nowhere"),
        ((1.0, 2.0), "2 is not below 1"),
        ((1.0, 1.0), "1 is not below 1"),
        ((10.5, 1.0), "10.5 is outside what tiny was trained for"),
        ((1.0, 0.001), "0.001 is outside"),
    ],
)
def test_a_list_of_levels_is_refused_by_what_is_wrong_with_it(
    tiny_card: ModelCard, sigmas: tuple[float, ...], says: str
) -> None:
    for sampler in (Euler(name="euler", sigmas=sigmas), AnnealedLangevin(sigmas=sigmas)):
        with pytest.raises(SamplerRefused, match=says) as refused:
            plan(sampler, tiny_card)
        assert refused.value.field == "sigmas"


@pytest.mark.parametrize(
    "sampler",
    [
        AnnealedLangevin(sigmas=LISTED, levels=4),
        ConsistentAnnealed(name="consistent_annealed", sigmas=LISTED, sigma_max=9.0),
        Euler(name="euler", sigmas=LISTED, rho=7.0),
        Heun(name="heun", sigmas=LISTED, sigma_min=0.02),
    ],
    ids=str,
)
def test_a_list_of_levels_excludes_what_else_chooses_them(tiny_card: ModelCard, sampler: SamplerSettings) -> None:
    with pytest.raises(SamplerRefused, match="chooses the levels") as refused:
        plan(sampler, tiny_card)
    assert refused.value.field == "sigmas"


def test_a_list_is_of_numbers_and_at_most_1_000(tiny_card: ModelCard) -> None:
    most = [10.0 * 0.995**i for i in range(1001)]
    assert len(plan(ADAPTER.validate_python({"name": "euler", "sigmas": most[:1000]}), tiny_card)[1]) == 1000
    for wrong in (most, [0.0], [-1.0], ["1"], [math.nan], [True], 1.0, "1, 2"):
        with pytest.raises(ValidationError):
            ADAPTER.validate_python({"name": "euler", "sigmas": wrong})
    with pytest.raises(SamplerRefused, match="network evaluations"):
        plan(AnnealedLangevin(sigmas=tuple(most[:1000]), steps_per_level=101), tiny_card)


def test_a_model_of_discrete_levels_runs_a_list_of_some_of_them(v1_card: ModelCard) -> None:
    table = plan(AnnealedLangevin(sigmas=(1.0, 0.25)), v1_card)[1]
    assert sorted(set(table.column("sigma"))) == [0.25, 1.0]
    with pytest.raises(SamplerRefused, match=r"not trained at 0\.3"):
        plan(AnnealedLangevin(sigmas=(1.0, 0.3)), v1_card)


def test_levels_left_out_follow_from_the_dimension(tiny_card: ModelCard) -> None:
    card = tiny_card.model_copy(update={"sampler": Heun(name="heun")})
    for sampler in (AnnealedLangevin(), ConsistentAnnealed(name="consistent_annealed")):
        settings, _ = plan(sampler, card)
        assert settings.levels == schedules.geometric_levels(10.0, 0.01, 64) > 2  # type: ignore[union-attr]


def test_a_model_of_discrete_levels_runs_those_it_was_trained_at(v1_card: ModelCard) -> None:
    settings, table = plan(None, v1_card)
    assert isinstance(settings, AnnealedLangevin)
    assert (settings.levels, settings.sigma_max, settings.sigma_min) == (4, 1.0, 0.125)
    assert table.column("sigma").tolist() == [s for s in V1 for _ in range(3)] + [0.125]
    assert table.initial_std is None, "it starts uniform, as its paper does"
    assert plan(settings, v1_card)[1].rows.tobytes() == table.rows.tobytes()
    upper = plan(AnnealedLangevin(sigma_min=0.25, levels=3), v1_card)[1]
    assert sorted(set(upper.column("sigma"))) == [0.25, 0.5, 1.0]
    assert set(plan(ConsistentAnnealed(name="consistent_annealed"), v1_card)[1].column("sigma")) == set(V1)
    single = plan(FollowScores(name="follow_scores"), v1_card)[0]
    assert isinstance(single, FollowScores)
    assert single.sigma in V1


@pytest.mark.parametrize(
    ("settings", "field", "says"),
    [
        (AnnealedLangevin(levels=10), "levels", "trained at 4 levels"),
        (AnnealedLangevin(sigma_max=0.9), "sigma_max", "0.5, 0.25"),
        (AnnealedLangevin(sigma_max=0.25, sigma_min=0.25), "sigma_min", "not below"),
        (Langevin(name="langevin", sigma=0.3), "sigma", "not trained at 0.3"),
        *(
            (kind(name=kind.__name__.lower()), "name", "continuous range of noise levels")
            for kind in (Euler, Heun, Ancestral)
        ),
        (AdamsBashforth(name="adams_bashforth"), "name", "annealed_langevin"),
    ],
    ids=str,
)
def test_a_model_of_discrete_levels_refuses_all_others(
    v1_card: ModelCard, settings: SamplerSettings, field: str, says: str
) -> None:
    with pytest.raises(SamplerRefused, match=says) as refused:
        plan(settings, v1_card)
    assert refused.value.field == field


def test_a_huge_request_is_refused_before_it_costs_anything(tiny_card: ModelCard) -> None:
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(SamplerRefused, match="10,000,000,001"):
        plan(AnnealedLangevin(levels=100_000, steps_per_level=100_000), tiny_card)
    seconds, (_, peak) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 0.1
    assert peak < 1e6


@pytest.mark.parametrize("settings", REQUESTS, ids=str)
def test_every_table_contracts_on_its_own_noise_level(tiny_card: ModelCard, settings: SamplerSettings | None) -> None:
    """Where data are one point, score = -x / sigma^2: no row may enlarge x."""
    _, table = plan(settings, tiny_card)
    whole = table.column("carry") == 0
    whole[:-1] &= table.column("carry")[1:] == 0
    assert np.all(np.abs(1 - table.column("drift") / table.column("sigma") ** 2)[whole] < 1)


def test_levels_that_are_written_with_six_digits_are_the_model_s_own(v1_card: ModelCard) -> None:
    levels = schedules.geometric(1.0, 0.01, 10)
    card = v1_card.model_copy(update={"sigmas": tuple(levels), "sigma_min": levels[-1]})
    settings, table = plan(Langevin(name="langevin", sigma=0.599484), card)
    assert settings.sigma == levels[1] != 0.599484  # type: ignore[union-attr]
    assert set(table.column("sigma")) == {levels[1]}
    written = tuple(float(f"{level:.6g}") for level in levels)
    _, table = plan(AnnealedLangevin(sigmas=written, steps_per_level=1, denoise=False), card)
    assert table.column("sigma").tolist() == levels
    with pytest.raises(SamplerRefused, match=r"not trained at 0\.5994; allowed: one of: 1, 0\.599484"):
        plan(Langevin(name="langevin", sigma=0.5994), card)


def test_the_ends_of_the_range_too(tiny_card: ModelCard) -> None:
    card = tiny_card.model_copy(update={"sigma_min": 0.012345678, "sigma_max": 9.87654321})
    settings, _ = plan(Heun(name="heun", sigma_min=0.0123457, sigma_max=9.87655), card)
    assert (settings.sigma_min, settings.sigma_max) == (card.sigma_min, card.sigma_max)  # type: ignore[union-attr]
    with pytest.raises(SamplerRefused, match="outside"):
        plan(Heun(name="heun", sigma_min=0.0123), card)


def test_a_consistency_model_is_asked_a_few_times_with_noise_up_to_the_next_level(consistency_card: ModelCard) -> None:
    settings, table = plan(None, consistency_card)
    kind = MultistepConsistency
    assert settings == kind(name="multistep_consistency", levels=2, rho=7.0, sigma_max=10.0, sigma_min=0.001)
    middle = ((10 ** (1 / 7) + 0.001 ** (1 / 7)) / 2) ** 7
    assert table.rows.tolist() == [
        pytest.approx([10, 100, 0, math.sqrt(middle**2 - 0.001**2), middle, 0, 0, 0]),
        pytest.approx([middle, middle**2, 0, 0, 0, 0, 0, 0]),
    ]
    assert table.initial_std == pytest.approx(10)
    _, once = plan(kind(name="multistep_consistency", levels=1), consistency_card)
    assert once.rows.tolist() == [pytest.approx([10, 100, 0, 0, 0, 0, 0, 0])]
    _, listed = plan(kind(name="multistep_consistency", sigmas=(10.0, 1.0, 0.2)), consistency_card)
    assert listed.column("sigma").tolist() == [10, 1, 0.2]
    _, within = plan(kind(name="multistep_consistency").within(3, consistency_card), consistency_card)
    assert len(within) == 3


def test_a_model_is_offered_what_can_sample_it_and_nothing_else(
    tiny_card: ModelCard, v1_card: ModelCard, consistency_card: ModelCard
) -> None:
    assert not consistency_card.denoises
    assert offered(consistency_card) == [MultistepConsistency]
    assert MultistepConsistency not in offered(tiny_card)
    assert {Heun, Euler, Langevin} < set(offered(tiny_card))
    assert set(offered(v1_card)) == {AnnealedLangevin, Langevin, FollowScores, ConsistentAnnealed}
    assert why_not(Heun, tiny_card) is None
    assert "consistency model, which has none" in str(why_not(Heun, consistency_card))
    with pytest.raises(SamplerRefused, match=r"heun follows a score.*allowed: multistep_consistency$"):
        plan(Heun(name="heun"), consistency_card)
    with pytest.raises(SamplerRefused, match="samples consistency models; tiny is none; allowed: annealed_langevin or"):
        plan(MultistepConsistency(name="multistep_consistency"), tiny_card)
