"""`scoreserve models` and `scoreserve samplers`: what a running service can sample, and how."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from cli import connection
from cli.console import fail, table
from scoreserve import Client, Model, NotFound, Refused, Sampler

FIGURES = {
    "distance": "Frechet distance {:.2f}",
    "recognised": "{:.1%} recognised",
    "precision": "precision {:.2f}",
    "recall": "recall {:.2f}",
}


def models(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Tell of one; with --json its whole card.", show_default="all", autocompletion=connection.model_names
        ),
    ] = None,
    version: Annotated[
        int | None, typer.Option(metavar="<int>", min=1, help="Of that one; the newest by default.")
    ] = None,
    as_json: connection.Json = False,
    server: connection.Server = connection.LOCAL,
    api_key: connection.ApiKey = None,
) -> None:
    """List the models that can be sampled, or tell of one: what it draws, how, and how well."""
    with connection.service(server, api_key) as client:
        if model is not None:
            one = client.model(model, version)
            if as_json:
                connection.print_json(dict(one.data))
            else:
                _tell(list(_summary(client, one)))
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


def _tell(facts: Sequence[tuple[str, str]]) -> None:
    width = max(len(term) for term, _ in facts)
    for term, text in facts:
        typer.echo(f"{term:{width}}  {text}")


def _summary(client: Client, model: Model) -> Iterator[tuple[str, str]]:
    """What a person asks first of a model, of all that its card says."""
    card, made = model.data, model.data.get("provenance", {})
    yield model.name, f"version {model.version}: {model.description}"
    levels = f", noise levels {card['sigma_max']:g} down to {card['sigma_min']:g}" if "sigma_max" in card else ""
    yield "image", "x".join(map(str, model.shape)) + levels
    if model.classes:
        yield "classes", f"{len(model.classes)}: {', '.join(model.classes)}"
    quality = card.get("metrics", {}).get("quality", {})
    measured = next((one for one in quality.get("samplers", ()) if _is(model.sampler, one["sampler"])), None)
    yield (
        "sampler",
        _settings(model.sampler) + (f", {measured['evaluations']} evaluations an image" if measured else ""),
    )
    if card.get("inpainting"):
        yield "completes", f"by {_settings(card['inpainting'])}"
    elif model.sampler.get("name") == "multistep_consistency":
        yield "completes", "badly, being made for few evaluations: another model does better"
    if measured:
        figures = [form.format(measured[name]) for name, form in FIGURES.items() if measured.get(name) is not None]
        yield "figures", f"{', '.join(figures)}; of {quality['count']:,} images"
    if made.get("flows"):
        yield "distilled", f"from {_served(client, made['flows']['teacher'])}"
    if made.get("command"):
        counts = [f"{made[what]:,} {what}" for what in ("images", "parameters") if made.get(what)]
        counts += _time(made)
        yield "trained", f"on {', '.join(counts)}: {made['command']}" if made.get("images") else made["command"]
    other = made.get("weights_of")
    whose = f"those of {_served(client, '{name} version {version}'.format(**other))}" if other else made.get("weights")
    yield "weights", ", ".join(filter(None, [whose, made.get("licence"), f"sha256 {card.get('weights_sha256')}"]))
    yield "--json", "prints the whole card"


def _time(made: Mapping[str, Any]) -> Iterator[str]:
    """How long a model was trained, with what it began from, and how fast."""
    if seconds := made.get("wall_seconds"):
        before, run = 0, made.get("from")
        while run:
            before += run["provenance"].get("wall_seconds") or 0
            run = run["provenance"].get("from")
        yield f"{seconds / 3600:.1f} hours" + (f" after {before / 3600:.1f} of earlier runs" if before else "")
    if speed := made.get("images_per_second"):
        yield f"{speed:.0f} images/s"


def _is(default: Mapping[str, Any], sampler: Mapping[str, Any]) -> bool:
    """Whether settings, of which none is left open, are those of the card, which leaves some open."""
    return all(value is None or sampler.get(name) == value for name, value in default.items())


def _settings(sampler: Mapping[str, Any]) -> str:
    told = [f"{name} {value}" for name, value in sampler.items() if name != "name" and value is not None]
    return f"{sampler.get('name', '')} ({', '.join(told)})" if told else str(sampler.get("name", ""))


def _served(client: Client, said: str) -> str:
    """A model and its version, and whether they are there: a card names what it was made of, wherever that was."""
    if found := re.fullmatch(r"(\S+) version (\d+)", said):
        try:
            client.model(found[1], int(found[2]))
        except (NotFound, Refused):
            return f"{said}, which is not served here"
    return said


def _parameters(sampler: Sampler) -> str:
    return ", ".join(parameter["name"] for parameter in sampler.data.get("parameters", ()))
