"""`scoreserve inpaint`: the masked part of a picture, filled in by a running service."""

from pathlib import Path
from typing import Annotated

import typer

from cli import connection
from cli.asking import Asking, asks
from cli.console import fail
from scoreserve import Fit


@asks(out="completions.png")
def inpaint(
    image: Annotated[Path, typer.Argument(help="The picture, a file.", show_default=False)],
    mask: Annotated[
        Path | None,
        typer.Argument(help="White = repaint, black = keep; without it, what is transparent in the picture is."),
    ] = None,
    fit: Annotated[
        Fit | None, typer.Option(help="What to do with a picture of another size than the model's; error by default.")
    ] = None,
    *,
    asking: Asking,
) -> None:
    """Ask a running service to fill in the masked part of a picture; everything else stays exactly as it is."""
    picture, masked = _content(image), None if mask is None else _content(mask)
    asking.run(lambda client, ask: client.inpaint(picture, masked, fit=fit, **ask))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}", connection.USAGE)
