"""The picture and the tables of the study of hyper-parameters."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from models.study.hyperparameters import BASE, LINES, STEP_FACTORS, STEPS, Found, Judged, diversity, extremes
from models.study.pictures import COLOURS, figure, panels, png
from models.study.report import Section, Table

LABELS = {
    "step_factor": "step size, in parts of technique 4's",
    "steps": "steps per level T",
    "levels": "levels L",
    "sigma_max": r"first level $\sigma_1$",
}
NAMES = {"step_factor": "step size (factor)", "steps": "T", "levels": "L", "sigma_max": "sigma_1"}


def sections(found: Found) -> list[Section]:
    """What the page shows."""
    caption = f"{found.model}: distance, share recognised and recall against four parameters of annealed Langevin"
    tables = [lines_table(found), plane_table(found), extremes_table(found)]
    return [Section("hyperparameters", caption, hyperparameters_png(found), tables)]


def lines_table(found: Found) -> Table:
    """Every point where one parameter alone changes."""
    columns = ["parameter", "value", "evaluations", "distance", "recognised", "recall", "classes, e^entropy"]
    rows = [
        [
            NAMES[parameter],
            f"{getattr(j.point, parameter):g}{' (base)' * (j.point == BASE)}",
            f"{j.evaluations}",
            f"{j.figures.distance:.2f}",
            f"{j.figures.recognised:.1%} ± {j.figures.standard_error:.1%}",
            f"{j.figures.recall:.0%}",
            f"{diversity(j.figures.classes):.1f}",
        ]
        for parameter in LINES
        for j in found.line(parameter)
    ]
    floor = found.floor
    real = f"{floor.recognised:.1%} ± {floor.standard_error:.1%}"
    rows.append(
        [
            "real training images",
            "",
            "",
            f"{floor.distance:.2f}",
            real,
            f"{floor.recall:.0%}",
            f"{diversity(floor.classes):.1f}",
        ]
    )
    return Table(columns, rows)


def plane_table(found: Found) -> Table:
    """The distance by steps a level (down) and step size (across)."""
    rows = []
    for steps in STEPS:
        known = {j.point.step_factor: f"{j.figures.distance:.2f}" for j in found.plane(steps)}
        rows.append([f"{steps}", *(known.get(factor, "diverges") for factor in STEP_FACTORS)])
    return Table(["T, and distance at step size (factor)", *(f"{factor:g}" for factor in STEP_FACTORS)], rows)


def extremes_table(found: Found) -> Table:
    """How much each parameter matters: its best and its worst value."""
    rows = []
    for parameter in LINES:
        if line := found.line(parameter):
            best, worst = extremes(line)
            cells = [f"{getattr(j.point, parameter):g}: {j.figures.distance:.2f}" for j in (best, worst)]
            rows.append([NAMES[parameter], *cells, f"{worst.figures.distance / best.figures.distance:.1f}"])
    return Table(["parameter", "best value: distance", "worst", "worst / best"], rows)


def figures(found: Found) -> dict[str, Any]:
    """The numbers of the study, for a JSON file."""
    return {
        "model": found.model,
        "samples": found.samples,
        "base": asdict(BASE),
        "real": asdict(found.floor),
        "judged": [
            asdict(j.point)
            | {"step_size": j.step_size, "evaluations": j.evaluations, "diversity": diversity(j.figures.classes)}
            | asdict(j.figures)
            for j in found.judged.values()
        ],
        "refused": [asdict(point) | {"reason": reason} for point, reason in found.refused.items()],
    }


def hyperparameters_png(found: Found) -> bytes:
    """A column for each parameter: the distance above, the share recognised and the recall below.

    The step size has a line for each number of steps a level.
    """
    drawn = figure(13, 6.5)
    axes = panels(drawn, 2, len(LINES), sharex="col", sharey="row")
    for column, parameter in enumerate(LINES):
        above, below = axes[column], axes[column + len(LINES)]
        if parameter == "step_factor":
            for steps, colour in zip(STEPS, (COLOURS[2], COLOURS[3], COLOURS[0], COLOURS[4]), strict=True):
                line(above, parameter, found.plane(steps), "distance", colour, f"T = {steps}")
        else:
            line(above, parameter, found.line(parameter), "distance", COLOURS[0], "")
        above.axhline(found.floor.distance, color="0.4", linestyle=":", label="real training images")
        line(below, parameter, found.line(parameter), "recognised", COLOURS[0], "recognised")
        line(below, parameter, found.line(parameter), "recall", COLOURS[1], "recall")
        above.set(xscale="log", yscale="log")
        below.set(xlabel=LABELS[parameter], ylim=(0, 1.03))
        ticks = sorted({getattr(point, parameter) for point in LINES[parameter]})
        below.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        below.minorticks_off()
        for panel in (above, below):
            panel.axvline(getattr(BASE, parameter), color="0.8", zorder=0)
            panel.grid(visible=True, alpha=0.3)
    axes[0].set_ylabel("Frechet distance in classifier features")
    axes[len(LINES)].set_ylabel("share")
    axes[0].legend(fontsize=8)
    axes[len(LINES)].legend(fontsize=8)
    return png(drawn)


def line(panel: Any, parameter: str, points: Sequence[Judged], name: str, colour: str, label: str) -> None:
    """One figure, by its name, along one parameter."""
    x = [getattr(j.point, parameter) for j in points]
    y = [getattr(j.figures, name) for j in points]
    panel.plot(x, y, color=colour, marker="o", markersize=4, label=label)
