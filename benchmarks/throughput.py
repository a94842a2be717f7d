"""How many requests a second one API process answers, beside a bare FastAPI route that does one Redis call.

The API process has one core to itself, and the load generator, Redis and everything else share another. Both services
run under the same server and are asked in turn, several times, over kept-alive connections; Redis is emptied before
each turn, and a pace of a worker is written down, so that a forecast is made for every job.

`python -m benchmarks.throughput --seconds 4 --repeat 5`; every figure is the median over the repeats.
"""

import argparse
import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis import Redis

from benchmarks import report
from benchmarks.system import Children, apart, free_port, server, wait_for
from models.environment import describe
from models.files import write_json
from service.access.keys import Keys

LIMIT = 0.5  # of the bare route's rate, at least
WARM_SECONDS = 1.0


def bare_app(redis_url: str) -> Any:
    """What a FastAPI service does at least: one Redis call, and its answer as JSON."""
    import redis.asyncio  # noqa: PLC0415
    from fastapi import FastAPI  # noqa: PLC0415

    app, connection = FastAPI(), redis.asyncio.Redis.from_url(redis_url)

    @app.get("/bare")
    async def bare() -> dict[str, str | None]:
        value = await connection.get("bare")
        return {"value": value}

    return app


def serve_bare(redis_url: str, port: int) -> None:
    """Runs the bare service."""
    import uvicorn  # noqa: PLC0415

    uvicorn.run(bare_app(redis_url), host="127.0.0.1", port=port, log_level="warning")


def start(kind: str, redis_url: str, children: Children, core: int) -> int:
    """Starts a service on a core of its own; returns its port once it answers."""
    port, limits = free_port(), {f"SCORESERVE_MAX_QUEUE_{what}": str(10**15) for what in ("JOBS", "IMAGE_STEPS")}
    if kind == "limited":
        limits |= {"SCORESERVE_REQUESTS_PER_MINUTE": str(10**7), "SCORESERVE_MAX_CLIENT_IMAGE_STEPS": str(10**12)}
    what = ["benchmarks.throughput", "--serve"] if kind == "bare" else ["cli.main", "api"]
    children.start([sys.executable, "-m", *what, "--redis-url", redis_url, "--port", str(port)], limits, [core])

    def answers() -> bool:
        children.check()
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        return False

    wait_for(answers, kind)
    return port


async def _ask(port: int, request: bytes, until: float, seconds: list[float]) -> None:
    """Asks again and again over one connection; adds how long each answer took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        begun = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(head.decode())
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0])
        await reader.readexactly(length)
        seconds.append(time.perf_counter() - begun)
    writer.close()


async def _load(port: int, request: bytes, seconds: float, connections: int) -> list[float]:
    taken: list[float] = []
    until = time.perf_counter() + seconds
    await asyncio.gather(*(_ask(port, request, until, taken) for _ in range(connections)))
    return taken


def measure(port: int, request: bytes, seconds: float, connections: int) -> tuple[float, float]:
    """Requests a second, and the 99th percentile of milliseconds."""
    asyncio.run(_load(port, request, WARM_SECONDS, connections))
    taken = sorted(asyncio.run(_load(port, request, seconds, connections)))
    return len(taken) / seconds, 1e3 * taken[int(0.99 * len(taken))]


def request(method: str, path: str, body: bytes = b"", key: str = "") -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: application/json"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []
    lines += [f"Authorization: Bearer {key}"] if key else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def run(redis_url: str, ports: dict[str, int], seconds: float, repeat: int, connections: int) -> dict[str, Any]:
    """All figures: for each route requests a second, p99, and the rate over that of the bare route next to it."""
    routes = {"bare": "bare", "POST /samples": "open", "GET /jobs/{id}": "open"}
    routes |= {f"{name}, with a key and all limits": "limited" for name in list(routes)[1:]}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in routes}
    with Redis.from_url(redis_url) as redis:
        for _ in range(repeat):
            for name, kind in routes.items():
                redis.flushall()
                redis.set("bare", "value")
                redis.sadd("rq:workers", "rq:worker:one")
                redis.hset("rq:worker:one", "pace", json.dumps({"mnist": [0.01, 1000.0]}))
                key = Keys(redis).create("benchmark", None, None)[1] if kind == "limited" else ""
                time.sleep(1.5)  # until the services know that there is a key, or none any more
                ask = request("GET", "/bare")
                if kind != "bare":
                    ask = request("POST", "/samples", b'{"count": 16, "seed": 1}', key)
                if name.startswith("GET"):
                    ask = request("GET", f"/jobs/{asyncio.run(_job(ports[kind], ask))}", key=key)
                found[name].append(measure(ports[kind], ask, seconds, connections))
    return {
        name: {
            "requests_per_second": report.spread([rate for rate, _ in turns]),
            "p99_milliseconds": report.spread([p99 for _, p99 in turns]),
            "of_bare": report.spread([rate / bare for (rate, _), (bare, _) in zip(turns, found["bare"], strict=True)]),
        }
        for name, turns in found.items()
    }


async def _job(port: int, ask: bytes) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(ask)
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0]))
    writer.close()
    return str(json.loads(body)["id"])


def rows_of(figures: dict[str, Any]) -> list[list[str]]:
    """The figures as rows of a table."""
    rows = []
    for name, found in figures.items():
        rate, p99, share = (found[what] for what in ("requests_per_second", "p99_milliseconds", "of_bare"))
        verdict = "" if name == "bare" else f">= {LIMIT:.0%} {'met' if share['median'] >= LIMIT else 'MISSED'}"
        spread = f"{share['lowest']:.0%} to {share['highest']:.0%}"
        rows.append([name, f"{rate['median']:.0f}", f"{p99['median']:.0f}", f"{share['median']:.0%}", spread, verdict])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    for name in ("--redis-url", "--port"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve_bare(arguments.redis_url, int(arguments.port))
        return
    machine, console = report.environment(), report.console()
    core, others = apart()
    os.sched_setaffinity(0, others)
    with tempfile.TemporaryDirectory() as directory:
        valkey, children = server(Path(directory)), Children(Path(directory))
        valkey.start()
        try:
            redis_url = f"unix://{valkey.unix_socket_path}"
            ports = {kind: start(kind, redis_url, children, core) for kind in ("bare", "open", "limited")}
            figures = run(redis_url, ports, arguments.seconds, arguments.repeat, arguments.connections)
        finally:
            children.stop()
            valkey.stop()
    console.print(describe(machine))
    columns = ["", "requests/s", "p99 ms", "of the bare route's rate", "lowest to highest", "limit"]
    console.print(report.table(columns, rows_of(figures)))
    if arguments.json:
        write_json(arguments.json, {"environment": machine, "connections": arguments.connections, "routes": figures})


if __name__ == "__main__":
    main()
