"""`scoreserve operator`: everybody's jobs, and models that take no new requests."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from cli.commands.access.reaching import RedisUrl, reached
from cli.commands.jobs import JobState
from cli.console import err, fail, table
from cli.running import DataDir

if TYPE_CHECKING:
    from worker.queue.job import Job

Model = Annotated[str, typer.Argument(help="Name of a model.")]


def jobs(
    client: Annotated[
        str | None,
        typer.Option(metavar="<client>", help="All of one client, such as key/527d7207c7bc; else what is in flight."),
    ] = None,
    state: Annotated[list[JobState] | None, typer.Option(help="Only those in this state; may be repeated.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only those of this model; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(metavar="<int>", min=1, help="How many at most, the newest first.")] = 20,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """List the jobs of all clients."""
    from worker.queue import job  # noqa: PLC0415
    from worker.queue.jobs import JobQueue, Place  # noqa: PLC0415
    from worker.queue.settings import QueueSettings  # noqa: PLC0415

    states = [job.JobState(one.value) for one in state or JobState]
    found: list[job.Job] = []
    after: Place | None = None
    with reached(redis_url, data_dir) as connection:
        queue = JobQueue(connection, QueueSettings())
        while len(found) < limit:
            page, after = queue.listing(client, states, model or None, min(100, limit - len(found)), after)
            found += page
            if after is None:
                break
    table(
        ("job", "client", "state", "model", "version", "images", "done", "priority", "created"),
        [_row(one) for one in found],
    )


def cancel(
    job: Annotated[list[str], typer.Argument(help="Ids of the jobs.")],
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Cancel jobs, whosever they are. Their clients are told that an operator did."""
    from service.access.keys import masked  # noqa: PLC0415
    from worker.queue.job import JobNotFound  # noqa: PLC0415
    from worker.queue.jobs import CANCELLED_BY_OPERATOR, JobEnded, JobQueue  # noqa: PLC0415
    from worker.queue.settings import QueueSettings  # noqa: PLC0415

    with reached(redis_url, data_dir) as connection:
        queue = JobQueue(connection, QueueSettings())
        for one in job:
            try:
                queue.cancel(one, CANCELLED_BY_OPERATOR)
            except JobNotFound:
                fail(f"there is no job {masked(one)}; `scoreserve operator jobs` names them")
            except JobEnded as error:
                fail(str(error))
    err.print(f"cancelled: {', '.join(job)}", highlight=False, markup=False)


def drain(model: Model, redis_url: RedisUrl = None, data_dir: DataDir = None) -> None:
    """Let a model take no new requests. What was accepted of it is done."""
    from service.access.drains import Drains  # noqa: PLC0415
    from worker.queue.settings import QueueSettings  # noqa: PLC0415

    with reached(redis_url, data_dir) as connection:
        drains = Drains(connection)
        drains.begin(model)
        left = drains.unended()[model]
    if model not in QueueSettings().store().names():
        err.print(f"note: there is no model {model} here; it is drained wherever there is", highlight=False)
    err.print(f"{model} takes no new requests; {left} of its jobs have not ended", highlight=False, markup=False)


def resume(model: Model, redis_url: RedisUrl = None, data_dir: DataDir = None) -> None:
    """Let a drained model take new requests again."""
    from service.access.drains import Drains  # noqa: PLC0415

    with reached(redis_url, data_dir) as connection:
        if not Drains(connection).end(model):
            fail(f"{model} is not drained; `scoreserve operator drained` names those that are")
    err.print(f"{model} takes new requests", highlight=False, markup=False)


def drained(redis_url: RedisUrl = None, data_dir: DataDir = None) -> None:
    """List the models that are drained, and how many of their jobs have not ended."""
    from service.access.drains import Drains  # noqa: PLC0415

    with reached(redis_url, data_dir) as connection:
        found, unended = Drains(connection).all(), Drains(connection).unended()
    rows = [(name, _time(since), str(unended[name])) for name, since in sorted(found.items())]
    table(("model", "since", "jobs left"), rows)


def _row(job: "Job") -> tuple[str, ...]:
    asked, done = job.request, f"{job.image_steps_done / job.image_steps:.0%}"
    model = asked.model, str(asked.version)
    return job.id, job.client, job.state, *model, str(asked.count), done, job.priority, _time(job.created_at)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
