"""`scoreserve study`: what the papers claim of score models, measured and drawn."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import fail
from cli.help.devices import Device
from cli.progress import StageProgress, say

if TYPE_CHECKING:
    from models.study.report import Section

Out = Annotated[Path, typer.Option(help="Directory of pictures and figures; tables go into the page OUT.md beside it.")]
Runs = Annotated[Path, typer.Option(help="Where networks and samples are kept, so that a study can go on.")]
Data = Annotated[
    Path, typer.Option(help="Labelled real images: the idx files of MNIST or of a data set in its format.")
]
Model = Annotated[str, typer.Option(help="The model; its newest version.")]
Store = Annotated[
    Path | None,
    typer.Option(help="Model store.", envvar="SCORESERVE_MODELS_DIR", show_default="the models that ship"),
]
RUNS = Path("runs/study")
ALONE = 1  # thread: a network of one pixel has nothing to share, and on a busy machine two are far slower


def plane(
    out: Out,
    runs: Runs = RUNS,
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
    with studying(out, device, ALONE) as studied:
        from models.study import plane_report  # noqa: PLC0415 (torch)
        from models.study.plane import study  # noqa: PLC0415

        found = study(runs, points, epochs, device, studied.show)
        studied.write("plane", plane_report.figures(found), plane_report.sections(found))


def objectives(
    out: Out,
    runs: Runs = RUNS,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the data of each training.", show_default="the preset's")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Do the exact, the sliced and the denoising objective learn the same scores of two Gaussians in the plane?

    Trains the network of the preset toy2d by each of them, from two seeds: some minutes on one CPU core.
    """
    with studying(out, device, ALONE) as studied:
        from models.study import objectives_report  # noqa: PLC0415 (torch)
        from models.study.objectives import study  # noqa: PLC0415

        found = study(runs, epochs, device, studied.show)
        studied.write("objectives", objectives_report.figures(found), objectives_report.sections(found))


def trivial(
    data: Data,
    out: Out,
    runs: Runs = RUNS,
    small: Annotated[float, typer.Option(help="The small noise level, of pixels in [0, 1].")] = 0.01,
    large: Annotated[float, typer.Option(help="The large one.")] = 1.0,
    levels: Annotated[int, typer.Option(min=2, help="How many from one to the other, for the network of all.")] = 10,
    epochs: Annotated[float, typer.Option(help="Passes over the data of each of the three trainings.")] = 0.5,
    samples: Annotated[int, typer.Option(min=10, help="Images of each network and sampler.")] = 200,
    steps_per_level: Annotated[
        int, typer.Option(min=1, help="Langevin steps at each level; at a single one as many as at all together.")
    ] = 20,
    device: Device = "cpu",
) -> None:
    """The trivial implementation: one small noise level alone, beside one large one and all between, and why it fails.

    Trains a small network three times. About three minutes on two CPU cores. Stopped and started again, it goes on.
    """
    with studying(out, device) as studied:
        from models.evaluation.classifier import CACHE  # noqa: PLC0415 (torch)
        from models.study.digits import trivial_report  # noqa: PLC0415
        from models.study.digits.trivial import Trivial  # noqa: PLC0415

        amount = Trivial(small, large, levels, epochs, samples, steps_per_level)
        found = amount.study(data, runs, CACHE, device, studied.show)
        studied.write("trivial", trivial_report.figures(found), trivial_report.sections(found))


def noise(
    data: Data,
    out: Out,
    model: Model = "mnist",
    store: Store = None,
    images: Annotated[int, typer.Option(min=10, help="Test images.")] = 500,
    levels: Annotated[int, typer.Option(min=2, help="Noise levels, over all of the model's range.")] = 10,
    device: Device = "cpu",
) -> None:
    """Noise at many magnitudes: what is left of a picture at each, and what a model still makes of it.

    Half a minute on two CPU cores for the model that ships.
    """
    with studying(out, device) as studied:
        from models.evaluation.classifier import CACHE  # noqa: PLC0415 (torch)
        from models.store import ZOO  # noqa: PLC0415
        from models.study.digits import noise_report  # noqa: PLC0415
        from models.study.digits.noise import study  # noqa: PLC0415

        found = study(model, store or ZOO, data, images, levels, CACHE, device, studied.show)
        studied.write("noise", noise_report.figures(found), noise_report.sections(found))


def filmstrip(
    data: Data,
    out: Out,
    model: Model = "mnist",
    store: Store = None,
    runs: Runs = RUNS,
    chains: Annotated[int, typer.Option(min=10, help="Chains.")] = 100,
    moments: Annotated[int, typer.Option(min=2, help="How often they are looked at.")] = 10,
    device: Device = "cpu",
) -> None:
    """Annealed Langevin dynamics on its way: what chains look like, and when it is decided where they end.

    As the model's card has it: a minute or two on two CPU cores for the model that ships. Stopped and started again, it
    goes on.
    """
    with studying(out, device) as studied:
        from models.evaluation.classifier import CACHE  # noqa: PLC0415 (torch)
        from models.store import ZOO  # noqa: PLC0415
        from models.study.digits import filmstrip_report  # noqa: PLC0415
        from models.study.digits.filmstrip import study  # noqa: PLC0415

        found = study(model, store or ZOO, data, chains, moments, runs, CACHE, device, studied.show)
        studied.write("filmstrip", filmstrip_report.figures(found), filmstrip_report.sections(found))


