"""`scoreserve models` and `scoreserve samplers`: what a running service can sample, and how."""

from typing import Annotated

import typer

from cli import connection
from cli.console import fail, table
from scoreserve import Sampler


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
        (
            one.name,
            str(one.version),
            "x".join(map(str, one.shape)),
            str(len(one.classes) or ""),
            str(one.sampler.get("name", "")),
            one.description,
        )
        for one in found
    ]
    table(("model", "version", "image", "classes", "sampler", "what it draws"), rows)


def samplers(
    sampler: Annotated[
        str | None,
        typer.Argument(
            help="Print all parameters of one.", show_default="all", autocompletion=connection.sampler_names
        ),
    ] = None,
    as_json: connection.Json = False,
    server: connection.Server = connection.LOCAL,
    api_key: connection.ApiKey = None,
) -> None:
    """List the samplers, or print what one can be told as JSON."""
    with connection.service(server, api_key) as client:
        found = client.samplers()
    if sampler is not None:
        chosen = [one for one in found if one.name == sampler]
        if not chosen:
            fail(f"there is no sampler {sampler}; there is: {', '.join(one.name for one in found)}", connection.USAGE)
        connection.print_json(dict(chosen[0].data))
    elif as_json:
        connection.print_json([dict(one.data) for one in found])
    else:
        table(("sampler", "parameters", "what it is"), [(one.name, _parameters(one), one.description) for one in found])


def _parameters(sampler: Sampler) -> str:
    return ", ".join(parameter["name"] for parameter in sampler.data.get("parameters", ()))
