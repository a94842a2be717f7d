"""The picture and the table of the study of objectives."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from models.study import mixture
from models.study.objectives import NAMES, SHOWN, SIGMAS, Agreement, Learnt, density_on_square, exact_on_square
from models.study.pictures import figure, panels, png
from models.study.plane_report import FRAME, arrows, in_plane, on_square
from models.study.report import Section, Table


def sections(found: Sequence[Learnt]) -> list[Section]:
    """What the page shows."""
    columns = ["sigma", "objective", "from the exact score", "two seeds apart", "from networks of other objectives"]
    rows = []
    for sigma in SIGMAS:
        for name in NAMES:
            a = Agreement.of(name, found, sigma)
            rows.append([f"{in_plane(sigma):g}", name, f"{a.error:.3f}", f"{a.seeds:.3f}", f"{a.others:.3f}"])
    caption = f"The exact score at sigma = {in_plane(SHOWN):g}, and what three objectives learn of it"
    return [Section("objectives", caption, objectives_png(found), [Table(columns, rows)])]


def figures(found: Sequence[Learnt]) -> dict[str, Any]:
    """The numbers of the study, for a JSON file; lengths are in coordinates."""
    return {
        "networks": [
            {"objective": one.run.objective, "seed": one.run.seed, "sigma": in_plane(sigma), "error": one.error(sigma)}
            for one in found
            for sigma in SIGMAS
        ],
        "objectives": [
            {"objective": name, "sigma": in_plane(sigma)} | asdict(Agreement.of(name, found, sigma))
            for name in NAMES
            for sigma in SIGMAS
        ],
    }


def objectives_png(found: Sequence[Learnt]) -> bytes:
    """The exact score, and what each objective has learnt from the first seed, as arrows over the density."""
    first = {one.run.objective: one.on_square for one in reversed(found)}
    drawn = figure(10.5, 3)
    density = on_square(density_on_square())
    scores = [("score of the data", exact_on_square()), *((f"learnt, {name}", first[name]) for name in NAMES)]
    for panel, (title, of) in zip(panels(drawn, 1, len(scores), sharey=True), scores, strict=True):
        panel.imshow(density, cmap="Oranges", vmax=density.max() * 1.5, **FRAME)
        arrows(panel, of, mixture.spread(SHOWN))
        panel.set_title(title, fontsize=10)
    return png(drawn)
