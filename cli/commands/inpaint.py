"""`scoreserve inpaint`: the masked part of a picture, filled in by a running service."""

from pathlib import Path
from typing import Annotated

import typer

from cli.asking import Asking, Fitting, asks, content


@asks(out="completions.png")
def inpaint(
    image: Annotated[Path, typer.Argument(help="The picture, a file.", show_default=False)],
    mask: Annotated[
        Path | None,
        typer.Argument(help="White = repaint, black = keep; without it, what is transparent in the picture is."),
    ] = None,
    fit: Fitting = None,
    *,
    asking: Asking,
) -> None:
    """Ask a running service to fill in the masked part of a picture; everything else stays exactly as it is."""
    picture, masked = content(image), None if mask is None else content(mask)
    asking.run(lambda client, ask: client.inpaint(picture, masked, fit=fit, **ask))
