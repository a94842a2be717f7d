"""`scoreserve study`: what the papers claim of score models, measured and drawn."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from cli.console import fail
from cli.progress import StageProgress, say

Out = Annotated[Path, typer.Option(help="Directory of pictures and figures; tables go into the page OUT.md beside it.")]
Device = Annotated[str, typer.Option(help="torch device, such as cpu or cuda.")]
Runs = Annotated[Path, typer.Option(help="Where networks and samples are kept, so that a study can go on.")]


def plane(
    out: Out,
    runs: Runs = Path("runs/study"),
    points: Annotated[int, typer.Option(min=2, help="Chains of every sampler.")] = 1000,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the data, in training.", show_default="the preset's")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Two Gaussians in the plane: where scores are wrong, what noise is for, and what annealing is for.

    Trains the preset toy2d at one noise level and at many, and draws again the pictures of Song & Ermon 2019, section
    3: some minutes on one CPU core.
    """
    with studying() as progress:
        import torch  # noqa: PLC0415

        from models.study import plane_report, report  # noqa: PLC0415 (torch)
        from models.study.plane import study  # noqa: PLC0415

        torch.set_num_threads(1)  # a network of one pixel has nothing to share: on a busy machine two are far slower
        found = study(runs, points, epochs, device, progress.show)
        paths = report.write(out, "plane", command(), plane_report.figures(found), plane_report.sections(found))
    wrote(paths)


@contextmanager
def studying() -> Iterator[StageProgress]:
    """Inside, work is shown, and what goes wrong ends the command with one clear line."""
    from models.study.pictures import need_matplotlib  # noqa: PLC0415
    from models.training.job import one_line  # noqa: PLC0415 (torch)

    progress = StageProgress()
    try:
        need_matplotlib()
        yield progress
    except (LookupError, OSError, ValueError, TypeError, RuntimeError, AssertionError) as error:
        progress.stop()
        fail(one_line(error))
    except KeyboardInterrupt:
        progress.stop()
        fail("stopped; run the same command again to go on", code=130)
    progress.stop()


def command() -> str:
    """The command line as it was given."""
    return shlex.join(["scoreserve", *sys.argv[1:]])


def wrote(paths: list[Path]) -> None:
    for path in paths:
        say(f"wrote {path}")
