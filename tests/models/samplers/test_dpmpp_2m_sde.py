import numpy as np
import pytest

from models.card import ModelCard
from models.plan import plan
from models.samplers.ancestral import Ancestral
from models.samplers.dpmpp_2m_sde import Dpmpp2mSde
from models.samplers.sampler import SamplerRefused

SIGMAS = [3.0, 2.0, 0.5]
FOLLOWING = [2.0, 0.5, 0.0]


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0, 2.5])
def test_whatever_its_noise_what_is_left_is_that_of_the_next_level(eta: float) -> None:
    """Data of one point at 0: the denoised image is always 0, so after every row x is N(0, sigma_{i+1}^2)."""
    variance = SIGMAS[0] ** 2
    rows = Dpmpp2mSde.table(SIGMAS, lambda _sigma: eta).rows
    for (sigma, drift, carry, noise, *_), following in zip(rows, FOLLOWING, strict=True):
        variance = (1 - drift / sigma**2 - carry) ** 2 * variance + noise**2  # previous, e - x, is -x
        assert variance == pytest.approx(following**2)


def test_its_first_and_its_last_step_are_those_of_ancestral_sampling() -> None:
    rows, ancestral = Dpmpp2mSde.table(SIGMAS).rows, Ancestral.table(SIGMAS).rows
    for row in (0, 2):
        assert rows[row, :4] == pytest.approx(ancestral[row, :4])
    assert rows[1, 2] < 0
    assert rows[1, 3] == pytest.approx(ancestral[1, 3])


def test_without_noise_it_solves_the_ode_to_the_second_order() -> None:
    """Data N(0, 1): dx/dsigma = sigma x / (1 + sigma^2), so x(sigma) = x(s) sqrt((1 + sigma^2) / (1 + s^2))."""

    def error(steps: int) -> float:
        x, previous = 1.0, 0.0
        for sigma, drift, carry, *_ in Dpmpp2mSde.table([*np.geomspace(2, 1, steps + 1)], lambda _sigma: 0.0).rows[
            :steps
        ]:
            denoised = x / (1 + sigma**2)
            x += drift * -x / (1 + sigma**2) + carry * previous
            previous = denoised - x
        return float(abs(x - np.sqrt(2 / 5)))

    assert error(200) < 1e-4
    assert error(200) / error(400) == pytest.approx(4, rel=0.1)


def test_there_is_churn_at_the_levels_between_its_limits_and_at_no_others(tiny_card: ModelCard) -> None:
    told, table = plan(sampler(levels=12, eta=0.5, churn=2.0, churn_max=3.0, churn_min=0.3), tiny_card)
    assert told == sampler(
        levels=12, rho=7.0, sigma_max=10.0, sigma_min=0.01, eta=0.5, churn=2.0, churn_max=3.0, churn_min=0.3
    )
    sigmas = table.column("sigma")
    within = (sigmas <= 3) & (sigmas >= 0.3)
    assert 0 < within.sum() < len(sigmas) - 2
    parts = np.log(1 - (table.column("noise") / table.column("known").clip(1e-9)) ** 2)[:-1] / -2
    assert parts / np.log(sigmas[:-1] / sigmas[1:]) == pytest.approx(np.where(within, 2.5, 0.5)[:-1])


def test_churn_is_at_all_levels_unless_it_is_limited(tiny_card: ModelCard) -> None:
    told, table = plan(sampler(levels=5, churn=1.5), tiny_card)
    assert (told.churn_max, told.churn_min) == pytest.approx((10.0, 0.01))  # type: ignore[attr-defined]
    everywhere = Dpmpp2mSde.table([*table.column("sigma")], lambda _sigma: 2.5)
    assert table.rows == pytest.approx(everywhere.rows)
    again, same = plan(told, tiny_card)
    assert again == told
    assert same.rows.tolist() == table.rows.tolist()


@pytest.mark.parametrize("rho", [1.0, 3.0, 4.0, 7.0])
def test_limits_at_the_ends_limit_nothing_however_the_ends_are_rounded(tiny_card: ModelCard, rho: float) -> None:
    _, table = plan(sampler(levels=20, rho=rho, churn=1.5), tiny_card)
    _, limited = plan(sampler(levels=20, rho=rho, churn=1.5, churn_max=10.0, churn_min=0.01), tiny_card)
    assert (limited.rows == table.rows).all()


@pytest.mark.parametrize(
    ("asked", "field", "said"),
    [
        ({"churn_max": 3.0}, "churn_max", "there is no churn that it could limit; allowed: a churn besides"),
        ({"churn": 1.0, "churn_min": 3.0, "churn_max": 2.0}, "churn_min", "3 is above churn_max; allowed: at most"),
    ],
)
def test_limits_that_mean_nothing_are_refused(tiny_card: ModelCard, asked: dict, field: str, said: str) -> None:
    with pytest.raises(SamplerRefused, match=said) as refused:
        plan(sampler(**asked), tiny_card)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("card", "asked", "field", "said"),
    [
        ({"churn_max": 3.0, "churn_min": 0.3}, {"churn_max": 0.2}, "churn_max", "0.2 is below churn_min; allowed: at"),
        ({"churn_max": 3.0, "churn_min": 0.3}, {"churn_min": 4.0}, "churn_min", "4 is above churn_max; allowed: at"),
        ({"churn_min": 0.3}, {"sigma_max": 0.2}, "sigma_max", "0.2 is below churn_min; allowed: at least"),
        ({"churn_max": 3.0}, {"sigma_min": 5.0}, "sigma_min", "5 is above churn_max; allowed: at most"),
        ({"sigma_min": 0.3}, {"sigma_max": 0.2}, "sigma_max", "0.2 is not above sigma_min; allowed: above sigma_min"),
        ({"sigma_max": 3.0}, {"sigma_min": 4.0}, "sigma_min", "4 is not below sigma_max; allowed: below sigma_max"),
    ],
)
def test_what_does_not_go_with_the_card_is_said_of_what_was_asked_for(
    tiny_card: ModelCard, card: dict, asked: dict, field: str, said: str
) -> None:
    own = tiny_card.model_copy(update={"sampler": sampler(churn=2.0, **card)})
    with pytest.raises(SamplerRefused, match=said) as refused:
        plan(sampler(**asked), own)
    assert refused.value.field == field


def test_who_asks_for_no_churn_of_a_model_that_has_some_has_none(tiny_card: ModelCard) -> None:
    own = tiny_card.model_copy(update={"sampler": sampler(levels=6, churn=2.0, churn_max=3.0, churn_min=0.3)})
    _, table = plan(sampler(churn=0.0), own)
    assert table.rows.tolist() == plan(sampler(levels=6), tiny_card)[1].rows.tolist()


def sampler(**settings: float) -> Dpmpp2mSde:
    return Dpmpp2mSde.model_validate({"name": "dpmpp_2m_sde", **settings})
