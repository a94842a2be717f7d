"""`scoreserve import`: checkpoints of other code, made into models that are served."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import err, fail

if TYPE_CHECKING:
    from models.card import ModelCard
    from models.importing.publishing import Target

Name = Annotated[str, typer.Option(help="Name of the model.")]
Store = Annotated[Path, typer.Option(help="Model store to publish into.", envvar="SCORESERVE_MODELS_DIR")]
Licence = Annotated[str | None, typer.Option(help="Licence of the checkpoint, for the model's card.")]
Raw = Annotated[bool, typer.Option("--raw", help="Take the weights of the last step, not their moving average.")]


def ncsn(
    checkpoint: Annotated[Path, typer.Argument(help="The checkpoint file, such as checkpoint.pth.")],
    config: Annotated[Path, typer.Option(help="The configuration saved beside it, such as config.yml.")],
    name: Name,
    store: Store,
    licence: Licence = None,
    raw: Raw = False,
) -> None:
    """Import a checkpoint of the official code of NCSN (Song & Ermon 2019) or NCSNv2 (2020).

    Its noise levels and its schedule of annealed Langevin dynamics become the model's defaults.
    """
    from models.importing.ncsn import import_ncsn  # noqa: PLC0415 (torch)

    _publish(lambda target: import_ncsn(checkpoint, config, target, raw), name, store, licence)


def edm(
    checkpoint: Annotated[Path, typer.Argument(help="The pickle, such as network-snapshot-200000.pkl.")],
    name: Name,
    store: Store,
    licence: Licence = None,
) -> None:
    """Import a checkpoint of EDM (Karras 2022): NCSN++, DDPM++ or ADM with EDM, VP or VE preconditioning.

    Such a pickle carries source code, which other readers execute; here nothing of it is run.
    """
    from models.importing.edm import import_edm  # noqa: PLC0415 (torch)

    _publish(lambda target: import_edm(checkpoint, target), name, store, licence)


def score_sde(
    checkpoint: Annotated[Path, typer.Argument(help="The checkpoint file, such as checkpoint_26.pth.")],
    config: Annotated[
        str,
        typer.Option(
            help="Name of a configuration of that code, such as ve/cifar10_ncsnpp_continuous, or a JSON file of one."
        ),
    ],
    name: Name,
    store: Store,
    licence: Licence = None,
    raw: Raw = False,
) -> None:
    """Import a checkpoint of score_sde_pytorch (Song 2021): NCSN++ or DDPM++ with a VE, VP or subVP SDE."""
    from models.importing.score_sde import import_score_sde  # noqa: PLC0415 (torch)

    _publish(lambda target: import_score_sde(checkpoint, config, target, raw), name, store, licence)


def _publish(
    importer: "Callable[[Target], tuple[ModelCard, Path]]", name: str, store: Path, licence: str | None
) -> None:
    """Runs an importer and says what it published, or in one line why it did not."""
    from models.importing.publishing import Target  # noqa: PLC0415 (torch)
    from models.importing.reading import ImportRefused  # noqa: PLC0415
    from models.store import ModelStore  # noqa: PLC0415

    command = shlex.join(["scoreserve", *sys.argv[1:]])
    try:
        card, path = importer(Target(ModelStore(store), name, command, licence))
    except ImportRefused as error:
        fail(str(error))
    err.print(f"published {card.name} version {card.version} in {path}", highlight=False, markup=False, soft_wrap=True)
