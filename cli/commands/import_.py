"""`scoreserve import`: checkpoints of other code, made into models that are served."""

import json
import math
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.console import err, fail

if TYPE_CHECKING:
    from models.card import ModelCard
    from models.importing.module import Contract
    from models.importing.publishing import Target

Name = Annotated[str, typer.Option(help="Name of the model.")]
Store = Annotated[Path, typer.Option(help="Model store to publish into.", envvar="SCORESERVE_MODELS_DIR")]
Licence = Annotated[str | None, typer.Option(help="Licence of the checkpoint, for the model's card.")]
Raw = Annotated[bool, typer.Option("--raw", help="Take the weights of the last step, not their moving average.")]
Image = Annotated[str, typer.Option(help="Shape of an image: channels x height x width, such as 1x28x28.")]
Predicts = Annotated[
    Literal["denoised", "noise", "score", "v"],
    typer.Option(
        help="What the network returns for x = picture + sigma noise: the expected picture, the noise in units of one, "
        "or the gradient of the log density; or v, for x = a picture + b noise with a^2 + b^2 = 1 and b / a = sigma."
    ),
]
Sigma = Annotated[
    tuple[float, float],
    typer.Option(help="The least and the largest noise level that it was trained at, in units of --range."),
]
Range = Annotated[str, typer.Option("--range", help="What black and white are to the network, such as -1,1.")]
Mean = Annotated[float | None, typer.Option(help="Mean of the training pixels, in units of --range, if known.")]
Classes = Annotated[
    str | None, typer.Option(help="How many classes it knows, or their names, separated by commas, in their order.")
]
NeedsLabel = Annotated[
    bool, typer.Option("--needs-label", help="It was never trained without a label (which is the number of classes).")
]


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


def guided_diffusion(
    checkpoint: Annotated[Path, typer.Argument(help="The checkpoint file, such as ema_0.9999_250000.pt.")],
    flags: Annotated[
        str,
        typer.Option(
            help="The flags of network and diffusion that it was trained with, as on a command line: '--image_size 64 "
            "--num_channels 192 ...'; or a file with them, or with a JSON object of them."
        ),
    ],
    name: Name,
    store: Store,
    licence: Licence = None,
) -> None:
    """Import a checkpoint of guided-diffusion (Dhariwal & Nichol 2021), improved-diffusion or consistency_models.

    The file does not say which network it is for: its authors' README has the flags. With those of consistency_models,
    --training_mode is one of them: models that were distilled or trained to be consistent are offered multistep
    consistency sampling, since they have no score.
    """
    from models.importing.guided_diffusion import import_guided_diffusion  # noqa: PLC0415 (torch)

    _publish(lambda target: import_guided_diffusion(checkpoint, flags, target), name, store, licence)


def diffusers(
    directory: Annotated[
        Path, typer.Argument(help="The pipeline's directory, with unet/ and scheduler/, or with all files in it.")
    ],
    name: Name,
    store: Store,
    licence: Licence = None,
    null_class: Annotated[
        bool, typer.Option("--null-class", help="The last class stands for none: labels were dropped in training.")
    ] = False,
) -> None:
    """Import a pipeline of diffusers: a UNet2DModel with a scheduler of DDPM, DDIM, ScoreSdeVe or consistency.

    The network is diffusers' own, so here and on every worker the extra `diffusers` is needed.
    """
    from models.importing.diffusers import import_diffusers  # noqa: PLC0415 (torch)

    _publish(lambda target: import_diffusers(directory, target, null_class), name, store, licence)


def module(
    network: Annotated[
        str,
        typer.Argument(
            metavar="PACKAGE:FACTORY",
            help="What makes the network, such as my_package.nets:small, whose code is run; or the name of a network "
            "that an installed package offers.",
        ),
    ],
    weights: Annotated[Path, typer.Argument(help="Its state dict: a .safetensors file, or one of torch.save.")],
    name: Name,
    store: Store,
    image: Image,
    predicts: Predicts,
    sigma: Sigma,
    range_: Range = "0,1",
    mean: Mean = None,
    classes: Classes = None,
    needs_label: NeedsLabel = False,
    arguments: Annotated[str, typer.Option(help="Arguments of the factory, a JSON object.")] = "{}",
    key: Annotated[
        str | None, typer.Option(help="Where in the file the state dict is, such as ema, if it holds more than one.")
    ] = None,
    licence: Licence = None,
) -> None:
    """Import a network of your own: code that makes it, and its weights.

    The network is called as network(x, sigma), or network(x, sigma, label) if it has classes, with images [n, c, h, w]
    and their noise levels [n], both in units of --range; it returns what it --predicts, shaped as x. It may have
    `condition` and `forward` instead, see docs/your-model.md.
    """
    from models.importing.module import import_module  # noqa: PLC0415 (torch)

    contract = _contract(image, predicts, sigma, range_, mean, classes, needs_label)
    given = _json_object(arguments)
    _publish(lambda target: import_module(network, weights, contract, target, given, key), name, store, licence)
    if ":" in network:
        _say(f"start the API and every worker with SCORESERVE_NETWORKS={network}: a card alone has no code run")


def exported(
    program: Annotated[Path, typer.Argument(help="The program, such as model.pt2.")],
    name: Name,
    store: Store,
    image: Image,
    predicts: Predicts,
    sigma: Sigma,
    range_: Range = "0,1",
    mean: Mean = None,
    classes: Classes = None,
    needs_label: NeedsLabel = False,
    licence: Licence = None,
) -> None:
    """Import a program of torch.export that takes (x, sigma), or (x, sigma, label), for any number of images.

    Such a file is code: to read it is to run what its author wrote, here and on every worker.
    """
    from models.importing.module import import_exported  # noqa: PLC0415 (torch)

    _say(f"warning: {program} is code, and is run now; import it only from those whom you trust")
    contract = _contract(image, predicts, sigma, range_, mean, classes, needs_label)
    _publish(lambda target: import_exported(program, contract, target), name, store, licence)
    _say("start the API and every worker with SCORESERVE_NETWORKS=exported, since such a model is code")


def _contract(
    image: str,
    predicts: str,
    sigma: tuple[float, float],
    range_: str,
    mean: float | None,
    classes: str | None,
    needs_label: bool,
) -> "Contract":
    """What the options say of a network; ends the program if they say nothing."""
    from models.card import ImageShape  # noqa: PLC0415
    from models.importing.module import Contract  # noqa: PLC0415 (torch)

    try:
        channels, height, width = (int(number) for number in image.split("x"))
        shape = ImageShape(channels=channels, height=height, width=width)
    except ValueError:
        fail(f"--image {image}: expected channels x height x width, such as 1x28x28")
    try:
        low, high = (float(number) for number in range_.split(","))
        if not low < high:
            raise ValueError
    except ValueError:
        fail(f"--range {range_}: expected two numbers, the lower first, such as 0,1 or -1,1")
    if mean is not None and not math.isfinite(mean):
        fail(f"--mean {mean}: expected a finite number; leave it out where the mean is not known")
    names = None
    if classes is not None:
        names = tuple(map(str, range(int(classes)))) if classes.isdecimal() else tuple(classes.split(","))
    return Contract(shape, predicts, sigma, (low, high), mean, names, needs_label)  # type: ignore[arg-type]


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        fail(f"--arguments {text}: expected a JSON object, such as '{{\"width\": 64}}'")
    return found


def _say(text: str) -> None:
    err.print(text, highlight=False, markup=False, soft_wrap=True)


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
    _say(f"published {card.name} version {card.version} in {path}")
