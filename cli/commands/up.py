"""`scoreserve up`: the whole service with one command."""

import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import httpx
import typer

from cli.console import err, fail
from cli.processes import ProcessEnded, Processes
from cli.valkey import SOCKET

if TYPE_CHECKING:
    from redis import Redis

START_SECONDS = 120.0
KILL_SECONDS = 10.0  # beyond the grace time
LONGEST_SOCKET = 100  # the system's limit on the path of a Unix socket, with some room


def up(
    host: Annotated[str, typer.Option(help="Address to listen on.", envvar="SCORESERVE_HOST")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="<int>", min=1, max=65535, help="Port to listen on.", envvar="SCORESERVE_PORT")
    ] = 8000,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where the embedded queue is kept.", envvar="SCORESERVE_DATA_DIR", show_default="per user"),
    ] = None,
    redis_url: Annotated[
        str | None,
        typer.Option(help="Use this Redis, not an embedded Valkey.", envvar=["SCORESERVE_REDIS_URL", "REDIS_URL"]),
    ] = None,
    grace_seconds: Annotated[
        float, typer.Option(metavar="<float>", min=0, help="How long Ctrl-C lets running jobs go on.")
    ] = 5.0,
) -> None:
    """Run the API, one worker and, unless a Redis is given, an embedded Valkey. Ctrl-C drains and stops all."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            fail(f"cannot listen on {host}:{port} ({error.strerror}); choose another --port")
    stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: stop.append(received))
    processes = Processes()
    try:
        if redis_url is None:
            redis_url = _start_valkey(processes, data_dir or default_data_dir(), stop)
        environment = {"SCORESERVE_REDIS_URL": redis_url, "SCORESERVE_GRACE_SECONDS": str(grace_seconds)}
        processes.start("worker", ["cli.main", "worker"], environment)
        processes.start("api", ["cli.main", "api", "--host", host, "--port", str(port)], environment)
        address = f"http://{'127.0.0.1' if host in ('', '0.0.0.0') else host}:{port}"  # noqa: S104
        processes.wait(lambda: _ready(address), START_SECONDS, stop)
        if not stop:
            _greet(address)
        processes.watch(stop, restart=("worker",))
        err.print("stopping: running jobs finish or go back to the queue")
    except ProcessEnded as error:
        fail(str(error))
    finally:
        processes.stop(["worker", "api"], grace_seconds + KILL_SECONDS)
        processes.stop(["valkey"], KILL_SECONDS)


def _start_valkey(processes: Processes, directory: Path, stop: list[int]) -> str:
    """Starts the embedded server and returns its address. One that lost its `up` is stopped first."""
    from redis import Redis  # noqa: PLC0415 (only services and workers have it)

    directory = directory.resolve()
    path = directory / SOCKET
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        fail(f"{directory} is too long for a socket's path; choose a shorter --data-dir")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = processes.lock(directory / "lock")
    if lock is None:
        fail(f"another `scoreserve up` uses {directory}; choose another --data-dir, or stop it")
    client = Redis(unix_socket_path=str(path), socket_timeout=2)
    if path.exists() and _answers(client):
        client.shutdown(save=False, nosave=False)
        processes.wait(lambda: not _answers(client), KILL_SECONDS, stop)
    processes.start("valkey", ["cli.valkey", str(directory)], {})
    processes.wait(lambda: _answers(client), KILL_SECONDS, stop)
    return f"unix://{path}"


def _answers(client: "Redis") -> bool:
    from redis.exceptions import RedisError  # noqa: PLC0415

    try:
        return bool(client.ping())
    except RedisError:
        return False


def _ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def _greet(address: str) -> None:
    body = "'{\"count\": 64}'"
    headers = "-H 'Content-Type: application/json' -H 'Accept: image/png'"
    err.print(
        f"\n[bold]scoreserve is ready.[/bold] Open {address} in a browser; documentation: {address}/docs\n",
        highlight=False,
        soft_wrap=True,
    )
    err.print("A grid of 64 digits:\n", highlight=False)
    err.print(
        f"  curl {address}/samples {headers} -d {body} -o grid.png\n", highlight=False, soft_wrap=True, markup=False
    )
    err.print("Ctrl-C stops it.")


def default_data_dir() -> Path:
    """Where the embedded queue is kept unless told otherwise."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "scoreserve"
