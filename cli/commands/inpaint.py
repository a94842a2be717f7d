"""`scoreserve inpaint`: the masked part of a picture, filled in by a running service."""

from pathlib import Path
from typing import Annotated

import typer

from cli import asking, connection
from cli.console import fail
from cli.output import Output
from scoreserve import Fit


def inpaint(
    image: Annotated[Path, typer.Argument(help="The picture, a file.", show_default=False)],
    mask: Annotated[
        Path | None,
        typer.Argument(help="White = repaint, black = keep; without it, what is transparent in the picture is."),
    ] = None,
    fit: Annotated[
        Fit | None, typer.Option(help="What to do with a picture of another size than the model's; error by default.")
    ] = None,
    out: asking.Out = Path("completions.png"),
    count: asking.Count = 16,
    model: asking.ModelName = None,
    seed: asking.Seed = None,
    sampler: asking.Sampler = None,
    priority: asking.Priority = None,
    deadline: asking.Deadline = None,
    frames: asking.Frames = None,
    filmstrip: asking.Filmstrip = False,
    columns: asking.Columns = None,
    scale: asking.Scale = 2,
    show: asking.Show = None,
    wait: asking.Wait = True,
    as_json: connection.Json = False,
    server: connection.Server = connection.LOCAL,
    api_key: connection.ApiKey = None,
) -> None:
    """Ask a running service to fill in the masked part of a picture; everything else stays exactly as it is."""
    settings = asking.sampler_settings(sampler)
    picture, masked = _content(image), None if mask is None else _content(mask)
    output = Output.of(out, columns, scale, frames, filmstrip)
    protocol = asking.protocol(show, as_json) if wait else None
    with connection.service(server, api_key) as client:
        job = client.inpaint(
            picture,
            masked,
            fit=fit,
            model=model,
            count=count,
            seed=seed,
            sampler=settings,
            priority=priority,
            deadline_seconds=deadline,
            frames=frames,
        )
        if wait:
            asking.deliver(client, job, output, protocol, as_json)
        else:
            asking.accepted(job, as_json)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}", connection.USAGE)
