"""Which sampler settings are judged, and what they are called."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.card import ModelCard
from models.evaluation.budgets import within
from models.samplers import COMPARED
from models.samplers.plan import offered, plan
from models.samplers.sampler import SamplerRefused
from models.samplers.settings import SamplerSettings, bare
from models.samplers.table import Table

SHOWN = ("levels", "steps_per_level", "steps", "sigma", "sigma_max", "sigma_min")  # in a label, asked for or not


@dataclass(frozen=True)
class Setting:
    """A sampler setting that is to be judged.

    Args:
        label: what it is called in tables.
        sampler: the settings, complete.
        table: its rows.
    """

    label: str
    sampler: SamplerSettings
    table: Table


def settings_of(samplers: Sequence[SamplerSettings], evaluations: Sequence[int], card: ModelCard) -> list[Setting]:
    """Each sampler with each number of evaluations, no table twice.

    Without samplers: with `evaluations` all that the model can follow, else the model's own and, if the model can
    follow it, that by which models are compared.

    Raises:
        SamplerRefused: the model cannot follow one that was asked for, or not with so few evaluations.
    """
    if evaluations:
        found = _budgeted(samplers, evaluations, card)
    elif samplers:
        found = (setting(sampler, card) for sampler in samplers)
    else:
        found = _usual(card)
    return list({s.table.rows.tobytes(): s for s in found}.values())


def setting(wanted: SamplerSettings, card: ModelCard) -> Setting:
    """A setting completed from the card.

    Raises:
        SamplerRefused: the model cannot follow it.
    """
    complete, table = plan(wanted, card)
    asked = wanted.model_dump(exclude_none=True)
    said = complete.model_dump(exclude={"name"}, exclude_none=True)
    shown = {k: v for k, v in said.items() if k in SHOWN or k in asked}
    if sigmas := shown.pop("sigmas", None):
        shown["sigma"] = f"{sigmas[0]:g}..{sigmas[-1]:g} ({len(sigmas)} listed)"
    if {"sigma_max", "sigma_min"} <= shown.keys():
        shown["sigma"] = f"{shown.pop('sigma_max'):g}..{shown.pop('sigma_min'):g}"
    details = " ".join(f"{k}={v}" if isinstance(v, str) else f"{k}={v:g}" for k, v in shown.items())
    return Setting(f"{complete.name} {details}", complete, table)


def _usual(card: ModelCard) -> Iterator[Setting]:
    yield setting(card.sampler, card)
    compared = bare(COMPARED)
    if type(compared) in offered(card):
        yield setting(compared, card)


def _budgeted(samplers: Sequence[SamplerSettings], evaluations: Sequence[int], card: ModelCard) -> Iterator[Setting]:
    for sampler in samplers or [bare(sampler.known_as()) for sampler in offered(card)]:
        for n in evaluations:
            try:
                yield setting(within(sampler, n, card), card)
            except SamplerRefused as error:
                if samplers:
                    raise SamplerRefused(
                        f"{sampler.name} with {n} evaluations: {error.field}", error.reason, error.allowed
                    ) from error