def reproducible(
    data: Data,
    out: Out,
    runs: Runs = RUNS,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings, each from its own seed.")] = 3,
    epochs: Annotated[float, typer.Option(help="Passes over the data of each training.")] = 0.75,
    checkpoints: Annotated[int, typer.Option(min=1, help="How often a training is judged.")] = 5,
    samples: Annotated[int, typer.Option(min=10, help="Images of each variant, checkpoint and sampling seed.")] = 200,
    sampling_seeds: Annotated[int, typer.Option(min=1, help="How often they are drawn.")] = 2,
    levels: Annotated[int, typer.Option(min=2, help="Noise levels of annealed Langevin dynamics.")] = 20,
    steps_per_level: Annotated[int, typer.Option(min=1, help="Langevin steps at each.")] = 5,
    device: Device = "cpu",
) -> None:
    """Reproducible? A small network trained from several seeds, with a moving average and without, denoised and not.

    About ten minutes on two CPU cores. Stopped and started again, it goes on.
    """
    with studying(out, device) as studied:
        from models.evaluation.classifier import CACHE  # noqa: PLC0415 (torch)
        from models.study import reproducible_report  # noqa: PLC0415
        from models.study.reproducible import Reproduction  # noqa: PLC0415

        reproduction = Reproduction(
            seeds, epochs, checkpoints, samples, sampling_seeds, levels=levels, steps_per_level=steps_per_level
        )
        found = reproduction.study(data, runs, CACHE, device, studied.show)
        studied.write("reproducible", reproducible_report.figures(found), reproducible_report.sections(found))


def hyperparameters(
    data: Data,
    out: Out,
    model: Model = "mnist",
    store: Store = None,
    runs: Runs = RUNS,
    samples: Annotated[int, typer.Option(min=10, help="Images of each setting.")] = 200,
    device: Device = "cpu",
) -> None:
    """Hyper-parameter insensitive? Annealed Langevin dynamics of one model, its parameters changed one at a time.

    Step size, steps per level, levels and first level, and the first two together: half a million image-steps, about
    twelve minutes on two CPU cores for the model that ships. Stopped and started again, it goes on.
    """
    with studying(out, device) as studied:
        from models.evaluation.classifier import CACHE  # noqa: PLC0415 (torch)
        from models.store import ZOO  # noqa: PLC0415
        from models.study import hyperparameters_report  # noqa: PLC0415
        from models.study.hyperparameters import study  # noqa: PLC0415

        found = study(model, store or ZOO, data, samples, runs, CACHE, device, studied.show)
        studied.write("hyperparameters", hyperparameters_report.figures(found), hyperparameters_report.sections(found))


@dataclass
class Studied:
    """A study on its way.

    Args:
        out: directory of its pictures and figures.
        machine: what it is measured on, and with which command.
        show: tells how far it is.
        paths: all that was written.
    """

    out: Path
    machine: dict[str, Any]
    show: Callable[[str, int, int], None]
    paths: list[Path] = field(default_factory=list)

    def write(self, name: str, figures: dict[str, Any], sections: "list[Section]") -> None:
        """Writes down what it has found: figures, pictures, and its sections of the page."""
        from models.study import report  # noqa: PLC0415

        numbers = {"environment": self.machine} | figures
        self.paths = report.write(self.out, name, numbers, sections, self.machine["command"])


@contextmanager
def studying(out: Path, device: str, threads: int | None = None) -> Iterator[Studied]:
    """Inside, work is shown, and what goes wrong ends the command with one clear line; in the end all paths are told.

    Args:
        out: directory of pictures and figures.
        device: torch device name.
        threads: that torch may use; None for as many as usual.
    """
    from models.study.pictures import need_matplotlib  # noqa: PLC0415

    progress = StageProgress()
    try:
        need_matplotlib()
        import torch  # noqa: PLC0415

        from models.environment import environment  # noqa: PLC0415

        if threads:
            torch.set_num_threads(threads)
        machine = environment(shlex.join(["scoreserve", *sys.argv[1:]]), device)
        yield (studied := Studied(out, machine, progress.show))
    except (LookupError, OSError, ValueError, TypeError, RuntimeError, AssertionError) as error:
        progress.stop()
        fail(" ".join(str(error).split()))
    except KeyboardInterrupt:
        progress.stop()
        fail("stopped; run the same command again to go on", code=130)
    progress.stop()
    for path in studied.paths:
        say(f"wrote {path}")
