"""`scoreserve colorize`: a grey picture, coloured by a running service."""

from pathlib import Path
from typing import Annotated

import typer

from cli.asking import Asking, Fitting, asks, content


@asks(out="colourings.png")
def colorize(
    image: Annotated[Path, typer.Argument(help="The picture, a grey file.", show_default=False)],
    fit: Fitting = None,
    *,
    asking: Asking,
) -> None:
    """Ask a running service to colour a grey picture: the mean of a result's channels is everywhere the given value."""
    picture = content(image)
    asking.run(lambda client, ask: client.colorize(picture, fit=fit, **ask))
