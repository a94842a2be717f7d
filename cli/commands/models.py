"""`scoreserve models`: what a running service can sample."""

from typing import Annotated

import typer

from cli import connection
from cli.console import table


def models(
    model: Annotated[
        str | None,
        typer.Argument(help="Print the whole card of one.", show_default="all", autocompletion=connection.model_names),
    ] = None,
    version: Annotated[
        int | None, typer.Option(metavar="<int>", min=1, help="Of that one; the newest by default.")
    ] = None,
    as_json: connection.Json = False,
    server: connection.Server = connection.LOCAL,
    api_key: connection.ApiKey = None,
) -> None:
    """List the models that can be sampled, or print the card of one as JSON."""
    with connection.service(server, api_key) as client:
        if model is not None:
            connection.print_json(dict(client.model(model, version).data))
            return
        found = client.models()
    if as_json:
        connection.print_json([dict(one.data) for one in found])
        return
    rows = [
        (one.name, str(one.version), "x".join(map(str, one.shape)), str(one.sampler.get("name", "")), one.description)
        for one in found
    ]
    table(("model", "version", "image", "sampler", "what it draws"), rows)
