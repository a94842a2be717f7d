"""`scoreserve upscale`: a small picture, enlarged by a running service."""

from pathlib import Path
from typing import Annotated

import typer

from cli.asking import Asking, asks, content


@asks(out="enlargements.png")
def upscale(
    image: Annotated[
        Path,
        typer.Argument(help="The picture, a file; its sides are the model's over a whole number.", show_default=False),
    ],
    *,
    asking: Asking,
) -> None:
    """Ask a running service to enlarge a small picture: the mean of each block of a result is the given pixel."""
    picture = content(image)
    asking.run(lambda client, ask: client.upscale(picture, **ask))
