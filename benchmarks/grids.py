"""What small grids cost besides their steps, against LitServe's bare loop of steps with our engine in it.

Both systems, each with one process on a core that computes and all else on the others, are started in turn, since one
that waits is not idle, and asked for the same: one image of 35 network evaluations at a time, one after another; and
bursts of them at once, until the last is there. The network is the one of benchmarks.serving, whose steps cost little.

`python -m benchmarks.grids`
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
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


async def seconds_of(server: Server, clients: Sequence[httpx.AsyncClient], seed: int) -> float:
    """What grids of one image take, one of each client, that are asked for at once."""
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, http in enumerate(clients):
            group.create_task(server.ask(http, Arrival(0.0, 1, EVALUATIONS, seed + number, None)))
    return time.perf_counter() - begun


async def asked(server: Server, alone: int, bursts: int, count: int) -> tuple[list[float], list[float]]:
    """Seconds of grids one after another, and of bursts; before each comes one that fills the caches.

    Each grid of a burst has a client of its own: one with many connections looks through them all at each event, which
    is more work than any server has, and keeps their core busy.
    """
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client()) for _ in range(count)]
        one = [await seconds_of(server, clients[:1], seed) for seed in range(alone + 1)]
        many = [await seconds_of(server, clients, number * count) for number in range(bursts + 1)]
    return one[1:], many[1:]


def measure(
    start: Callable[[type[Server]], AbstractContextManager[Server]], rounds: int, alone: int, bursts: int, count: int
) -> dict[str, Any]:
    """Seconds of grids one after another and of bursts, and how ours compare: medians over the rounds.

    Args:
        start: starts a system, which ends with it.
        rounds: how often each is started.
        alone: grids one after another, in each round.
        bursts: in each round.
        count: grids of a burst.
    """
    seconds: dict[str, tuple[list[float], list[float]]] = {system.name: ([], []) for system in SYSTEMS}
    for _ in range(rounds):
        for system in SYSTEMS:
            with start(system) as server:
                for all_of, found in zip(
                    seconds[system.name], asyncio.run(asked(server, alone, bursts, count)), strict=True
                ):
                    all_of.append(median(found))
    (one, many), (their_one, their_many) = (seconds[system.name] for system in SYSTEMS)
    return {
        "alone_seconds": {name: report.spread(found) for name, (found, _) in seconds.items()},
        "alone_ratio": report.spread([a / b for a, b in zip(one, their_one, strict=True)]),
        "burst_seconds": {name: report.spread(found) for name, (_, found) in seconds.items()},
        "burst_ms_more_a_grid": report.spread([1000 * (a - b) / count for a, b in zip(many, their_many, strict=True)]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grids", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each system is started")
    parser.add_argument("--alone", type=int, default=40, help="grids one after another, in each round")
    parser.add_argument("--bursts", type=int, default=3, help="in each round")
    parser.add_argument("--count", type=int, default=100, help="grids of a burst")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    machine, console = report.environment(), report.console()
    os.sched_setaffinity(0, apart()[1])
    asked_for = {name: getattr(arguments, name) for name in ("rounds", "alone", "bursts", "count")}
    with tempfile.TemporaryDirectory() as directory:
        store = ModelStore(Path(directory))
        small.publish(store)
        found = measure(lambda system: system(store, small.NAME, 16), **asked_for)
    console.print(describe(machine))
    rows = []
    for what, key in (("one after another", "alone_seconds"), (f"{arguments.count} at once", "burst_seconds")):
        for name, spread in found[key].items():
            rows.append([f"{what}: {name}", *(f"{1000 * spread[part]:.1f} ms" for part in spread)])
    console.print(report.table(["", "median", "lowest", "highest"], rows))
    for what, key, most in (
        ("one after another, ours over theirs", "alone_ratio", ALONE_LIMIT),
        ("a grid of a burst takes so many ms more", "burst_ms_more_a_grid", BURST_LIMIT),
    ):
        figure, low, high = found[key].values()
        console.print(
            f"{what}: {figure:.2f} ({low:.2f} to {high:.2f}; <= {most} {'met' if figure <= most else 'MISSED'})"
        )
    if arguments.json:
        write_json(arguments.json, {"environment": machine, **asked_for, **found})


if __name__ == "__main__":
    main()
