"""`scoreserve guide`: one model, guided by a worse one."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.console import err, fail


def guide(
    model: Annotated[str, typer.Argument(help="The model to guide.")],
    by: Annotated[str, typer.Option(help="A smaller or less trained model of the same images.")],
    store: Annotated[
        Path, typer.Option(help="Model store that holds both, to publish into.", envvar="SCORESERVE_MODELS_DIR")
    ],
    version: Annotated[
        int | None,
        typer.Option(metavar="<int>", min=1, help="Which version of it to guide.", show_default="the newest"),
    ] = None,
    weight: Annotated[
        float, typer.Option(metavar="<float>", min=1, max=10, help="1 is the model alone; 1.5 to 3 is usual.")
    ] = 1.5,
    interval: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Lowest and highest noise level to guide.", show_default="all", metavar="SIGMA SIGMA"),
    ] = None,
) -> None:
    """Publish a model guided by a worse one of the same images, as its next version (Karras 2024, autoguidance).

    Samples come out clearer and a little less varied. The model must not be a guided one itself.
    """
    from models.derived.guidance import publish_guided  # noqa: PLC0415 (torch)
    from models.store import BrokenModel, ModelNotFound, ModelStore  # noqa: PLC0415

    models = ModelStore(store)
    command = shlex.join(["scoreserve", *sys.argv[1:]])
    try:
        card, path = publish_guided(models, models.card(model, version), models.card(by), weight, command, interval)
    except (ModelNotFound, BrokenModel, ValueError, OSError) as error:
        fail(str(error))
    err.print(f"published {card.name} version {card.version} in {path}", highlight=False, markup=False, soft_wrap=True)
