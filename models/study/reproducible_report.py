"""The picture and the table of the study of reproducibility."""

import math
from dataclasses import asdict
from typing import Any

from models.study.pictures import COLOURS, figure, panels, png
from models.study.report import Section, Table
from models.study.reproducible import VARIANTS, Found

STYLES = {variant: (COLOURS[variant.ema], "-" if variant.denoise else "--") for variant in VARIANTS}


def sections(found: Found) -> list[Section]:
    """What the page shows."""
    columns = [
        "sampled from",
        "distance at the end",
        "± training seeds",
        "± sampling seeds",
        "change between checkpoints",
        "recognised",
    ]
    rows = []
    for variant in VARIANTS:
        s = found.spread(variant)
        spreads = map(_figure, (s.distance, s.training, s.sampling, s.checkpoints))
        rows.append([variant.label, *spreads, f"{s.recognised:.1%}"])
    rows.append(["real training images", _figure(found.floor.distance), "", "", "", f"{found.floor.recognised:.1%}"])
    caption = "Frechet distance and share recognised in the course of training"
    return [Section("reproducible", caption, reproducible_png(found), [Table(columns, rows)])]


def figures(found: Found) -> dict[str, Any]:
    """The numbers of the study, for a JSON file."""
    return {
        "classifier_test_accuracy": found.accuracy,
        "real": asdict(found.floor),
        "variants": [
            asdict(variant) | {name: _number(value) for name, value in asdict(found.spread(variant)).items()}
            for variant in VARIANTS
        ],
        "judged": [asdict(j) for j in found.judged],
    }


def reproducible_png(found: Found) -> bytes:
    """Distance (left) and share recognised (right) against training steps: means, and from the worst seed to the best.

    A training seed counts with its mean over sampling seeds.
    """
    drawn = figure(11, 4.5)
    left, right = panels(drawn, 1, 2)
    for axes, name, label in (
        (left, "distance", "Frechet distance in classifier features"),
        (right, "recognised", "share recognised"),
    ):
        for variant in VARIANTS:
            colour, line = STYLES[variant]
            by_seed = found.values(variant, name).mean(2)
            axes.plot(found.steps, by_seed.mean(0), line, color=colour, marker="o", markersize=4, label=variant.label)
            axes.fill_between(found.steps, by_seed.min(0), by_seed.max(0), color=colour, alpha=0.12, linewidth=0)
        real = getattr(found.floor, name)
        axes.axhline(real, color="0.4", linestyle=":", label="as many real training images")
        axes.set(xlabel="training step", ylabel=label)
        axes.grid(visible=True, alpha=0.3)
    left.set_yscale("log")
    right.set_ylim(0, 1.03)
    left.legend(fontsize=8)
    return png(drawn)


def _figure(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
