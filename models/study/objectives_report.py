"""The picture and the table of the study of objectives."""

from collections.abc import Sequence
from typing import Any

from models.study import mixture
from models.study.objectives import EXACT, SHOWN, SIGMAS, Learnt, Run, density_on_square, exact_on_square
from models.study.pictures import figure, panels, png
from models.study.plane_report import FRAME, arrows, in_plane, on_square
from models.study.report import Section, Table


def sections(found: Sequence[Learnt]) -> list[Section]:
    """What the page shows."""
    levels = [f"{in_plane(sigma):g}" for sigma in SIGMAS]
    first = _first(found)
    rows = []
    for one in found:
        errors = [f"{one.error(sigma):.3f}" for sigma in SIGMAS]
        apart = ["" if one is first else f"{one.apart(first, sigma):.3f}" for sigma in SIGMAS]
        rows.append([named(one.run), *errors, *apart])
    of_exact, of_first = "from the exact score, sigma = ", "from the first network, sigma = "
    columns = ["objective", *(f"{of_exact}{level}" for level in levels), *(f"{of_first}{level}" for level in levels)]
    caption = f"The exact score at sigma = {in_plane(SHOWN):g}, and what three objectives learn of it"
    return [Section("objectives", caption, objectives_png(found), [Table(columns, rows)])]


def figures(found: Sequence[Learnt]) -> dict[str, Any]:
    """The numbers of the study, for a JSON file; lengths are in coordinates."""
    first = _first(found)
    return {
        "learnt": [
            {
                "objective": one.run.objective,
                "seed": one.run.seed,
                "levels": [
                    {"sigma": in_plane(sigma), "error": one.error(sigma), "from_the_first": one.apart(first, sigma)}
                    for sigma in SIGMAS
                ],
            }
            for one in found
        ]
    }


def named(run: Run) -> str:
    """A training in a table."""
    return f"{run.objective}, another seed" if run.seed else run.objective


def objectives_png(found: Sequence[Learnt]) -> bytes:
    """The exact score and what each objective has learnt from the first seed, as arrows over the density."""
    shown = [one for one in found if one.run.seed == EXACT.seed]
    drawn = figure(3 * (len(shown) + 1), 3.3)
    density = on_square(density_on_square())
    scores = [("score of the data", exact_on_square()), *((named(one.run), one.on_square) for one in shown)]
    for panel, (title, of) in zip(panels(drawn, 1, len(scores), sharey=True), scores, strict=True):
        panel.imshow(density, cmap="Oranges", vmax=density.max() * 1.5, **FRAME)
        arrows(panel, of, mixture.spread(SHOWN))
        panel.set_title(title, fontsize=10)
    return png(drawn)


def _first(found: Sequence[Learnt]) -> Learnt:
    """The one that the others are held against."""
    return next(one for one in found if one.run == EXACT)
