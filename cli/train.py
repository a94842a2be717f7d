"""`scoreserve train`: the training job."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cli.console import err, fail

if TYPE_CHECKING:
    from models.training.trainer import Trainer


def train(
    preset: Annotated[str, typer.Argument(help="What to train: mnist.")],
    data: Annotated[Path, typer.Option(help="Data set: idx files, CIFAR-10, an npz file, or a folder of pictures.")],
    out: Annotated[Path, typer.Option(help="Directory of the run: checkpoint, sample grids, models.")],
    store: Annotated[Path | None, typer.Option(help="Model store to publish into.", show_default="OUT/models")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    decay: Annotated[str | None, typer.Option(help="Learning-rate decay: cosine or linear.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bfloat16.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice.")] = None,
    device: Annotated[str, typer.Option(help="torch device, such as cpu or cuda.")] = "cpu",
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 200,
    grid_every: Annotated[int, typer.Option(min=1, help="Steps between sample grids.")] = 1000,
) -> None:
    """Train a score model and publish it into a model store.

    Settings left out are the preset's. Run again with the same --out, it continues from the last checkpoint.
    """
    from models.training.job import TrainingFailed, TrainingJob  # noqa: PLC0415 (torch)

    settings = {
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "decay": decay,
        "precision": precision,
        "seed": seed,
    }
    job = TrainingJob(
        preset=preset,
        data=data,
        out=out,
        store=store or out / "models",
        overrides={k: v for k, v in settings.items() if v is not None},
        device=device,
        save_every=save_every,
        grid_every=grid_every,
        command=shlex.join(["scoreserve", *sys.argv[1:]]),
    )
    columns = (
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:.0f} images/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as progress:
        tasks: list[TaskID] = []

        def on_start(trainer: "Trainer") -> None:
            tasks.append(progress.add_task("", total=trainer.steps, completed=trainer.step, loss=0.0, rate=0.0))
            if trainer.step:
                err.print(f"continuing after step {trainer.step}")

        def on_step(trainer: "Trainer", _loss: float) -> None:
            recent = trainer.losses[-100:]
            progress.update(
                tasks[0],
                completed=trainer.step,
                loss=sum(recent) / len(recent),
                rate=trainer.step * trainer.settings.batch / trainer.seconds,
            )

        try:
            card, path = job.run(on_start, on_step)
        except TrainingFailed as error:
            fail(str(error))
        except KeyboardInterrupt:
            fail(f"stopped; run the same command again to go on from {out}", code=130)
    err.print(f"published {card.name} version {card.version} in {path}")
