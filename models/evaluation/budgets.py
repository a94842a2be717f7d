"""Samplers that spend a given number of network evaluations an image, for comparing them. Torch-free."""

from models.card import ModelCard
from models.plan import plan
from models.samplers.sampler import SamplerRefused
from models.samplers.settings import SamplerSettings


def within(sampler: SamplerSettings, evaluations: int, card: ModelCard, known: bool = False) -> SamplerSettings:
    """A sampler's settings with as many levels or steps as `evaluations` network evaluations an image allow.

    Args:
        sampler: the settings, without the levels and steps that are to be chosen.
        evaluations: how many the sampler may spend at most; at least 1.
        card: of the model.
        known: whether something is known of the images.

    Raises:
        SamplerRefused: they are too few for the sampler, the model cannot follow it, or it has its levels or steps.
    """
    for field in sampler.counts:
        if getattr(sampler, field) is not None:
            raise SamplerRefused(
                field, f"it decides how many evaluations are spent, not {evaluations}", "one of the two"
            )
    chosen = sampler.within(evaluations, card)
    _, table = plan(chosen, card, known)
    if len(table) > evaluations:
        raise SamplerRefused("levels", f"{sampler.name} takes {len(table)} evaluations of {card.name}", "at least that")
    return chosen
