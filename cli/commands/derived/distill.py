"""`scoreserve distill`: from a model of many evaluations to one of few."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.commands.train import SETTINGS, carry_out
from cli.help.devices import Device


def distill(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="The teacher, NAME or NAME/VERSION, of --store or of those that ship."),
    ],
    out: Annotated[Path, typer.Option(help="Directory of the run: flows, checkpoint, sample grids, models.")],
    name: Annotated[str | None, typer.Option(help="Name of the new model.", show_default="MODEL-fast")] = None,
    store: Annotated[Path | None, typer.Option(help="Model store to publish into.", show_default="OUT/models")] = None,
    average: Annotated[
        float | None,
        typer.Option("--ema", metavar="DECAY", help="Which average of the weights is published.", show_default="0.998"),
    ] = None,
    flows: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="<int>", help="Ways from noise to an image that the teacher makes.", rich_help_panel=SETTINGS
        ),
    ] = None,
    levels: Annotated[
        int | None,
        typer.Option(min=2, metavar="<int>", help="Evaluations of the teacher for each.", rich_help_panel=SETTINGS),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the flows.", rich_help_panel=SETTINGS)] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step.", rich_help_panel=SETTINGS)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.", rich_help_panel=SETTINGS)] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.", rich_help_panel=SETTINGS)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice.", rich_help_panel=SETTINGS)] = None,
    device: Device = "cpu",
    save_every: Annotated[int, typer.Option(min=1, metavar="<int>", help="Steps between checkpoints.")] = 200,
    grid_every: Annotated[int, typer.Option(min=1, metavar="<int>", help="Steps between sample grids.")] = 1000,
) -> None:
    """Make a model of one to four evaluations of one of many, by consistency distillation.

    No data are needed: the model that is distilled makes them. Run again with the same --out, it continues from the
    last checkpoint; SIGTERM makes it write one and end.
    """
    from models.training.distillation.job import DistillationJob  # noqa: PLC0415 (torch)

    settings = {
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "precision": precision,
        "seed": seed,
    }
    of_flows = {"count": flows, "levels": levels, "seed": seed}
    job = DistillationJob(
        model=model,
        name=name or f"{model.partition('/')[0]}-fast",
        out=out,
        store=store or out / "models",
        overrides={k: v for k, v in settings.items() if v is not None},
        flows={k: v for k, v in of_flows.items() if v is not None},
        average=average,
        device=device,
        save_every=save_every,
        grid_every=grid_every,
        command=shlex.join(["scoreserve", *sys.argv[1:]]),
    )
    carry_out(job)
