"""Labels: which class each image of a request is of, how far it is led there, and every refusal. Torch-free.

Service and worker ask the same: what the service has made of a request means the same to a worker.
"""

from collections.abc import Sequence
from hashlib import blake2b

from models.card import ModelCard
from models.guidance import UNGUIDED, Guidance
from models.samplers.table import Table

MAX_NAMED = 20  # classes, in a refusal
MAX_DRAWN = 1000  # labels, after which they come again


class LabelRefused(ValueError):
    """A label, or guidance, that the model cannot follow.

    Args:
        field: what is at fault: label, labels, labels/3, guidance or guidance_interval.
        reason: what is wrong with it.
        allowed: what is allowed.
    """

    def __init__(self, field: str, reason: str, allowed: str) -> None:
        super().__init__(f"{field}: {reason}; allowed: {allowed}")
        self.field, self.reason, self.allowed = field, reason, allowed


def why_unguided(card: ModelCard) -> str | None:
    """Why images of a model cannot be guided, whatever their labels; None if they can."""
    if card.classes is None:
        return f"{card.name} knows no classes"
    if card.needs_label:
        return f"it compares with images of all classes, and {card.name} was never trained without a label"
    return None


def labels_of(label: int | str | None, labels: Sequence[int | str] | None, card: ModelCard) -> tuple[int, ...] | None:
    """The labels of images 0, 1 and so on, repeated; None for images of all classes.

    Where nothing is said, and the model needs a label, the images are of one class after another.

    Args:
        label: of all images, an index or a name. A text is a name first, and an index if no class has that name.
        labels: likewise, one an image; there is not both.
        card: of the model.

    Raises:
        LabelRefused: the model knows no such class.
    """
    if label is not None and labels is not None:
        raise LabelRefused("labels", "there is a label for all images besides", "label or labels, not both")
    if label is not None:
        return (_index("label", label, card),)
    if labels is not None:
        return tuple(_index(f"labels/{i}", said, card) for i, said in enumerate(labels))
    return tuple(range(len(card.classes or ()))) if card.needs_label else None


def classes_in_turn(card: ModelCard) -> tuple[int, ...] | None:
    """Labels of new images 0, 1 and so on that a study is of, repeated; None for images of all classes.

    One class after another, where images that a client asks for without a label are of one class each.
    """
    return tuple(range(len(card.classes or ()))) if card.needs_label or card.draws_labels else None


def drawn_labels(seed: int, count: int, classes: int) -> tuple[int, ...]:
    """Labels of images 0, 1 and so on of a seed, repeated: every `classes` of them are all classes, in an order drawn.

    The first are the same however many there are. They are drawn by a hash, which gives the same on all machines.

    Args:
        seed: of the images.
        count: of the images.
        classes: number of classes.
    """
    turns = -(-min(count, MAX_DRAWN) // classes)
    found = [label for turn in range(turns) for label in sorted(range(classes), key=lambda i: _lot(seed, turn, i))]
    return tuple(found[:count])


def weight_of(weight: float | None, labels: Sequence[int] | None, card: ModelCard, known: bool = False) -> float | None:
    """How far images are guided: as is asked for, else as the card has it for new ones with a label; None: not at all.

    1 stays where it differs from what the card has: what a job says of itself, asked for again, gives the same images.

    Args:
        weight: that is asked for; None if nothing is.
        labels: as `labels_of` returns them.
        card: of the model.
        known: whether something is known of the images.
    """
    usual = None if known or labels is None else card.guidance
    if weight is None:
        return usual
    return None if weight == 1 and usual is None else weight


def guidance_of(
    weight: float | None,
    interval: tuple[float, float] | None,
    labels: Sequence[int] | None,
    card: ModelCard,
    table: Table,
) -> Guidance:
    """How images are guided.

    Args:
        weight: of guidance; None is 1, which is none.
        interval: the lowest and the highest noise level that is guided; None guides all.
        labels: as `labels_of` returns them.
        card: of the model.
        table: of the sampler, which has a row in the interval.

    Raises:
        LabelRefused: the model cannot be guided, or not so.
    """
    if weight in (None, 1):
        if interval is not None:
            raise LabelRefused("guidance_interval", "there is no guidance that it could limit", "a guidance besides")
        return UNGUIDED
    if reason := why_unguided(card):
        raise LabelRefused("guidance", reason, "1, or nothing")
    if labels is None:
        reason = "it leads towards a class, and there is no label"
        raise LabelRefused("guidance", reason, f"1, or a label besides: {_known(card)}")
    if interval is None:
        return Guidance(weight)
    found = Guidance(weight, *interval)
    sigmas = table.column("sigma")
    if not found.guides(sigmas).any():
        raise LabelRefused(
            "guidance_interval",
            f"no noise level of the sampler is from {interval[0]:g} to {interval[1]:g}",
            f"the lower end first, around some of its levels, which are from {sigmas.min():g} to {sigmas.max():g}",
        )
    return found


def _lot(seed: int, turn: int, label: int) -> bytes:
    return blake2b(f"{seed} {turn} {label}".encode(), digest_size=8).digest()


def _index(field: str, said: int | str, card: ModelCard) -> int:
    classes = card.classes
    if classes is None:
        raise LabelRefused(field, f"{card.name} knows no classes", "no label")
    if isinstance(said, str) and said in classes:
        return classes.index(said)
    known = str(said)
    if known.isdecimal() and known.isascii() and int(known) < len(classes):
        return int(known)
    raise LabelRefused(field, f"{card.name} has no class {said!r}", _known(card))


def _known(card: ModelCard) -> str:
    """The classes of a model, in words."""
    classes = card.classes or ()
    if all(name == str(index) for index, name in enumerate(classes)):  # of digits
        return f"0 to {len(classes) - 1}"
    names = ", ".join(classes[:MAX_NAMED]) + (", ..." if len(classes) > MAX_NAMED else "")
    return f"0 to {len(classes) - 1}, or a name: {names}"
