"""`scoreserve evaluate`: how good a model's samples are."""

import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from cli.console import fail
from cli.help.devices import Device
from cli.progress import StageProgress, say

if TYPE_CHECKING:
    from models.evaluation.bench import Progress
    from models.evaluation.figures import ByClass, Figures
    from models.evaluation.record import Entry, Record
    from models.evaluation.restoration import Restorations
    from models.samplers.settings import SamplerSettings

T = TypeVar("T")
WIDTH = 200  # of a table that goes into a file


def evaluate(
    model: Annotated[str, typer.Argument(help="The model; its newest version.")],
    data: Annotated[
        Path, typer.Option(help="Labelled real images: idx files of MNIST's format, or CIFAR-10 (batches or npz).")
    ],
    sampler: Annotated[
        list[str] | None,
        typer.Option(
            help="A sampler's name, or its settings as JSON; may be repeated.",
            show_default="the model's own and one for comparison; with --evaluations all",
        ),
    ] = None,
    evaluations: Annotated[
        list[str] | None,
        typer.Option(
            help="Network evaluations an image that each sampler may spend, such as 20,35,100; may be repeated."
        ),
    ] = None,
    labels: Annotated[
        bool,
        typer.Option(help="Of a model with classes: samples of one class after another, or of none in particular."),
    ] = True,
    guidance: Annotated[
        list[str] | None,
        typer.Option(
            help="How far samples are led to their class, such as 1,1.5,2; may be repeated. By default as the card has "
            "it.",
            metavar="<weight>",
        ),
    ] = None,
    guidance_interval: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="<sigma> <sigma>", help="The lowest and the highest noise level that is guided."),
    ] = None,
    count: Annotated[int, typer.Option(min=10, help="Samples of each setting.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples.")] = 0,
    store: Annotated[
        Path | None,
        typer.Option(help="Model store.", envvar="SCORESERVE_MODELS_DIR", show_default="the models that ship"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory of samples, figures and pictures.", show_default="runs/evaluate/MODEL-VERSION"),
    ] = None,
    device: Device = "cpu",
    execution: Annotated[
        str | None,
        typer.Option(
            help="How the network is run, such as 'channels_last bfloat16'.",
            show_default="as the model's card says, or eager float32",
        ),
    ] = None,
    inception_weights: Annotated[
        Path | None,
        typer.Option(help="Weights of torch-fidelity's Inception, for FID and Inception score; needs the extra fid."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Directory that keeps classifiers.", show_default="~/.cache/scoreserve")
    ] = None,
    into_card: Annotated[bool, typer.Option("--into-card", help="Write what is found into the model's card.")] = False,
    restore: Annotated[
        bool,
        typer.Option("--restore", help="Judge completions of real test images instead: under masks, and enlarged."),
    ] = False,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="With --restore: what is judged, such as 'right half'; may be repeated.",
            show_default="all that fit the model's images",
        ),
    ] = None,
) -> None:
    """Measure how good a model's samples are, and how much each sampler spends on them.

    A classifier of the real images, trained at the first use and then kept, judges samples beside as many real ones:
    Frechet distance in its features, precision and recall, the share it recognises, and the balance of classes; and the
    nearest training images show whether samples are copies. Of a model with classes it tells too how many samples it
    names as they were asked for, and the distance of each class. --out collects the figures of all runs, with pictures.
    Samples are kept: stopped and started again it goes on, and with a larger --count it draws only what is missing.
    """
    samplers = [sampler_of(text) for text in sampler or []]
    budgets = [_budget(text) for texts in evaluations or [] for text in texts.split(",")]
    weights = [weight_of(text) for texts in guidance or [] for text in texts.split(",")]
    if restore:
        if into_card or inception_weights or weights or execution:
            fail("--restore goes without --into-card, --inception-weights, --guidance and --execution", code=2)
    elif task:
        fail("--task goes with --restore", code=2)
    from models.evaluation.evaluation import Evaluation  # noqa: PLC0415 (torch)
    from models.evaluation.restoration import Restoration  # noqa: PLC0415
    from models.store import ZOO  # noqa: PLC0415

    if restore:
        restoration = Restoration(
            model=model,
            data=data,
            store=store or ZOO,
            samplers=tuple(samplers),
            evaluations=tuple(budgets),
            tasks=tuple(task or []),
            count=count,
            seed=seed,
            out=out,
            device=device,
            **({"cache": cache} if cache else {}),
            command=shlex.join(["scoreserve", *sys.argv[1:]]),
        )
        _tell_restored(*_run(restoration.run, "stopped"))
        return
    evaluation = Evaluation(
        model=model,
        data=data,
        store=store or ZOO,
        samplers=tuple(samplers),
        evaluations=tuple(budgets),
        labelled=labels,
        guidance=tuple(weights),
        guidance_interval=guidance_interval,
        count=count,
        seed=seed,
        out=out,
        device=device,
        execution=_execution(execution),
        inception_weights=inception_weights,
        into_card=into_card,
        **({"cache": cache} if cache else {}),
        command=shlex.join(["scoreserve", *sys.argv[1:]]),
    )
    _tell(*_run(evaluation.run, "stopped; run the same command again to go on"))


