"""From what a request says about its sampler to the table that runs, and which samplers a model can be asked for."""

from dataclasses import replace

from models.card import ModelCard
from models.samplers import KNOWING
from models.samplers.sampler import Sampler, SamplerRefused
from models.samplers.settings import SAMPLERS, SamplerSettings, bare
from models.samplers.table import Table


def plan(settings: SamplerSettings | None, card: ModelCard, known: bool = False) -> tuple[SamplerSettings, Table]:
    """The complete settings and the table of a request, for one model.

    What `settings` leaves out is taken from the card's own settings of that sampler, then from the card's noise
    range and the sampler's own defaults.

    Args:
        settings: None takes the model's own.
        card: of the model.
        known: whether something is known of the images.

    Raises:
        SamplerRefused: the model cannot follow the settings; the message says what it can.
    """
    filled = usual(card, known) if settings is None else settings.filled(card)
    if reason := why_not(type(filled), card, known):
        raise SamplerRefused("name", reason, " or ".join(sampler.known_as() for sampler in offered(card, known)))
    try:
        complete, table = filled.complete(card)
    except SamplerRefused as error:
        raise error.to(settings) from None
    return complete, replace(table, initial_mean=card.network.data_mean)


def usual(card: ModelCard, known: bool) -> SamplerSettings:
    """What runs when a request names no sampler.

    Args:
        card: of the model.
        known: whether something is known of the images.
    """
    if not known:
        return card.sampler
    if card.inpainting is not None:
        return card.inpainting
    knowing = bare(KNOWING)
    return card.sampler if why_not(type(knowing), card, known) else knowing.filled(card)


def offered(card: ModelCard, known: bool = False) -> list[type[Sampler]]:
    """The samplers that a model can be asked for, where something is known of the images or where nothing is."""
    return [sampler for sampler in SAMPLERS if why_not(sampler, card, known) is None]


def why_not(sampler: type[Sampler], card: ModelCard, known: bool = False) -> str | None:
    """Why a model cannot be sampled so, whatever the settings; None if it can.

    Args:
        sampler: of the list.
        card: of the model.
        known: whether something is known of the images.
    """
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
    if sampler.needs_known and not known:
        return f"{name} makes images agree with what is known of them, and of these nothing is known"
    return None
