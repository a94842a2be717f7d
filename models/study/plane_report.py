"""The pictures and the tables of the study of the plane."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.study import mixture
from models.study.pictures import COLOURS, figure, panels, png
from models.study.plane import SIDE, SQUARE, Ends, Plane, ScoreMap, square
from models.study.report import Section, Table

EVERY = 5  # of the points of the square, along a side, one in so many has an arrow
EDGE = 9.0  # of the pictures of points


def sections(found: Plane) -> list[Section]:
    """What the page shows, in its order."""
    scores = Table(
        ["network", "sigma", "mean error where the data are", "in the square", "astray by more than 45°"],
        [
            [m.network, f"{in_plane(m.sigma):g}", f"{m.at_data:.2f}", f"{m.error.mean():.2f}", f"{m.astray:.0%}"]
            for m in found.maps
        ],
    )
    noise = Table(
        ["", "evaluations", "spread around the mode"],
        [[e.method, evaluations(e), f"{e.spread:.2f}"] for e in found.noise],
    )
    annealing = Table(
        ["", "scores", "evaluations", "lower mode, upper mode", "far from both"],
        [
            [e.method, e.scores, evaluations(e), f"{1 - e.upper:.0%}, {e.upper:.0%}", f"{e.far:.1%}"]
            for e in found.annealing
        ],
    )
    return [
        Section("plane-scores", "Scores, learnt scores, and the error between them", scores_png(found.maps), [scores]),
        Section("plane-noise", "Chains that follow the scores, without noise and with it", noise_png(found), [noise]),
        Section("plane-annealing", "Langevin at one level and annealed", annealing_png(found), [annealing]),
    ]


def figures(found: Plane) -> dict[str, Any]:
    """The numbers of the study, for a JSON file; lengths are in coordinates."""
    return {
        "scores": [
            {
                "network": m.network,
                "sigma": in_plane(m.sigma),
                "error_at_data": m.at_data,
                "error_in_square": float(m.error.mean()),
                "astray": m.astray,
            }
            for m in found.maps
        ],
        "chains": [
            {
                "method": e.method,
                "scores": e.scores,
                "evaluations": e.evaluations,
                "points": len(e.points),
                "upper": e.upper,
                "spread": e.spread,
                "far": e.far,
            }
            for e in [found.noise[0], *found.annealing]
        ],
    }


def in_plane(sigma: float) -> float:
    """A noise level in coordinates."""
    return sigma * mixture.UNIT


def evaluations(ends: Ends) -> str:
    return f"{ends.evaluations}" if ends.evaluations else ""


def scores_png(maps: list[ScoreMap]) -> bytes:
    """A row for each map: exact scores and learnt ones as arrows over the density, and the error."""
    drawn = figure(11, 3.5 * len(maps))
    axes = panels(drawn, len(maps), 3, sharex=True, sharey=True)
    for row, found in enumerate(maps):
        exact, learnt, error = axes[3 * row : 3 * row + 3]
        sigma = rf"$\sigma$ = {in_plane(found.sigma):g}"
        density = on_square(mixture.log_density(square(), found.sigma).exp())
        for panel, scores, title in (
            (exact, found.exact, f"score of the data, {sigma}"),
            (learnt, found.learnt, f"learnt by the network of {found.network}"),
        ):
            panel.imshow(density, cmap="Oranges", vmax=density.max() * 1.5, **FRAME)
            arrows(panel, scores, mixture.spread(found.sigma))
            panel.set_title(title, fontsize=10)
        image = error.imshow(on_square(found.error), cmap="viridis", norm="log", vmin=0.01, vmax=10, **FRAME)
        error.set_title("error", fontsize=10)
        drawn.colorbar(image, ax=error, extend="both", shrink=0.85)
    return png(drawn)


def noise_png(found: Plane) -> bytes:
    """The starts, and where they lead without noise and with it, beside the data."""
    drawn = figure(12, 3.4)
    shown = [("the same starts", found.starts), *((e.method, e.points[: len(found.starts)]) for e in found.noise)]
    for panel, (title, points), colour in zip(panels(drawn, 1, 4), shown, ("0.5", *COLOURS[1::-1], "0.5"), strict=True):
        scatter(panel, points, title, colour)
    return png(drawn)


def annealing_png(found: Plane) -> bytes:
    """Where chains end by exact scores (above) and learnt ones (below), and how many at each mode."""
    drawn = figure(11, 7.2)
    axes = panels(drawn, 2, 3)
    *ends, data = found.annealing
    for panel, e, colour in zip([*axes[:2], *axes[3:5]], ends, COLOURS[:2] * 2, strict=True):
        scatter(panel, e.points, f"{e.method}, {e.scores} scores", colour)
    scatter(axes[2], data.points[: len(found.starts)], "data", "0.5")
    names = [f"{e.method},\n{e.scores}" for e in ends]
    axes[5].barh(names, [e.upper for e in ends], color=COLOURS[:2] * 2)
    axes[5].axvline(mixture.WEIGHTS[1], color="0.3", linestyle="--")
    axes[5].set(xlim=(0, 1), title="share at the upper mode; dashed: 4/5")
    axes[5].invert_yaxis()
    axes[5].title.set_fontsize(10)
    axes[5].tick_params(labelsize=8)
    return png(drawn)


FRAME: dict[str, Any] = {"origin": "lower", "extent": (-SQUARE, SQUARE, -SQUARE, SQUARE)}


def on_square(values: Tensor) -> "np.ndarray[Any, Any]":
    """Values [n] at the points of the square as rows from below."""
    return values.reshape(SIDE, SIDE).numpy()


def arrows(panel: Any, scores: Tensor, unit: float) -> None:
    """Scores [n, 2] of the square; the long ones shortened, for they are a hundred times as long as the short ones."""
    chosen = torch.arange(SIDE * SIDE).reshape(SIDE, SIDE)[::EVERY, ::EVERY].flatten()
    scaled = scores[chosen] * unit
    scaled = scaled / (1 + scaled.norm(dim=1, keepdim=True))
    panel.quiver(*square()[chosen].T.numpy(), *scaled.T.numpy(), angles="xy", scale=18, width=0.004, color="0.15")


def scatter(panel: Any, points: Tensor, title: str, colour: str) -> None:
    panel.scatter(*points.T.numpy(), s=3, color=colour, alpha=0.6, linewidths=0)
    panel.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), aspect="equal")
    panel.set_title(title, fontsize=10)
