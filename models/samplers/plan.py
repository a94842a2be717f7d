"""From what a request says about its sampler to the table that runs."""

from dataclasses import replace

from models.card import ModelCard
from models.samplers.sampler import SamplerRefused
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
    if settings.needs_all_levels and card.sigmas is not None:
        raise SamplerRefused(
            "name",
            f"{settings.name} solves an equation over a continuous range of noise levels, from one as large as the "
            f"data's diameter; {card.name} knows {len(card.sigmas)} levels, of which the largest is {card.sigma_max:g}",
            " or ".join(sampler.known_as() for sampler in SAMPLERS if not sampler.needs_all_levels),
        )
    complete, table = settings.complete(card)
    return complete, replace(table, initial_mean=card.network.data_mean)
