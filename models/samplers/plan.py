"""From what a request says about its sampler to the table that runs, and which samplers a model can be asked for."""

from dataclasses import replace

from models.card import ModelCard
from models.samplers.sampler import Sampler, SamplerRefused
from models.samplers.settings import SAMPLERS, SamplerSettings
from models.samplers.table import Table


def plan(settings: SamplerSettings | None, card: ModelCard) -> tuple[SamplerSettings, Table]:
    """The complete settings and the table of a request, for one model.

    What `settings` leaves out is taken from the card's own settings of that sampler, then from the card's noise
    range and the sampler's own defaults.

    Raises:
        SamplerRefused: the model cannot follow the settings; the message says what it can.
    """
    settings = card.sampler if settings is None else settings.filled(card)
    if reason := why_not(type(settings), card):
        raise SamplerRefused("name", reason, " or ".join(sampler.known_as() for sampler in offered(card)))
    complete, table = settings.complete(card)
    return complete, replace(table, initial_mean=card.network.data_mean)


def offered(card: ModelCard) -> list[type[Sampler]]:
    """The samplers that a model can be asked for."""
    return [sampler for sampler in SAMPLERS if why_not(sampler, card) is None]


def why_not(sampler: type[Sampler], card: ModelCard) -> str | None:
    """Why a model cannot be sampled so, whatever the settings; None if it can."""
    name = sampler.known_as()
    if sampler.of_consistency and card.denoises:
        return f"{name} samples consistency models; {card.name} is none"
    if not sampler.of_consistency and not card.denoises:
        return f"{name} follows a score; {card.name} is a consistency model, which has none"
    if sampler.needs_all_levels and card.sigmas is not None:
        return (
            f"{name} solves an equation over a continuous range of noise levels, from one as large as the data's "
            f"diameter; {card.name} knows {len(card.sigmas)} levels, of which the largest is {card.sigma_max:g}"
        )
    return None
