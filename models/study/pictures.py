"""What the pictures of all studies have in common."""

import importlib.util
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Told apart by the colour-blind too (Okabe & Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


class NothingToDrawWith(RuntimeError):
    """matplotlib is not installed; the message says how to come by it."""


def need_matplotlib() -> None:
    """Raises before hours of work rather than after.

    Raises:
        NothingToDrawWith: it is absent.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise NothingToDrawWith("pictures are drawn by matplotlib, which is not here: pip install 'scoreserve[train]'")


def figure(width: float, height: float) -> "Figure":
    """An empty figure of that many inches."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (only the extra `train` brings it)

    return Figure(figsize=(width, height), layout="constrained")


def panels(drawn: "Figure", rows: int, columns: int, **options: Any) -> "Sequence[Any]":
    """Its axes, row by row."""
    return list(drawn.subplots(rows, columns, squeeze=False, **options).flat)


def png(drawn: "Figure") -> bytes:
    """It as a PNG file."""
    file = io.BytesIO()
    drawn.savefig(file, format="png", dpi=110)
    return file.getvalue()