def _run(run: Callable[["Progress"], tuple[T, Path]], stopped: str) -> tuple[T, Path]:
    """What a run finds, and where it is; shown on its way, and one clear line if it does not come to its end."""
    from models.evaluation.evaluation import EvaluationFailed  # noqa: PLC0415 (torch)

    progress = StageProgress()
    try:
        found = run(progress.show)
    except EvaluationFailed as error:
        progress.stop()
        fail(str(error))
    except KeyboardInterrupt:
        progress.stop()
        fail(stopped, code=130)
    progress.stop()
    return found


def _tell(record: "Record", directory: Path) -> None:
    from models.environment import describe  # noqa: PLC0415 (torch)

    _print(table(record))
    for line in notes(record):
        say(line)
    say(describe(record.environment))
    say(f"figures and pictures are in {directory}")
    if not (directory / "quality.png").exists():
        say("quality.png needs matplotlib: install scoreserve[train]")


def _tell_restored(found: "Restorations", directory: Path) -> None:
    _print(restored_table(found))
    real = f"{found.real_same:.1%} are named rightly, {found.real_recognised:.1%} recognised"
    say(f"of the {found.count} originals {real}; * marks what runs when a request names no sampler")
    say(f"figures and pictures are in {directory}")


def _print(found: Table) -> None:
    """On standard output, in lines that are long enough where that is a file."""
    out = Console(highlight=False)
    (out if out.is_terminal else Console(width=WIDTH, highlight=False)).print(found)


def restored_table(found: "Restorations") -> Table:
    """All tasks and settings of a run; * marks what runs when a request names no sampler."""
    out = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    columns = ["task", "sampler", "evaluations", "same class", "recognised", "distance"]
    columns += ["off", "best", "diversity", "jump", "seconds"]
    for i, column in enumerate(columns):
        out.add_column(column, justify="right" if i > 1 else "left", overflow="fold")
    for entry in found.entries:
        jump = "" if entry.jump is None else f"{entry.jump:.2f}"
        of_classes = [f"{entry.same:.1%}", f"{entry.recognised:.1%}", f"{entry.distance:.2f}"]
        of_pixels = [f"{entry.off:.3f}", f"{entry.best:.3f}", f"{entry.diversity:.3f}", jump]
        label = f"{entry.label}{' *' * entry.usual}"
        out.add_row(entry.task, label, str(entry.evaluations), *of_classes, *of_pixels, f"{entry.seconds:.3f}")
    return out


def table(record: "Record") -> Table:
    """All entries of a record, and what real images come to."""
    out = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    several = len({entry.count for entry in record.entries}) > 1
    inception = any(entry.inception for entry in record.entries)
    columns = ["sampler", "evaluations", "samples", "distance"]
    columns += [f"distance of {record.compared:,}"] * several
    by_class = any(entry.by_class for entry in record.entries)
    columns += ["precision", "recall", "recognised", "smallest class", "largest class"]
    columns += ["named as asked", "nearest class", "farthest class"] * by_class
    columns += ["nearest", "image-steps/s"]
    columns += ["FID", "Inception score"] * inception
    for i, column in enumerate(columns):
        out.add_column(column, justify="right" if i else "left", overflow="fold")
    for entry in record.entries:
        count = f"{entry.count:,}{' *' * (entry.count != record.compared)}"
        compared = "gone" if entry.compared is None else f"{entry.compared:.3f}"
        cells = [*_cells(entry.figures, [compared] * several), *_of_classes(entry.by_class) * by_class]
        near = f"{entry.copying.samples:.2f}" + ("" if entry.copying.ratio is None else f" ({entry.copying.ratio:.2f})")
        tail = [near, f"{entry.image_steps_per_second:.0f}", *_inception(entry) * inception]
        out.add_row(entry.label, str(entry.evaluations), count, *cells, *tail)
    for floor in record.floors:
        compared = f"{floor.figures.distance:.3f}" if floor.count == record.compared else ""
        cells = [*_cells(floor.figures, [compared] * several), *_of_classes(floor.by_class) * by_class]
        out.add_row("real training images", "", f"{floor.images:,}", *cells)
    judge = record.judge
    test = ["0", *[""] * several, "", "", f"{judge.test_recognised:.1%}", *_classes(judge.test_classes)]
    out.add_row("real test images", "", f"{record.subject.test_images:,}", *test)
    return out


