"""Samplers that spend a given number of network evaluations an image, for comparing them. Torch-free."""

from models.card import ModelCard
from models.samplers import schedules
from models.samplers.plan import SamplerRefused, plan
from models.samplers.settings import (
    AnnealedLangevin,
    ConsistentAnnealed,
    FollowScores,
    Heun,
    Langevin,
    SamplerSettings,
)

FEWEST_STEPS = 3  # Langevin steps at a level, below which levels are given up for them
COUNTS = ("levels", "steps_per_level", "steps")


def within(sampler: SamplerSettings, evaluations: int, card: ModelCard) -> SamplerSettings:
    """A sampler's settings with as many levels or steps as `evaluations` network evaluations an image allow.

    A model that knows no levels but those it was trained at leaves consistent_annealed no choice, and annealed_langevin
    that of the steps at each level alone.

    Args:
        sampler: the settings, without the levels and steps that are to be chosen.
        evaluations: how many the sampler may spend at most; at least 1.
        card: of the model.

    Raises:
        SamplerRefused: they are too few for the sampler, the model cannot follow it, or it has its levels or steps.
    """
    for field in COUNTS:
        if getattr(sampler, field, None) is not None:
            raise SamplerRefused(
                field, f"it decides how many evaluations are spent, not {evaluations}", "one of the two"
            )
    match sampler:
        case AnnealedLangevin():
            chosen: SamplerSettings = _annealed_langevin(sampler, evaluations, card)
        case Langevin():
            chosen = _langevin(sampler, evaluations, card)
        case FollowScores():
            chosen = sampler.model_copy(update={"steps": evaluations})
        case ConsistentAnnealed():
            chosen = _consistent_annealed(sampler, evaluations, card)
        case Heun():
            chosen = sampler.model_copy(update={"levels": (evaluations + 1) // 2})  # the last step takes one, not two
        case _:
            chosen = sampler.model_copy(update={"levels": evaluations})
    _, table = plan(chosen, card)
    if len(table) > evaluations:
        raise SamplerRefused("levels", f"{sampler.name} takes {len(table)} evaluations of {card.name}", "at least that")
    return chosen


def _annealed_langevin(s: AnnealedLangevin, evaluations: int, card: ModelCard) -> AnnealedLangevin:
    """As many steps a level as the levels of technique 2 (Song & Ermon 2020) leave, but FEWEST_STEPS at least.

    Fewer steps leave the noise of the level before (technique 4 finds no step size that removes it), so a small budget
    is spent on fewer levels.
    """
    complete, _ = plan(s, card)
    assert isinstance(complete, AnnealedLangevin)
    assert complete.sigma_max is not None
    assert complete.sigma_min is not None
    for_langevin = evaluations - bool(complete.denoise)
    if card.sigmas is not None:
        known = sum(complete.sigma_min <= sigma <= complete.sigma_max for sigma in card.sigmas)
        if for_langevin < known:
            raise SamplerRefused("levels", f"{card.name} has {known} levels, each of which takes one", "more of them")
        return s.model_copy(update={"steps_per_level": for_langevin // known})
    levels = schedules.geometric_levels(complete.sigma_max, complete.sigma_min, card.image.size)
    steps = max(FEWEST_STEPS, for_langevin // levels)
    if for_langevin < 2 * steps:
        raise SamplerRefused(
            "levels",
            f"two levels of {steps} steps and the denoising take more than {evaluations}",
            f"at least {2 * steps + evaluations - for_langevin}",
        )
    return s.model_copy(update={"levels": for_langevin // steps, "steps_per_level": steps})


def _langevin(s: Langevin, evaluations: int, card: ModelCard) -> Langevin:
    """All evaluations but that of the last denoising are steps."""
    complete, _ = plan(s, card)
    assert isinstance(complete, Langevin)
    denoise = bool(complete.denoise)
    if evaluations <= denoise:
        raise SamplerRefused("steps", "the denoising takes the only evaluation", "at least 2")
    return s.model_copy(update={"steps": evaluations - denoise})


def _consistent_annealed(s: ConsistentAnnealed, evaluations: int, card: ModelCard) -> ConsistentAnnealed:
    """A level for each evaluation, over the range of the model's own annealed Langevin dynamics if it has one."""
    own = card.own("annealed_langevin")
    if own and card.own(s.name) is None:
        ends = {name: getattr(own, name) for name in ("sigma_max", "sigma_min") if getattr(s, name) is None}
        s = s.model_copy(update=ends)
    return s if card.sigmas is not None else s.model_copy(update={"levels": evaluations})
