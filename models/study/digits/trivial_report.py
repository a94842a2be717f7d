"""The pictures and the tables of the study of the trivial implementation."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from models.evaluation.figures import Figures
from models.study.digits.strips import Strip, strips_png
from models.study.digits.trivial import ALL, LARGE, SMALL, Asked, Found
from models.study.hyperparameters import diversity
from models.study.pictures import COLOURS, figure, panels, png
from models.study.report import Section, Table

SHOWN = 12  # images of a row


def sections(found: Found) -> list[Section]:
    """What the page shows, in its order."""
    rows = [Strip(f"{d.way.network},\n{d.way.sampler}", d.pixels[:SHOWN]) for d in found.drawn]
    samples = strips_png([*rows, Strip("training images", found.real[:SHOWN])])
    return [
        Section(
            "trivial-samples",
            "Samples of networks of one small level, one large level and all levels",
            samples,
            [networks_table(found), samples_table(found)],
        ),
        Section(
            "trivial-scores",
            "Errors of learnt scores against the noise of the points, and the size of scores against the noise level",
            scores_png(found),
            [errors_table(found), norms_table(found)],
        ),
    ]


def networks_table(found: Found) -> Table:
    """What was trained."""
    columns = ["network", "noise levels", "parameters", "training images seen"]
    rows = []
    for n in found.networks:
        levels = f"{n.sigmas[0]:g}" if len(n.sigmas) == 1 else f"{len(n.sigmas)}, {n.sigmas[0]:g} to {n.sigmas[-1]:g}"
        rows.append([n.name, levels, f"{n.parameters:,}", f"{n.seen:,}"])
    return Table(columns, rows)


def samples_table(found: Found) -> Table:
    """What the classifier makes of the samples."""
    columns = ["network", "sampler", "evaluations", "distance", "recognised", "recall", "classes, e^entropy"]
    rows = [[d.way.network, d.way.sampler, f"{len(d.way.table)}", *_judged(d.figures)] for d in found.drawn]
    return Table(columns, [*rows, ["real training images", "", "", *_judged(found.floor)]])


def errors_table(found: Found) -> Table:
    """Error and angle of each network's scores, by the noise of the points."""
    small, large = _levels(found)
    columns = [
        "noise of the points",
        f"{SMALL}, asked for it",
        f"{ALL}, asked for {small:g}",
        f"{LARGE}, asked for it",
        f"{ALL}, asked for the noise of the points",
    ]
    rows = []
    for noise in [*reversed(_all(found)), None]:
        cells = [found.at(SMALL, small, noise), found.at(ALL, small, noise), found.at(LARGE, large, noise)]
        own = "" if noise is None else _error(found.at(ALL, noise, noise))
        rows.append(["uniform" if noise is None else f"{noise:.3g}", *map(_error, cells), own])
    return Table(columns, rows)


def norms_table(found: Found) -> Table:
    """How large scores are at each level."""
    rows = [[f"{sigma:.3g}", f"{norm:.3g}", f"{norm * sigma:.2f}"] for sigma, norm in sorted(found.norms.items())]
    return Table(["sigma", "score of a pixel, root mean square", "times sigma"], rows)


def figures(found: Found) -> dict[str, Any]:
    """The numbers of the study, for a JSON file."""
    return {
        "samples": found.samples,
        "networks": [
            {"name": n.name, "sigmas": n.sigmas, "parameters": n.parameters, "seen": n.seen} for n in found.networks
        ],
        "errors": [asdict(a) for a in found.asked],
        "norms": [{"sigma": sigma, "score": norm} for sigma, norm in found.norms.items()],
        "numbers_that_never_change": found.still,
        "real": asdict(found.floor),
        "drawn": [
            {
                "network": d.way.network,
                "sampler": d.way.sampler,
                "evaluations": len(d.way.table),
                "diversity": diversity(d.figures.classes),
            }
            | asdict(d.figures)
            for d in found.drawn
        ],
    }


def scores_png(found: Found) -> bytes:
    """Errors against the noise of the points (left), and the size of the score against the noise level (right)."""
    drawn = figure(11, 4.3)
    left, right = panels(drawn, 1, 2)
    small, large = _levels(found)
    levels = _all(found)
    lines: list[tuple[str, list[Asked]]] = [
        (f"{SMALL}, {small:g}", [found.at(SMALL, small, noise) for noise in levels]),
        (f"{ALL}, asked for {small:g}", [found.at(ALL, small, noise) for noise in levels]),
        (f"{LARGE}, {large:g}", [found.at(LARGE, large, noise) for noise in levels]),
        (f"{ALL}, asked for the points' noise", [found.at(ALL, noise, noise) for noise in levels]),
    ]
    for (label, line), colour in zip(lines, COLOURS, strict=False):
        left.plot(levels, [a.error for a in line], color=colour, marker="o", markersize=4, label=label)
    left.axhline(1, color="0.4", linestyle=":", label="no score at all")
    left.set(xscale="log", yscale="log", xlabel="noise of the points", ylabel="|learnt - exact| / |exact|")
    left.legend(fontsize=8)
    sigmas = sorted(found.norms)
    right.plot(sigmas, [found.norms[s] for s in sigmas], color=COLOURS[3], marker="o", markersize=4, label="learnt")
    right.plot(sigmas, [1 / s for s in sigmas], color="0.4", linestyle=":", label=r"$1 / \sigma$, that of noise alone")
    right.set(xscale="log", yscale="log", xlabel=r"$\sigma$", ylabel="score of a pixel, root mean square")
    right.legend(fontsize=8)
    for panel in (left, right):
        panel.grid(visible=True, alpha=0.3)
    return png(drawn)


def _all(found: Found) -> Sequence[float]:
    """All levels, descending."""
    return found.networks[-1].sigmas


def _levels(found: Found) -> tuple[float, float]:
    """The small one and the large one."""
    return _all(found)[-1], _all(found)[0]


def _error(asked: Asked) -> str:
    return f"{asked.error:.2f}, {asked.angle:.0f}°"


def _judged(figures: Figures) -> list[str]:
    recognised = f"{figures.recognised:.1%} ± {figures.standard_error:.1%}"
    return [f"{figures.distance:.2f}", recognised, f"{figures.recall:.0%}", f"{diversity(figures.classes):.1f}"]
