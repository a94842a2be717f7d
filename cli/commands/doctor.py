"""`scoreserve doctor`: what is wrong with a deployment, and what mends it."""

from typing import Annotated, Any

import typer

from cli import connection
from cli.console import out
from cli.console import settings as read
from cli.running import DataDir, Running, nothing_runs, say_taken

MARKS = {"good": "[green]good[/green]", "note": "[yellow]note[/yellow]", "mend": "[red]mend[/red]"}


def doctor(
    redis_url: Annotated[
        str | None,
        typer.Option(
            help="Redis server.",
            envvar=["SCORESERVE_REDIS_URL", "REDIS_URL"],
            show_default="that of `scoreserve up`, if it runs",
        ),
    ] = None,
    data_dir: DataDir = None,
    as_json: connection.Json = False,
    server: connection.Server = connection.LOCAL,
    api_key: connection.ApiKey = None,
) -> None:
    """Check Redis, workers, checkpoints, devices and the service, and say what to mend.

    What `scoreserve up` runs here is meant, unless the options or the environment say otherwise. Ends with 1 if
    something must be mended. It changes nothing.
    """
    from cli.diagnosis import examine  # noqa: PLC0415 (redis, rq)
    from worker.settings import WorkerSettings  # noqa: PLC0415

    running = Running.find(data_dir)
    if running:
        running.share()
    told = running.options if running else {}
    settings = read(WorkerSettings, {**told, **({"redis_url": redis_url} if redis_url else {})})
    unnamed = None if redis_url or running else nothing_runs(data_dir)
    findings = examine(settings, server, api_key, unnamed)
    if unnamed and unnamed not in findings[0].found:
        say_taken(settings.redis_url, data_dir)
    sick = [finding for finding in findings if finding.state == "mend"]
    if as_json:
        connection.print_json({"healthy": not sick, "findings": [_plain(finding) for finding in findings]})
    else:
        width = max(len(finding.subject) for finding in findings)
        for finding in findings:
            out.print(f"{MARKS[finding.state]}  {finding.subject:{width}}  ", end="")
            out.print(finding.found, markup=False, highlight=False, soft_wrap=True)
            if finding.remedy:
                out.print(f"{'':{width + 8}}{finding.remedy}", markup=False, highlight=False, soft_wrap=True)
    if sick:
        raise typer.Exit(connection.FAILED)


def _plain(finding: Any) -> dict[str, str | None]:
    return {name: getattr(finding, name) for name in ("subject", "state", "found", "remedy")}
