"""What small grids cost besides their steps, against LitServe's bare loop of steps with our engine in it.

Both systems run, with one process on a core that computes and all else on the others, and are asked in turn for the
same: one image of 35 network evaluations at a time, one after another; and a burst of them at once, until the last is
there. The network is the one of benchmarks.serving, whose steps cost little.

`python -m benchmarks.grids`
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from benchmarks import report, small
from benchmarks.arrivals import Arrival
from benchmarks.servers import ContinuousLitServe, Scoreserve, Server
from benchmarks.serving import client
from benchmarks.system import apart
from models.environment import describe
from models.files import write_json
from models.store import ModelStore

EVALUATIONS = 35
ALONE_LIMIT = 1.3  # our median over that of the loop
BURST_LIMIT = 1.5  # ms that a grid of a burst may cost more
SYSTEMS: tuple[type[Server], type[Server]] = (Scoreserve, ContinuousLitServe)


async def seconds_of(server: Server, http: httpx.AsyncClient, count: int, seed: int) -> float:
    """What so many grids of one image take that are asked for at once."""
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(server.ask(http, Arrival(0.0, 1, EVALUATIONS, seed + number, None)))
    return time.perf_counter() - begun


async def in_turn(servers: list[Server], rounds: int, count: int) -> list[list[float]]:
    """For each server, the seconds of each round of so many grids at once. The first round, of caches, is left out."""
    found: list[list[float]] = [[] for _ in servers]
    async with client() as http:
        for number in range(rounds + 1):
            for server, seconds in zip(servers, found, strict=True):
                seconds.append(await seconds_of(server, http, count, number * count))
    return [seconds[1:] for seconds in found]


def measure(start: Callable[[type[Server]], Server], rounds: int, bursts: int, count: int) -> dict[str, Any]:
    """Seconds of grids one after another and of bursts, and how ours compare.

    Args:
        start: starts a system.
        rounds: grids, one after another.
        bursts: how many.
        count: grids of each.
    """
    servers = [start(system) for system in SYSTEMS]
    alone = asyncio.run(in_turn(servers, rounds, 1))
    together = asyncio.run(in_turn(servers, bursts, count))
    ours, theirs = together
    more = [1000 * (a - b) / count for a, b in zip(ours, theirs, strict=True)]
    names = [system.name for system in SYSTEMS]
    return {
        "alone_seconds": dict(zip(names, map(report.spread, alone), strict=True)),
        "alone_ratio": median(alone[0]) / median(alone[1]),
        "burst_seconds": dict(zip(names, map(report.spread, together), strict=True)),
        "burst_ms_more_a_grid": report.spread(more),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grids", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="grids of each, one after another")
    parser.add_argument("--bursts", type=int, default=15, help="of each")
    parser.add_argument("--count", type=int, default=100, help="grids of a burst")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    machine, console = report.environment(), report.console()
    os.sched_setaffinity(0, apart()[1])
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        store = ModelStore(Path(directory))
        small.publish(store)
        found = measure(
            lambda system: stack.enter_context(system(store, small.NAME, 16)),
            arguments.rounds,
            arguments.bursts,
            arguments.count,
        )
    console.print(describe(machine))
    rows = []
    for what, key in (("one after another", "alone_seconds"), (f"{arguments.count} at once", "burst_seconds")):
        for name, spread in found[key].items():
            rows.append([f"{what}: {name}", *(f"{1000 * spread[part]:.1f} ms" for part in spread)])
    console.print(report.table(["", "median", "lowest", "highest"], rows))
    more = found["burst_ms_more_a_grid"]["median"]
    for what, figure, most in (
        ("one after another, ours over theirs", found["alone_ratio"], ALONE_LIMIT),
        ("a grid of a burst takes so many ms more", more, BURST_LIMIT),
    ):
        console.print(f"{what}: {figure:.2f} (<= {most} {'met' if figure <= most else 'MISSED'})")
    if arguments.json:
        asked = {name: getattr(arguments, name) for name in ("rounds", "bursts", "count")}
        write_json(arguments.json, {"environment": machine, **asked, **found})


if __name__ == "__main__":
    main()
