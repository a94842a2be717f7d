"""`scoreserve import`: checkpoints of other code, made into models that are served."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.console import err, fail


def ncsn(
    checkpoint: Annotated[Path, typer.Argument(help="The checkpoint file, such as checkpoint.pth.")],
    config: Annotated[Path, typer.Option(help="The configuration saved beside it, such as config.yml.")],
    name: Annotated[str, typer.Option(help="Name of the model.")],
    store: Annotated[Path, typer.Option(help="Model store to publish into.", envvar="SCORESERVE_MODELS_DIR")],
    raw: Annotated[
        bool, typer.Option("--raw", help="Take the weights of the last step, not their moving average (NCSNv2).")
    ] = False,
) -> None:
    """Import a checkpoint of the official code of NCSN (Song & Ermon 2019) or NCSNv2 (2020).

    Its noise levels and its schedule of annealed Langevin dynamics become the model's defaults.
    """
    from models.importing.ncsn import ImportRefused, import_ncsn  # noqa: PLC0415 (torch)
    from models.store import ModelStore  # noqa: PLC0415

    command = shlex.join(["scoreserve", *sys.argv[1:]])
    try:
        card, path = import_ncsn(checkpoint, config, name, ModelStore(store), raw, command)
    except ImportRefused as error:
        fail(str(error))
    err.print(f"published {card.name} version {card.version} in {path}", highlight=False, markup=False, soft_wrap=True)
