"""Samples that are points in the plane as a picture: a grid of images of one pixel would show nothing."""

import importlib.util
import io

import torch
from torch import Tensor

from models.images import Pixels
from models.training.data.toy import SPAN, to_points

POINTS = 1000  # drawn of each


def points_png(samples: Pixels, data: Tensor) -> bytes | None:
    """A scatter plot of samples over the data as a PNG file; None without matplotlib.

    Args:
        samples: points as images uint8 [n, 1, 1, 2], as `sample` gives them.
        data: the training data, uint8 [m, 2, 1, 1].
    """
    if importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure  # noqa: PLC0415 (only the extra `train` brings it)

    drawn = torch.from_numpy(samples[:POINTS].copy()).permute(0, 3, 1, 2)
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for points, label, colour in ((data[:POINTS], "data", "0.75"), (drawn, "samples", "C0")):
        x, y = to_points(points).T.numpy()
        axes.scatter(x, y, s=4, color=colour, label=label)
    axes.set(xlim=(-SPAN, SPAN), ylim=(-SPAN, SPAN), aspect="equal")
    axes.legend(loc="upper left")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
