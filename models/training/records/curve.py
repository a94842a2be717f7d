"""The loss of a run as a picture."""

import importlib.util
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

POINTS = 500


def smoothed(losses: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and mean losses of at most POINTS stretches of the run, all equally long but for the last."""
    values = np.asarray(losses, dtype=np.float64)
    starts = np.arange(0, len(values), -(-len(values) // POINTS))
    ends = np.append(starts[1:], len(values))
    return ends.astype(np.float64), np.add.reduceat(values, starts) / (ends - starts)


def loss_png(losses: Sequence[float]) -> bytes | None:
    """The loss over the steps as a PNG file, both axes logarithmic where the loss is above 0; None without matplotlib.

    Args:
        losses: of every step, at least one.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure  # noqa: PLC0415 (only the extra `train` brings it)

    steps, means = smoothed(losses)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, means, linewidth=1)
    axes.set(xlabel="step", ylabel="loss", xscale="log", yscale="log" if means.min() > 0 else "linear")
    axes.grid(visible=True, which="both", alpha=0.3)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
