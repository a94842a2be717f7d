"""`scoreserve republish`: the same weights with other defaults."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.commands.evaluate import sampler_of, weight_of
from cli.console import err, fail


def republish(
    model: Annotated[str, typer.Argument(help="The model, of --store or of those that ship.")],
    store: Annotated[Path, typer.Option(help="Model store to publish into.", envvar="SCORESERVE_MODELS_DIR")],
    version: Annotated[
        int | None,
        typer.Option(metavar="<int>", min=1, help="Which version's weights.", show_default="the newest"),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="What runs when a request names no sampler: a sampler's name, or its settings as JSON.",
            show_default="as it is",
        ),
    ] = None,
    guidance: Annotated[
        str | None,
        typer.Option(
            help="How far new images with a label are led to their class when a request does not say; 1: not at all.",
            metavar="<weight>",
            show_default="as it is",
        ),
    ] = None,
) -> None:
    """Publish the weights of a model with another default sampler or guidance, as its next version.

    A request that names another sampler gets what it got before. What was measured with the earlier default is not the
    new version's, so its card has no figures until it is evaluated.
    """
    if sampler is None and guidance is None:
        fail("nothing would change: give --sampler, --guidance or both", code=2)
    chosen = None if sampler is None else sampler_of(sampler)
    weight = None if guidance is None else weight_of(guidance)
    from models.derived.defaults import publish_with  # noqa: PLC0415 (pydantic)
    from models.labels import LabelRefused  # noqa: PLC0415
    from models.samplers.sampler import SamplerRefused  # noqa: PLC0415
    from models.store import ZOO, BrokenModel, ModelNotFound, ModelStore  # noqa: PLC0415

    models = ModelStore(store, ZOO)
    command = shlex.join(["scoreserve", *sys.argv[1:]])
    try:
        main = models.card(model, version)
        card, path = publish_with(models, main, chosen, weight, command)
    except SamplerRefused as error:
        fail(f"--sampler {sampler}: {error}", code=2)
    except LabelRefused as error:
        fail(f"--guidance {guidance}: {error.reason}; allowed: {error.allowed}", code=2)
    except (ModelNotFound, BrokenModel, ValueError, OSError) as error:
        fail(str(error))
    next_ = shlex.join(["scoreserve", "evaluate", card.name, "--store", str(store), "--into-card", "--data"])
    _say(f"published {card.name} version {card.version} in {path}, with the weights of version {main.version}")
    _say(f"its card has no figures yet; measure them with: {next_} DIRECTORY_OF_REAL_IMAGES")


def _say(text: str) -> None:
    err.print(text, highlight=False, markup=False, soft_wrap=True)
