"""From a published model to the same weights with other defaults. Torch-free."""

from datetime import UTC, datetime
from pathlib import Path

from models.card import ModelCard
from models.labels import LabelRefused, why_unguided
from models.plan import plan
from models.samplers.settings import SamplerSettings, bare
from models.store import ModelStore


def publish_with(
    store: ModelStore, main: ModelCard, sampler: SamplerSettings | None, guidance: float | None, command: str
) -> tuple[ModelCard, Path]:
    """Publishes the weights of `main` with other defaults as its next version; returns the card and its directory.

    What was measured and drawn with the earlier defaults is left behind.

    Args:
        store: holds the model, and takes the new version.
        main: the model.
        sampler: what runs when a request names none. What it leaves out is taken from the model's own settings of that
            sampler, as of a request. None leaves it as it is.
        guidance: how far new images with a label are led; 1 is not at all. None leaves it as it is.
        command: what the card says it was made with.

    Raises:
        SamplerRefused, LabelRefused: the model cannot follow them.
        ValueError: they are what the model has.
        ModelNotFound, BrokenModel: its weights are gone or damaged.
    """
    if guidance not in (None, 1) and (reason := why_unguided(main)):
        raise LabelRefused("guidance", reason, "1, or nothing")
    changed = _with_sampler(main, sampler) | ({} if guidance is None else {"guidance": _written(guidance)})
    changed = {name: value for name, value in changed.items() if value != getattr(main, name)}
    said = f"{main.name} version {main.version}"
    if not changed:
        raise ValueError(f"the defaults of {said} are these already: give others")
    what = " and ".join(name for name in ("sampler", "guidance") if name in changed)
    origin = {
        "name": main.name,
        "version": main.version,
        "what": f"the same weights with another default {what}",
        "command": command,
    }
    if earlier := main.provenance.get("weights_of"):
        origin["weights_of"] = earlier
    card = main.model_copy(
        update={
            **changed,
            "version": store.next_version(main.name),
            "created_at": datetime.now(UTC),
            "provenance": main.provenance | {"weights_of": origin},
            "metrics": {},
        }
    )
    return card, store.publish(card, store.weights(main), store.scores(main.name, main.version))


def _written(guidance: float) -> float | None:
    """A weight as a card has it."""
    return None if guidance == 1 else guidance


def _with_sampler(card: ModelCard, sampler: SamplerSettings | None) -> dict[str, object]:
    """The fields of a card that has another default sampler. A request that names another gets what it got before.

    Raises:
        SamplerRefused: the model cannot follow it.
    """
    if sampler is None:
        return {}
    plan(sampler, card)
    chosen = sampler.filled(card)
    others = [one for one in (card.sampler, *card.samplers) if one.name != chosen.name]
    return {"sampler": chosen, "samplers": tuple(one for one in others if one != bare(one.name))}
