"""The commands that talk to a running service: how they reach it, and how they end when they cannot.

CODES says what their exit codes mean.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer

from cli.console import fail
from cli.running import Running
from scoreserve import (
    Client,
    JobFailed,
    Patience,
    ProblemError,
    RateLimited,
    ScoreserveError,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
)

FAILED, USAGE, REFUSED, UNAVAILABLE, CANCELLED = 1, 2, 3, 4, 130
CODES = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the service refused, 4 the service is not there or is full, "
    "130 cancelled by Ctrl-C, 143 by SIGTERM."
)
ARGUMENTS = {"image": "image", "mask": "mask", "job_id": "job", "name": "model"}  # of the API, and of a command
OPTIONS = {"deadline_seconds": "deadline"}  # likewise, where the names differ
LOCAL = "http://127.0.0.1:8000"
PATIENCE = Patience()


def _found(context: typer.Context, server: str) -> str:
    """The service that is named, or else the one that `scoreserve up` runs here."""
    source = context.get_parameter_source("server")
    if context.resilient_parsing or source is None or source.name != "DEFAULT":
        return server
    running = Running.find(context.params.get("data_dir"))
    return running.address if running else server


Server = Annotated[str, typer.Option("--server", help="The service.", envvar="SCORESERVE_SERVER", callback=_found)]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", help="Your key, where the service wants one.", envvar="SCORESERVE_API_KEY"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for scripts.")]


Patient = Annotated[
    float,
    typer.Option("--patience", metavar="<seconds>", min=0, help="How long to wait for a service that went away."),
]


@contextmanager
def service(server: str, api_key: str | None, patience: float = PATIENCE.seconds) -> Iterator[Client]:
    """A client of the service. What goes wrong with it ends the command with one line, and a code that says what."""
    try:
        with Client(server, api_key=api_key, patience=Patience(seconds=patience)) as client:
            yield client
    except KeyboardInterrupt as interrupt:
        raise typer.Exit(CANCELLED) from interrupt
    except ScoreserveError as error:
        refuse(error, server)


def refuse(error: ScoreserveError, server: str) -> NoReturn:
    """Ends the command for this reason."""
    said = _as_given(error) if isinstance(error, ProblemError) else str(error)
    match error:
        case Unreachable():
            where = said if said.startswith("no service at") else f"no service at {server} ({said})"
            other = "name another with --server, or by its SCORESERVE_DATA_DIR"
            fail(f"{where}; start one with `scoreserve up`, or {other}", UNAVAILABLE)
        case Unavailable() | RateLimited():
            later = f"; try again in {error.retry_after:.0f} s" if error.retry_after else ""
            fail(f"{said}{later}", UNAVAILABLE)
        case Unauthorized():
            fail(f"{said}; give one with --api-key or SCORESERVE_API_KEY", REFUSED)
        case ProblemError(status=status) if status < 500:
            fail(said, REFUSED)
        case ProblemError(request_id=request_id) if request_id:
            fail(f"{said} (request {request_id})", FAILED)
        case UnexpectedAnswer(status=status) if status in (502, 503, 504):
            fail(said, UNAVAILABLE)
        case JobFailed() | _:
            fail(said, FAILED)


def _as_given(error: ProblemError) -> str:
    """What the service says, with what is at fault named as the command was given it and not as the API has it."""
    said = str(error)
    for field in error.errors:
        name, *inside = field.pointer.strip("/").split("/")
        own = ARGUMENTS.get(name) or OPTIONS.get(name, name)
        option = own if name in ARGUMENTS else f"--{own.replace('_', '-')}"
        if name:
            said = said.replace(f"{field.pointer}: ", f"{' '.join([option, *inside])}: ")
        if name != own:
            said = re.sub(rf"\b{re.escape(name)}\b", own, said, count=1)
        if name == "job_id":
            said += "; `scoreserve jobs` lists yours"
    return said


def print_json(data: Any) -> None:
    """JSON for scripts, on standard output."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def model_names(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """For completion in the shell: what the service has."""
    try:
        with _quick(context) as client:
            models = client.models()
    except ScoreserveError:
        return []
    return [(model.name, model.description) for model in models if model.name.startswith(incomplete)]


def sampler_names(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """For completion in the shell: those that the service knows."""
    try:
        with _quick(context) as client:
            samplers = client.samplers()
    except ScoreserveError:
        return []
    return [(sampler.name, sampler.title) for sampler in samplers if sampler.name.startswith(incomplete)]


def job_ids(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """For completion in the shell: the newest jobs, with what they are."""
    try:
        with _quick(context) as client:
            jobs = [job for job, _ in zip(client.jobs(), range(20), strict=False)]
    except ScoreserveError:
        return []
    return [(job.id, f"{job.state}, {job.count} of {job.model}") for job in jobs if job.id.startswith(incomplete)]


def _quick(context: typer.Context) -> Client:
    """A client that does not keep a shell waiting."""
    server, api_key = context.params.get("server") or LOCAL, context.params.get("api_key")
    return Client(server, api_key=api_key, timeout=1.0, patience=Patience(attempts=1))
