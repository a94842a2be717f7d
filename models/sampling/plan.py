"""From what a request says about its sampler to the table that runs: defaults from the card, and every refusal."""

from dataclasses import replace
from typing import TypeVar, assert_never

from models.card import ModelCard
from models.sampling import schedules, tables
from models.sampling.settings import AnnealedLangevin, FollowScores, Heun, Langevin, SamplerSettings

MAX_ROWS = 100_000
T = TypeVar("T")


class SamplerRefused(ValueError):
    """A sampler setting that the model cannot follow.

    Args:
        field: the setting at fault.
        reason: what is wrong with it.
        allowed: what is allowed.
    """

    def __init__(self, field: str, reason: str, allowed: str) -> None:
        super().__init__(f"{field}: {reason}; allowed: {allowed}")
        self.field, self.reason, self.allowed = field, reason, allowed


def plan(settings: SamplerSettings | None, card: ModelCard) -> tuple[SamplerSettings, tables.Table]:
    """The complete settings and the table of a request, for one model.

    What `settings` leaves out is taken from the card's sampler if that has the same name, then from the card's noise
    range and the sampler's own defaults.

    Raises:
        SamplerRefused: the model cannot follow the settings; the message says what it can.
    """
    if settings is None:
        settings = card.sampler
    elif settings.name == card.sampler.name:
        settings = settings.model_copy(
            update={k: v for k, v in card.sampler if getattr(settings, k) is None and _carries(settings, k)}
        )
    complete, table = _build(settings, card)
    return complete, replace(table, initial_mean=card.network.data_mean)


def _build(settings: SamplerSettings, card: ModelCard) -> tuple[SamplerSettings, tables.Table]:
    match settings:
        case AnnealedLangevin():
            return _annealed_langevin(settings, card)
        case Langevin():
            return _langevin(settings, card)
        case FollowScores():
            return _follow_scores(settings, card)
        case Heun():
            return _heun(settings, card)
        case _:
            assert_never(settings)


def _carries(settings: SamplerSettings, field: str) -> bool:
    """Whether the card's value of a field still means something: its step size only fits its own schedule."""
    schedule = ("levels", "steps_per_level", "sigma_max", "sigma_min", "sigma")
    return field != "step_size" or all(getattr(settings, name, None) is None for name in schedule)


def _annealed_langevin(s: AnnealedLangevin, card: ModelCard) -> tuple[AnnealedLangevin, tables.Table]:
    sigma_max, sigma_min = _noise_range(s, card)
    levels, steps = _or(s.levels, 50), _or(s.steps_per_level, 2)
    denoise = _or(s.denoise, True)
    if levels < 2:
        raise SamplerRefused(
            "levels", "annealing needs a sequence of levels", "at least 2; for a single one, `langevin`"
        )
    _check_rows("levels", levels * steps + denoise)
    sigmas = schedules.geometric(sigma_max, sigma_min, levels)
    step_size = schedules.langevin_step_size(sigmas, steps) if s.step_size is None else s.step_size
    _check_step_size(step_size, sigma_min)
    complete = s.model_copy(
        update={
            "levels": levels,
            "steps_per_level": steps,
            "step_size": step_size,
            "denoise": denoise,
            "sigma_max": sigma_max,
            "sigma_min": sigma_min,
        }
    )
    return complete, tables.annealed_langevin(sigmas, steps, step_size, denoise, initial_std=sigma_max)


def _langevin(s: Langevin, card: ModelCard) -> tuple[Langevin, tables.Table]:
    sigma, steps, step_size = _single_level(s, card)
    denoise = _or(s.denoise, True)
    _check_rows("steps", steps + denoise)
    complete = s.model_copy(update={"sigma": sigma, "steps": steps, "step_size": step_size, "denoise": denoise})
    return complete, tables.langevin(sigma, steps, step_size, denoise)


def _follow_scores(s: FollowScores, card: ModelCard) -> tuple[FollowScores, tables.Table]:
    sigma, steps, step_size = _single_level(s, card)
    _check_rows("steps", steps)
    complete = s.model_copy(update={"sigma": sigma, "steps": steps, "step_size": step_size})
    return complete, tables.follow_scores(sigma, steps, step_size)


def _heun(s: Heun, card: ModelCard) -> tuple[Heun, tables.Table]:
    sigma_max, sigma_min = _noise_range(s, card)
    levels, rho = _or(s.levels, 18), _or(s.rho, 7.0)
    if levels < 2:
        raise SamplerRefused("levels", "a single level leads nowhere", "at least 2")
    _check_rows("levels", 2 * levels - 1)
    complete = s.model_copy(update={"levels": levels, "rho": rho, "sigma_max": sigma_max, "sigma_min": sigma_min})
    return complete, tables.heun(schedules.karras(sigma_max, sigma_min, levels, rho))


def _single_level(s: Langevin | FollowScores, card: ModelCard) -> tuple[float, int, float]:
    """sigma (by default the middle of the card's range), steps, and a step size that shrinks the noise by a tenth."""
    sigma = _or(s.sigma, (card.sigma_min * card.sigma_max) ** 0.5)
    _check_sigma("sigma", sigma, card)
    step_size = _or(s.step_size, 0.2 * sigma**2)
    _check_step_size(step_size, sigma)
    return sigma, _or(s.steps, 200), step_size


def _noise_range(s: AnnealedLangevin | Heun, card: ModelCard) -> tuple[float, float]:
    sigma_max, sigma_min = _or(s.sigma_max, card.sigma_max), _or(s.sigma_min, card.sigma_min)
    _check_sigma("sigma_max", sigma_max, card)
    _check_sigma("sigma_min", sigma_min, card)
    if sigma_min >= sigma_max:
        raise SamplerRefused(
            "sigma_min", f"{sigma_min:g} is not below sigma_max", f"below sigma_max, which is {sigma_max:g}"
        )
    return sigma_max, sigma_min


def _check_sigma(field: str, sigma: float, card: ModelCard) -> None:
    if not card.sigma_min <= sigma <= card.sigma_max:
        raise SamplerRefused(
            field,
            f"{sigma:g} is outside what {card.name} was trained for",
            f"{card.sigma_min:g} to {card.sigma_max:g}",
        )


def _check_step_size(step_size: float, sigma: float) -> None:
    """A Langevin step of alpha multiplies a deviation by 1 - alpha / (2 sigma^2): from 4 sigma^2 on it diverges."""
    if step_size >= 4 * sigma**2:
        raise SamplerRefused(
            "step_size", f"{step_size:g} makes the chain diverge", f"below 4 sigma^2 = {4 * sigma**2:g}"
        )


def _check_rows(field: str, rows: int) -> None:
    if rows > MAX_ROWS:
        raise SamplerRefused(
            field, f"this takes {rows:,} network evaluations an image", f"at most {MAX_ROWS:,} evaluations"
        )


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
