"""`scoreserve train`: the training job."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import CANCELLED
from cli.console import fail
from cli.help.devices import Device
from cli.progress import TrainingProgress, say

if TYPE_CHECKING:
    from models.training.job import Job

SETTINGS = "In place of the preset's settings"


def train(
    preset: Annotated[str, typer.Argument(help="What to train: the name of a preset, or the path of one of your own.")],
    out: Annotated[Path, typer.Option(help="Directory of the run: checkpoint, sample grids, models.")],
    data: Annotated[
        Path | None, typer.Option(help="Data set: idx files, CIFAR-10, an npz or npy file, or a folder of pictures.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be read, and say which.")
    ] = False,
    store: Annotated[Path | None, typer.Option(help="Model store to publish into.", show_default="OUT/models")] = None,
    origin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Start from the weights of a published model, NAME or NAME/VERSION, of --store or of those that ship.",
        ),
    ] = None,
    average: Annotated[
        float | None,
        typer.Option(
            "--ema",
            metavar="DECAY",
            help="Which average of the weights is published, of the three that are kept. A run that has ended and is "
            "started again with another one publishes that as the next version.",
            show_default="the preset's",
        ),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data.", rich_help_panel=SETTINGS)] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step.", rich_help_panel=SETTINGS)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.", rich_help_panel=SETTINGS)] = None,
    decay: Annotated[
        str | None, typer.Option(help="Learning-rate decay: cosine, linear or constant.", rich_help_panel=SETTINGS)
    ] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.", rich_help_panel=SETTINGS)] = None,
    classes: Annotated[
        bool | None,
        typer.Option(help="Whether the network is told what is on an image.", rich_help_panel=SETTINGS),
    ] = None,
    compile: Annotated[bool | None, typer.Option(help="torch.compile the step.", rich_help_panel=SETTINGS)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice.", rich_help_panel=SETTINGS)] = None,
    device: Device = "cpu",
    save_every: Annotated[int, typer.Option(min=1, metavar="<int>", help="Steps between checkpoints.")] = 200,
    grid_every: Annotated[int, typer.Option(min=1, metavar="<int>", help="Steps between sample grids.")] = 1000,
) -> None:
    """Train a score model and publish it into a model store.

    Settings left out are the preset's. Run again with the same --out, it continues from the last checkpoint; SIGTERM
    makes it write one and end. torchrun makes several processes share each batch.
    """
    from models.training.job import TrainingJob  # noqa: PLC0415 (torch)

    settings = {
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "decay": decay,
        "precision": precision,
        "classes": classes,
        "compile": compile,
        "seed": seed,
    }
    job = TrainingJob(
        preset=preset,
        data=data,
        out=out,
        store=store or out / "models",
        overrides={k: v for k, v in settings.items() if v is not None},
        origin=origin,
        average=average,
        skip_bad=skip_bad,
        device=device,
        save_every=save_every,
        grid_every=grid_every,
        command=shlex.join(["scoreserve", *sys.argv[1:]]),
    )
    carry_out(job)


def carry_out(job: "Job") -> None:
    """Runs a job to its end, or to where it is told to stop; shows how far it is."""
    from models.training.job import TrainingFailed, TrainingStopped  # noqa: PLC0415 (torch)

    progress = TrainingProgress(job.save_every)
    speak = say if os.environ.get("RANK", "0") == "0" else lambda _line: None  # of several processes, the first one
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        speak(f"started in the background, where Ctrl-C is ignored; `kill {os.getpid()}` saves and stops")
    try:
        with told_to_stop() as received:
            published = job.run(progress.start, lambda trainer, _loss: progress.step(trainer), received, speak)
    except TrainingFailed as error:
        progress.stop()
        fail(str(error))
    except TrainingStopped as stopped:
        progress.stop()
        say(f"{stopped}; run the same command again to go on")
        return
    except KeyboardInterrupt:
        progress.stop()
        say(f"stopped; run the same command again to go on from {job.out}")
        raise typer.Exit(CANCELLED) from None
    progress.stop()
    if published:
        card, path = published
        say(f"published {card.name} version {card.version} in {path}")


@contextmanager
def told_to_stop() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM and the end of the terminal do not end the process; the caller asks whether they came.

    A signal that whoever started the process lets it ignore stays ignored: nohup's SIGHUP, and Ctrl-C's for what a
    script starts with `&`.
    """
    came = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    heard = [number for number, action in before.items() if action is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, lambda *_: came.set())
    try:
        yield came.is_set
    finally:
        for number in heard:
            signal.signal(number, before[number])
