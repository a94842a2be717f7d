"""`scoreserve inpaint`, `upscale` and `colorize`: what is not known of a picture, completed by a running service."""

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
