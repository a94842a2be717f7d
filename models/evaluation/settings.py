"""Which sampler settings are judged, and what they are called."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.card import ModelCard
from models.evaluation.budgets import within
from models.samplers import COMPARED
from models.samplers.plan import offered, plan, usual
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


def settings_of(
    samplers: Sequence[SamplerSettings], evaluations: Sequence[int], card: ModelCard, known: bool = False
) -> list[Setting]:
    """Each sampler with each number of evaluations, no table twice.

    Without samplers: with `evaluations` all that the model can follow, else the model's own and, if the model can
    follow it, that by which models are compared.

    Args:
        samplers: that are asked for.
        evaluations: that each may spend.
        card: of the model.
        known: whether something is known of the images.

    Raises:
        SamplerRefused: the model cannot follow one that was asked for, or not with so few evaluations.
    """
    if evaluations:
        found = _budgeted(samplers, evaluations, card, known)
    elif samplers:
        found = (setting(sampler, card, known) for sampler in samplers)
    else:
        found = _usual(card, known)
    return list({s.table.rows.tobytes(): s for s in found}.values())


def setting(wanted: SamplerSettings, card: ModelCard, known: bool = False) -> Setting:
    """A setting completed from the card.

    Raises:
        SamplerRefused: the model cannot follow it.
    """
    complete, table = plan(wanted, card, known)
    asked = wanted.model_dump(exclude_none=True)
    said = complete.model_dump(exclude={"name"}, exclude_none=True)
    shown = {k: v for k, v in said.items() if k in SHOWN or k in asked}
    if sigmas := shown.pop("sigmas", None):
        shown["sigma"] = f"{sigmas[0]:g}..{sigmas[-1]:g} ({len(sigmas)} listed)"
    if {"sigma_max", "sigma_min"} <= shown.keys():
        shown["sigma"] = f"{shown.pop('sigma_max'):g}..{shown.pop('sigma_min'):g}"
    details = " ".join(f"{k}={v}" if isinstance(v, str) else f"{k}={v:g}" for k, v in shown.items())
    return Setting(f"{complete.name} {details}", complete, table)


def _usual(card: ModelCard, known: bool) -> Iterator[Setting]:
    yield setting(usual(card, known), card, known)
    compared = bare(COMPARED)
    if type(compared) in offered(card, known):
        yield setting(compared, card, known)


def _budgeted(
    samplers: Sequence[SamplerSettings], evaluations: Sequence[int], card: ModelCard, known: bool
) -> Iterator[Setting]:
    for sampler in samplers or [bare(sampler.known_as()) for sampler in offered(card, known)]:
        for n in evaluations:
            try:
                yield setting(within(sampler, n, card, known), card, known)
            except SamplerRefused as error:
                if samplers:
                    raise SamplerRefused(
                        f"{sampler.name} with {n} evaluations: {error.field}", error.reason, error.allowed
                    ) from error
