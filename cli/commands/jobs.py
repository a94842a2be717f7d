"""`scoreserve jobs` and `scoreserve cancel`: what was asked for, how far it is, and stopping it."""

import sys
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, cast

import typer

from cli import asking, connection
from cli.console import fail, table
from cli.output import Output
from scoreserve import Job, State


class JobState(StrEnum):
    """`scoreserve.State`, since typer takes lists of an enumeration and not of a Literal."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


def jobs(
    job: Annotated[
        str | None, typer.Argument(help="Id of one job.", show_default="all", autocompletion=connection.job_ids)
    ] = None,
    state: Annotated[list[JobState] | None, typer.Option(help="Only those in this state; may be repeated.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Only those of this model; may be repeated.", autocompletion=connection.model_names),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="<int>", min=1, help="How many at most, the newest first.")] = 20,
    out: Annotated[
        Path | None, typer.Option(help="Wait for the one job, and write its images as `scoreserve sample` does.")
    ] = None,
    columns: asking.Columns = None,
    scale: asking.Scale = 2,
    show: asking.Show = None,
    patience: connection.Patient = connection.PATIENCE.seconds,
    as_json: connection.Json = False,
    server: connection.Server = connection.LOCAL,
    api_key: connection.ApiKey = None,
) -> None:
    """List your jobs, or tell of one, or with --out wait for it and write its images."""
    if job is None and out is not None:
        fail("--out is for one job: name it, as in `scoreserve jobs ID --out grid.png`", connection.USAGE)
    if job is not None and (state or model):
        fail("--state and --model choose among jobs: leave them out where one is named", connection.USAGE)
    protocol = asking.protocol(show, as_json, out) if out is not None else None
    with connection.service(server, api_key, patience) as client:
        if job is not None:
            found = client.job(job)
            if out is not None:
                output = Output.of(out, columns, scale, found.frames, filmstrip=False)
                asking.deliver(client, found, output, protocol, as_json)
            elif as_json:
                connection.print_json(found.data)
            else:
                _tell([found])
            return
        states = cast(list[State], [one.value for one in state or ()])
        every = client.jobs(state=states, model=model or (), page=min(limit, 100))
        listed = list(islice(every, min(limit, sys.maxsize)))  # more than that islice does not count to
    if as_json:
        connection.print_json([dict(one.data) for one in listed])
    else:
        _tell(listed)


def cancel(
    job: Annotated[list[str], typer.Argument(help="Ids of the jobs.", autocompletion=connection.job_ids)],
    as_json: connection.Json = False,
    server: connection.Server = connection.LOCAL,
    api_key: connection.ApiKey = None,
) -> None:
    """Cancel jobs. Other jobs are not touched; one that has ended cannot be cancelled."""
    with connection.service(server, api_key) as client:
        cancelled = [client.cancel(one) for one in job]
    if as_json:
        connection.print_json([dict(one.data) for one in cancelled])
    else:
        _tell(cancelled)


def _tell(jobs: list[Job]) -> None:
    """A line a job."""
    table(
        ("job", "state", "kind", "images", "model", "version", "seed", "done", "left", "created"),
        [_row(job) for job in jobs],
    )
    for job in jobs:
        if job.error and len(jobs) == 1:
            typer.echo(job.error)


def _row(job: Job) -> tuple[str, ...]:
    done = f"{job.image_steps_done / job.image_steps:.0%}" if job.image_steps else ""
    left = "" if job.eta_seconds is None else asking.duration(job.eta_seconds)
    created = job.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if job.created_at else ""
    return job.id, job.state, job.kind, str(job.count), job.model, str(job.version), str(job.seed), done, left, created