def notes(record: "Record") -> list[str]:
    """What is to be known beside the table, a line each."""
    from models.evaluation.inception import USUAL  # noqa: PLC0415 (torch)

    judge = record.judge
    lines = [
        f"the classifier names {judge.test_accuracy:.2%} of the real test images rightly; `recognised` is p > "
        f"{judge.confident:g}; `distance` is a Frechet distance in its features, comparable with no FID"
    ]
    if any(entry.count != record.compared for entry in record.entries):
        lines.append("* has more samples than the fewest: compare `distance` of equal numbers alone")
    for entry in record.entries:
        if entry.by_class:
            told = ("few" if distance is None else f"{distance:.3f}" for distance in entry.by_class.distances)
            lines.append(f"{entry.label}: distances of the classes, each to real test images of it: {', '.join(told)}")
    lines.append(
        "`nearest` is the median pixel distance from a sample to its nearest training image, and that over the same of "
        "real test images: copies would be far below 1"
    )
    for count in sorted({entry.inception.images for entry in record.entries if entry.inception}):
        few = "" if count >= USUAL else f": it needs {USUAL:,}, and is larger of fewer"
        lines.append(f"FID to all training images, of {count:,} samples{few}")
    return lines


def _cells(figures: "Figures", compared: list[str]) -> list[str]:
    return [
        f"{figures.distance:.3f}",
        *compared,
        f"{figures.precision:.1%}",
        f"{figures.recall:.1%}",
        f"{figures.recognised:.1%} ± {figures.standard_error:.1%}",
        *_classes(figures.classes),
    ]


def _classes(shares: list[float]) -> list[str]:
    return [f"{share:.1%} ({shares.index(share)})" for share in (min(shares), max(shares))]


def _of_classes(found: "ByClass | None") -> list[str]:
    """Share that is named as it was asked for, and the distances of the classes that are nearest and farthest."""
    if found is None:
        return ["", "", ""]
    known = [(distance, label) for label, distance in enumerate(found.distances) if distance is not None]
    ends = [f"{distance:.3f} ({label})" for distance, label in (min(known), max(known))] if known else ["", ""]
    return [f"{found.accuracy:.1%} ± {found.standard_error:.1%}", *ends]


def _inception(entry: "Entry") -> list[str]:
    found = entry.inception
    return [f"{found.fid:.2f}", f"{found.score:.2f} ± {found.score_deviation:.2f}"] if found else ["", ""]


def sampler_of(text: str) -> "SamplerSettings":
    """A sampler by its name, or by its settings as JSON; one clear line if it is neither."""
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 (only services and workers have it)

    from models.samplers.settings import SamplerSettings  # noqa: PLC0415
    from models.sentences import fault  # noqa: PLC0415

    try:
        kind: TypeAdapter[SamplerSettings] = TypeAdapter(SamplerSettings)
        return kind.validate_python(json.loads(text) if text.startswith("{") else {"name": text})
    except json.JSONDecodeError as error:
        fail(f"--sampler is not JSON: {error}", code=2)
    except ValidationError as error:
        first = error.errors()[0]
        found = fault({**first, "loc": ("sampler", *first["loc"])})
        fail(f"--sampler {text}: {found.reason}; allowed: {found.allowed or 'other settings'}", code=2)


def weight_of(text: str) -> float:
    """A weight of guidance; one clear line if it is none."""
    from models.guidance import MAX_WEIGHT  # noqa: PLC0415 (numpy)

    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 <= weight <= MAX_WEIGHT:
        fail(f"--guidance {text}: numbers from 0 to {MAX_WEIGHT:g}, such as 1.5", code=2)
    return weight


def _execution(text: str | None) -> str | None:
    """How a network is run; one clear line if that is no way."""
    from models.card import EXECUTION  # noqa: PLC0415

    if text is not None and not re.match(EXECUTION, text):
        fail(f"--execution {text!r}: eager or channels_last, and float32 or bfloat16, such as 'eager bfloat16'", code=2)
    return text


def _budget(text: str) -> int:
    """A number of evaluations; one clear line if it is none."""
    if not text.strip().isdecimal() or int(text) < 1:
        fail(f"--evaluations {text}: whole numbers from 1 on, such as 20,35,100", code=2)
    return int(text)
