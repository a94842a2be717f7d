"""From what a request says about its sampler to the table that runs: defaults from the card, and every refusal."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

from models.card import ModelCard
from models.samplers import schedules, tables
from models.samplers.settings import (
    AdamsBashforth,
    Ancestral,
    AnnealedLangevin,
    ConsistentAnnealed,
    Euler,
    FollowScores,
    Heun,
    Langevin,
    SamplerSettings,
)

MAX_ROWS = 100_000
T = TypeVar("T")
Descent = Ancestral | Euler | AdamsBashforth | Heun

# The samplers from the first level down to 0: table, evaluations a level, and levels by default.
DESCENTS: dict[str, tuple[Callable[[Sequence[float]], tables.Table], int, int]] = {
    "ancestral": (tables.ancestral, 1, 100),
    "euler": (tables.euler, 1, 35),
    "adams_bashforth": (tables.adams_bashforth, 1, 35),
    "heun": (tables.heun, 2, 18),
}


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

    What `settings` leaves out is taken from the card's own settings of that sampler, then from the card's noise
    range and the sampler's own defaults.

    Raises:
        SamplerRefused: the model cannot follow the settings; the message says what it can.
    """
    if settings is None:
        settings = card.sampler
    elif own := card.own(settings.name):
        settings = settings.model_copy(
            update={k: v for k, v in own if getattr(settings, k) is None and _carries(settings, k)}
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
        case ConsistentAnnealed():
            return _consistent_annealed(settings, card)
        case _:
            return _descend(settings, card)


def _carries(settings: SamplerSettings, field: str) -> bool:
    """Whether the card's value of a field still means something: its step size only fits its own schedule."""
    schedule = ("levels", "steps_per_level", "sigma_max", "sigma_min", "sigma")
    return field != "step_size" or all(getattr(settings, name, None) is None for name in schedule)


def _annealed_langevin(s: AnnealedLangevin, card: ModelCard) -> tuple[AnnealedLangevin, tables.Table]:
    steps, denoise = _or(s.steps_per_level, 5), _or(s.denoise, True)
    sigmas = _geometric(s, card, rows_per_level=steps)
    step_size = schedules.langevin_step_size(sigmas, steps) if s.step_size is None else s.step_size
    _check_step_size(step_size, sigmas[-1])
    complete = s.model_copy(
        update={"steps_per_level": steps, "step_size": step_size, "denoise": denoise, **_described(sigmas)}
    )
    # The paper starts uniform; of levels up to the data's diameter the first one alone is the better start.
    initial_std = sigmas[0] if card.sigmas is None else None
    return complete, tables.annealed_langevin(sigmas, steps, step_size, denoise, initial_std)


def _consistent_annealed(s: ConsistentAnnealed, card: ModelCard) -> tuple[ConsistentAnnealed, tables.Table]:
    sigmas = _geometric(s, card)
    gammas = [following / sigma for sigma, following in pairwise(sigmas)]
    eta = _or(s.eta, 1 - gammas[0] ** 3)
    low, high = 1 - min(gammas), 1 + min(gammas)
    if not low <= eta < high:
        raise SamplerRefused("eta", f"{eta:g} cannot leave the noise of the next level", f"{low:g} to below {high:g}")
    return s.model_copy(update={"eta": eta, **_described(sigmas)}), tables.consistent_annealed(sigmas, eta)


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


def _descend(s: Descent, card: ModelCard) -> tuple[Descent, tables.Table]:
    table, rows_per_level, levels_by_default = DESCENTS[s.name]
    if card.sigmas is not None:
        raise SamplerRefused(
            "name",
            f"{s.name} solves an equation over a continuous range of noise levels, from one as large as the data's "
            f"diameter; {card.name} knows {len(card.sigmas)} levels, of which the largest is {card.sigma_max:g}",
            "annealed_langevin, consistent_annealed, langevin or follow_scores",
        )
    sigma_max, sigma_min = _noise_range(s, card)
    levels, rho = _or(s.levels, levels_by_default), _or(s.rho, 7.0)
    if levels < 2:
        raise SamplerRefused("levels", "a single level leads nowhere", "at least 2")
    _check_rows("levels", rows_per_level * levels)
    complete = s.model_copy(update={"levels": levels, "rho": rho, "sigma_max": sigma_max, "sigma_min": sigma_min})
    return complete, table(schedules.karras(sigma_max, sigma_min, levels, rho))


def _geometric(s: AnnealedLangevin | ConsistentAnnealed, card: ModelCard, rows_per_level: int = 1) -> list[float]:
    """Noise levels from sigma_max to sigma_min: those that the model was trained at if it knows no others."""
    sigma_max, sigma_min = _noise_range(s, card)
    if card.sigmas is None:
        levels = _or(s.levels, schedules.geometric_levels(sigma_max, sigma_min, card.image.size))
    else:
        levels = sum(sigma_min <= sigma <= sigma_max for sigma in card.sigmas)
        if s.levels not in (None, levels):
            reason = (
                f"{card.name} was trained at {levels} levels from {sigma_max:g} to {sigma_min:g} and knows no others"
            )
            raise SamplerRefused("levels", reason, f"{levels}, or nothing")
    if levels < 2:
        raise SamplerRefused(
            "levels", "annealing needs a sequence of levels", "at least 2; for a single one, `langevin`"
        )
    _check_rows("levels", levels * rows_per_level + 1)
    if card.sigmas is None:
        return schedules.geometric(sigma_max, sigma_min, levels)
    return [sigma for sigma in card.sigmas if sigma_min <= sigma <= sigma_max]


def _described(sigmas: Sequence[float]) -> dict[str, float]:
    return {"levels": len(sigmas), "sigma_max": sigmas[0], "sigma_min": sigmas[-1]}


def _single_level(s: Langevin | FollowScores, card: ModelCard) -> tuple[float, int, float]:
    """sigma (by default the middle of the card's range), steps, and a step size that shrinks the noise by a tenth."""
    middle = (card.sigma_min * card.sigma_max) ** 0.5
    if card.sigmas is not None:
        middle = min(card.sigmas, key=lambda sigma: abs(math.log(sigma / middle)))
    sigma = _or(s.sigma, middle)
    _check_sigma("sigma", sigma, card)
    step_size = _or(s.step_size, 0.2 * sigma**2)
    _check_step_size(step_size, sigma)
    return sigma, _or(s.steps, 200), step_size


def _noise_range(s: AnnealedLangevin | ConsistentAnnealed | Descent, card: ModelCard) -> tuple[float, float]:
    sigma_max, sigma_min = _or(s.sigma_max, card.sigma_max), _or(s.sigma_min, card.sigma_min)
    _check_sigma("sigma_max", sigma_max, card)
    _check_sigma("sigma_min", sigma_min, card)
    if sigma_min >= sigma_max:
        raise SamplerRefused(
            "sigma_min", f"{sigma_min:g} is not below sigma_max", f"below sigma_max, which is {sigma_max:g}"
        )
    return sigma_max, sigma_min


def _check_sigma(field: str, sigma: float, card: ModelCard) -> None:
    if card.sigmas is not None and sigma not in card.sigmas:
        raise SamplerRefused(
            field,
            f"{card.name} was not trained at {sigma:g}",
            "one of: " + ", ".join(f"{known!r}" for known in card.sigmas),
        )
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
