"""`scoreserve up`: the whole service with one command."""

import base64
import os
import secrets
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import httpx
import typer

from cli import valkey
from cli.console import err, fail
from cli.console import settings as read
from cli.processes import ProcessEnded, Processes, ours
from cli.running import FILE, Running, default_data_dir, told
from cli.signals import handle

if TYPE_CHECKING:
    from redis import Redis

START_SECONDS = 120.0
KILL_SECONDS = 10.0  # beyond the grace time
RESULTS = "results"  # in the directory of the data: images of large jobs
LOCK = "lock"  # likewise: held by the `up` that has its queue there
SEALING = "SCORESERVE_SEALING_SECRET"


def up(
    host: Annotated[str, typer.Option(help="Address to listen on.", envvar="SCORESERVE_HOST")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="<int>", min=1, max=65535, help="Port to listen on.", envvar="SCORESERVE_PORT")
    ] = 8000,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where the embedded queue and the images of large jobs are kept.",
            envvar="SCORESERVE_DATA_DIR",
            show_default="per user",
        ),
    ] = None,
    redis_url: Annotated[
        str | None,
        typer.Option(help="Use this Redis, not an embedded Valkey.", envvar=["SCORESERVE_REDIS_URL", "REDIS_URL"]),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<name>",
            help="cpu, cuda, or cuda:1 for the second GPU; named several times, a worker for each.",
            envvar="SCORESERVE_DEVICE",
            show_default="cpu",
        ),
    ] = None,
    grace_seconds: Annotated[
        float, typer.Option(metavar="<float>", min=0, help="How long Ctrl-C lets running jobs go on.")
    ] = 1.0,
) -> None:
    """Run the API, a worker and, unless a Redis is given, an embedded Valkey. Ctrl-C drains and stops all."""
    workers = _workers(device)
    if redis_url is not None:
        from worker.queue.settings import QueueSettings  # noqa: PLC0415 (only services and workers have it)

        read(QueueSettings, {"redis_url": redis_url})
    directory = _directory(data_dir)
    processes, address = Processes(), _address(host, port)
    used = redis_url is None and processes.lock(directory / LOCK) is None
    _check_free(host, port, directory, used)
    stop: list[int] = []
    handle(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, by=lambda received, _: stop.append(received))
    try:
        sealing = {}
        if redis_url is None:
            redis_url = _start_valkey(processes, directory, stop)
            sealing = _sealing(directory)
        environment = {
            "SCORESERVE_REDIS_URL": redis_url,
            "SCORESERVE_GRACE_SECONDS": str(grace_seconds),
            "SCORESERVE_RESULTS_URL": os.environ.get("SCORESERVE_RESULTS_URL") or (directory / RESULTS).as_uri(),
        }
        for name, on in workers.items():
            processes.start(name, ours("worker"), environment | on)
        processes.start("api", ours("api", "--host", host, "--port", str(port)), environment | sealing)
        Running(os.getpid(), address, redis_url, told() | next(iter(workers.values()))).write_down(directory)
        with httpx.Client(timeout=2, trust_env=False) as http:  # its own service is behind no proxy
            processes.wait(lambda: _ready(http, address), START_SECONDS, stop)
        if not stop:
            _greet(address)
        processes.watch(stop, restart=tuple(workers))
        err.print("stopping: running jobs finish or go back to the queue")
    except ProcessEnded as error:
        fail(str(error))
    finally:
        processes.stop([*workers, "api"], grace_seconds + KILL_SECONDS)
        processes.stop(["valkey"], KILL_SECONDS)


def _workers(devices: list[str] | None) -> dict[str, dict[str, str]]:
    """Name of each worker's process -> what it is told of its device; or the command ends."""
    if not devices:
        return {"worker": {}}
    from worker.settings import WorkerSettings  # noqa: PLC0415 (only services and workers have it)

    for device in devices:
        read(WorkerSettings, {"device": device})
    names = ["worker", *(f"worker {number}" for number in range(2, len(devices) + 1))]
    return {name: {"SCORESERVE_DEVICE": device} for name, device in zip(names, devices, strict=True)}


def _directory(data_dir: Path | None) -> Path:
    """The directory of the data, made if it is missing and written to, or the command ends."""
    try:
        directory = (data_dir or default_data_dir()).resolve()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        (directory / FILE).touch(mode=0o600)
        (directory / RESULTS).mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        where, why = error.filename or "data", error.strerror or error
        fail(f"cannot keep the queue in {where} ({why}); choose another --data-dir")
    return directory


def _sealing(directory: Path) -> dict[str, str]:
    """What the API is told of the secret that it seals webhooks with in the embedded queue: one that is kept beside it.

    So the queue's file and copies of it do not tell them.
    """
    if os.environ.get(SEALING):
        return {}
    file = directory / "sealing-secret"
    if not file.exists():
        new = file.with_suffix(".new")
        with open(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as written:
            written.write(base64.urlsafe_b64encode(secrets.token_bytes(32)))
        new.replace(file)
    return {SEALING: file.read_text()}


def _check_free(host: str, port: int, directory: Path, used: bool) -> None:
    """Ends the command if nobody can listen there, or if another `up` uses the directory; if both, it says both."""
    taken = _why_taken(host, port)
    if not taken and not used:
        return
    running = Running.find(directory)
    where = f", {running}" if running else ""
    if used and taken:
        fail(
            f"another `scoreserve up` uses {directory}{where}; and {taken}. Stop it, or choose another --data-dir and "
            "another --host or --port"
        )
    if used:
        fail(f"another `scoreserve up` uses {directory}{where}; choose another --data-dir, or stop it")
    other = f"; {running} runs already" if running else ""
    fail(f"{taken}{other}; choose another --host or --port")


def _why_taken(host: str, port: int) -> str | None:
    """Why nobody can listen there; None if somebody can."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, _, _, where in found:
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as asyncio does
                probe.bind(where)
    except OSError as error:
        return f"cannot listen on {host}, port {port} ({error.strerror})"
    return None


def _address(host: str, port: int) -> str:
    """Where a service that listens there is reached from here."""
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _start_valkey(processes: Processes, directory: Path, stop: list[int]) -> str:
    """Starts the embedded server and returns its address. One that lost its `up` is stopped first.

    The lock of the directory is held.
    """
    from redis import Redis  # noqa: PLC0415 (only services and workers have it)

    path = directory / valkey.SOCKET
    if len(os.fsencode(path)) > valkey.LONGEST_SOCKET:
        fail(f"{directory} is too long for a socket's path; choose a shorter --data-dir")
    client = Redis(unix_socket_path=str(path), socket_timeout=2)
    if path.exists() and _answers(client):
        client.shutdown(save=False, nosave=False)
        processes.wait(lambda: not _answers(client), KILL_SECONDS, stop)
    processes.start("valkey", valkey.command(), {}, directory)
    processes.wait(lambda: _answers(client), START_SECONDS, stop)  # it reads its file first
    return valkey.url(directory)


def _answers(client: "Redis") -> bool:
    from redis.exceptions import RedisError  # noqa: PLC0415

    try:
        return bool(client.ping())
    except RedisError:
        return False


def _ready(http: httpx.Client, address: str) -> bool:
    try:
        return http.get(f"{address}/readyz").status_code == 200
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
