"""The quality of samples against what they cost, as a picture."""

import importlib.util
import io
from typing import TYPE_CHECKING

from models.evaluation.record import Entry, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito 2008, which the colour-blind tell apart; markers besides, for print in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
MARKERS = "osD^vPX*"


def quality_png(record: Record) -> bytes | None:
    """Frechet distance and share recognised against network evaluations an image, as a PNG: a line for each sampler and
    what it is told of classes.

    The distances are those of equal numbers of samples; a hollow marker is an entry that has more of them. None without
    matplotlib.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure  # noqa: PLC0415 (only the extra `train` brings it)
    from matplotlib.ticker import LogFormatter, PercentFormatter  # noqa: PLC0415

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    distances, shares = figure.subplots(1, 2)
    for i, name in enumerate(sorted({entry.line for entry in record.entries})):
        entries = sorted((e for e in record.entries if e.line == name), key=lambda e: e.evaluations)
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        known = [(e, e.compared) for e in entries if e.compared is not None]
        _line(distances, known, record.compared, name, colour, marker)
        _line(shares, [(e, e.figures.recognised) for e in entries], record.compared, name, colour, marker)
        for entry in entries:
            error = entry.figures.standard_error
            shares.errorbar(entry.evaluations, entry.figures.recognised, error, color=colour, linewidth=1)
    if floor := record.floor(record.compared):
        label = f"{floor.images:,} real training images"
        distances.axhline(floor.figures.distance, color="0.3", linestyle="--", label=label)
    shares.axhline(record.judge.test_recognised, color="0.3", linestyle="--", label="real test images")
    subject = f"{record.subject.name} version {record.subject.version}"
    distances.set(
        title=f"{subject}, {record.compared:,} samples of each setting",
        ylabel="Frechet distance in classifier features",
        yscale="log",
    )
    shares.set(title=f"{subject}, all samples", ylabel=f"recognised with p > {record.judge.confident:g}")
    shares.yaxis.set_major_formatter(PercentFormatter(1))
    for axes in (distances, shares):
        if any(entry.count > record.compared for entry in record.entries):
            axes.plot([], [], "o", color="0.3", markerfacecolor="white", label="has more samples")
        axes.set(xlabel="network evaluations an image", xscale="log")
        axes.xaxis.set_major_formatter(LogFormatter())  # 100, not 10^2
        axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.4)))
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend(fontsize="small")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _line(axes: "Axes", points: list[tuple[Entry, float]], compared: int, label: str, colour: str, marker: str) -> None:
    """One sampler: a line through its settings, hollow at those that have more samples than are compared."""
    xs, ys = [entry.evaluations for entry, _ in points], [y for _, y in points]
    axes.plot(xs, ys, label=label, color=colour, marker=marker, linewidth=1.5)
    for entry, y in points:
        if entry.count > compared:
            axes.plot(entry.evaluations, y, color=colour, marker=marker, markerfacecolor="white", linestyle="none")
