"""Which sampler settings are judged, and what they are called."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from models.card import ModelCard
from models.evaluation.budgets import within
from models.guidance import UNGUIDED, Guidance
from models.labels import guidance_of
from models.plan import offered, plan, usual
from models.samplers import COMPARED
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
        labels: the classes of samples 0, 1 and so on, repeated; None for no class in particular.
        guidance: towards them.
    """

    label: str
    sampler: SamplerSettings
    table: Table
    labels: tuple[int, ...] | None = None
    guidance: Guidance = UNGUIDED

    @property
    def image_steps(self) -> int:
        """Network evaluations an image."""
        return self.guidance.image_steps(self.table)


@dataclass(frozen=True)
class Told:
    """What samples are told of classes besides the sampler.

    Args:
        labels: as of a Setting.
        weight: of guidance.
        interval: the lowest and the highest noise level that is guided; None for all.
    """

    labels: tuple[int, ...] | None = None
    weight: float = 1.0
    interval: tuple[float, float] | None = None

    def to(self, setting: Setting, card: ModelCard) -> Setting:
        """A setting whose samples are told so.

        Raises:
            LabelRefused: the model cannot be guided so.
        """
        if self.labels is None and self.weight == 1:
            return setting
        interval = None if self.weight == 1 else self.interval  # of the other weights
        guidance = guidance_of(self.weight, interval, self.labels, card, setting.table)
        label = f"{setting.label} by class" if self.weight == 1 else f"{setting.label} guidance={self.weight:g}"
        if interval is not None:
            label += f" at {interval[1]:g}..{interval[0]:g}"
        return replace(setting, label=label, labels=self.labels, guidance=guidance)


NOTHING = Told()


def settings_of(
    samplers: Sequence[SamplerSettings],
    evaluations: Sequence[int],
    card: ModelCard,
    known: bool = False,
    told: Sequence[Told] = (NOTHING,),
) -> list[Setting]:
    """Each sampler with each number of evaluations, told each of `told`; none twice.

    Without samplers: with `evaluations` all that the model can follow, else the model's own and, if the model can
    follow it, that by which models are compared.

    Args:
        samplers: that are asked for.
        evaluations: that each may spend.
        card: of the model.
        known: whether something is known of the images.
        told: what is said of their classes.

    Raises:
        SamplerRefused: the model cannot follow one that was asked for, or not with so few evaluations.
        LabelRefused: it cannot be guided so.
    """
    found: dict[object, Setting] = {}
    for one in told:
        if evaluations:
            wanted = _budgeted(samplers, evaluations, card, known, one)
        elif samplers:
            wanted = (one.to(setting(sampler, card, known), card) for sampler in samplers)
        else:
            wanted = (one.to(usually, card) for usually in _usual(card, known))
        found |= {(s.table.rows.tobytes(), s.labels, s.guidance): s for s in wanted}
    return list(found.values())


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
    samplers: Sequence[SamplerSettings], evaluations: Sequence[int], card: ModelCard, known: bool, told: Told
) -> Iterator[Setting]:
    for sampler in samplers or [bare(sampler.known_as()) for sampler in offered(card, known)]:
        for n in evaluations:
            try:
                yield _within(sampler, n, card, known, told)
            except SamplerRefused as error:
                if samplers:
                    raise SamplerRefused(
                        f"{sampler.name} with {n} evaluations: {error.field}", error.reason, error.allowed
                    ) from error


def _within(sampler: SamplerSettings, evaluations: int, card: ModelCard, known: bool, told: Told) -> Setting:
    """As many rows as the evaluations allow, of which those that are guided take two."""
    for rows in range(evaluations, 0, -1):
        found = told.to(setting(within(sampler, rows, card, known), card, known), card)
        if found.image_steps <= evaluations:
            return found
    raise SamplerRefused("levels", f"a guided row takes 2 evaluations, not {evaluations}", "at least 2")
