"""Latency under load: scoreserve against its peers, with the same network, run as a worker runs it.

All are asked for the very same grids at the same moments of a Poisson process, at a share of the capacity of our
worker, which is measured first: 1, 4 or 16 images of 35, 200 or 1000 network evaluations, 5 % of them cancelled. Each
has one process that computes, on a core of its own, and as many slots; all else is on the other cores. Latency is that
from the moment of arrival until a client has all images of its grid, without those who cancel. Wasted are image-steps
that were computed and went into no grid that a client got.

The peers: LitServe's own loop of steps (ContinuousBatchingLoop) with our engine in it, written as well as it can be and
as it is written at first; its usual server, in whose batches what is finished makes room (compacting) or does not
(padded, as it is written at first); mosec, compacting; and FastAPI with a lock, one request at a time.

The network is so small that a step costs about as much for one image as for 16, as on a GPU. `--model mnist` takes a
model that ships, for which a CPU's costs are in proportion to the images; then `--minutes` has to be many.

On a machine whose speed changes from minute to minute two systems that come one after the other tell less than it does.
`--rounds` lets all have their turn so often at each load, of other arrivals each time, and tells the median of the
ratios; `--peer` leaves the other peers out.

`python -m benchmarks.serving --loads 0.3,0.6,0.9 --minutes 2`
"""

import argparse
import asyncio
import hashlib
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np

from benchmarks import report, small
from benchmarks.arrivals import MEAN_IMAGE_STEPS, SAMPLERS, Arrival, arrivals
from benchmarks.servers import (
    CompactingLitServe,
    ContinuousLitServe,
    FastApiWithLock,
    LitServe,
    Mosec,
    PlainContinuousLitServe,
    Scoreserve,
    Server,
)
from benchmarks.system import apart
from models.environment import describe
from models.files import write_json
from models.store import ZOO, ModelStore

# Our p50 and p99 over those of a bare loop of steps in one process, and over those of all that run a batch to its end.
STEPPING_LIMIT, LIMIT = 1.05, 0.4
LIMIT_LOADS = 0.6, 0.9
REPORTED = (  # what, its name in the record, and how it is written
    ("latency p50, s", "p50_seconds", ".2f"),
    ("latency p99, s", "p99_seconds", ".2f"),
    ("latency of the shortest, p50, s", "p50_seconds_of_the_shortest", ".2f"),
    ("images/s", "images_per_second", ".2f"),
    ("image-steps wasted", "wasted_share", ".1%"),
)


@dataclass(frozen=True)
class Outcome:
    """What became of a grid.

    Args:
        ended: seconds after the beginning of the replay; NaN if the client cancelled.
        digest: of the pixels; empty if the client cancelled.
    """

    ended: float
    digest: str


def client() -> httpx.AsyncClient:
    """As many connections as there are requests, and no limit on their time.

    Idle ones are closed before a server does that, after five seconds, just when the next request is on its way.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=512, keepalive_expiry=2.0)
    return httpx.AsyncClient(timeout=None, limits=limits, verify=False)


async def replay(server: Server, trace: Sequence[Arrival]) -> tuple[list[Outcome], int]:
    """Asks for every grid at its moment; returns what became of each, and the image-steps that were computed.

    Each grid that is under way has a client of its own: one with many connections looks through them all at each event,
    and where many grids wait that is more work than the server's.
    """
    async with AsyncExitStack() as stack:
        http, idle = await stack.enter_async_context(client()), list[httpx.AsyncClient]()
        for evaluations in SAMPLERS:  # what is cached is in the caches
            await server.ask(http, Arrival(0.0, 1, evaluations, 0, None))
        before, begun = await server.computed(http), asyncio.get_running_loop().time()

        def clock() -> float:
            return asyncio.get_running_loop().time() - begun

        async def one(arrival: Arrival) -> Outcome:
            await asyncio.sleep(arrival.at - clock())
            own = idle.pop() if idle else await stack.enter_async_context(client())
            try:
                if arrival.cancel_at is not None:
                    await server.ask_in_vain(own, arrival, arrival.cancel_at - arrival.at)
                    return Outcome(math.nan, "")
                images = await server.ask(own, arrival)
            finally:
                idle.append(own)
            return Outcome(clock(), hashlib.sha256(images.tobytes()).hexdigest())

        outcomes = await asyncio.gather(*(one(arrival) for arrival in trace))
        return list(outcomes), await server.computed(http) - before


def figures_of(trace: Sequence[Arrival], outcomes: Sequence[Outcome], computed: int) -> dict[str, Any]:
    """What is reported of one replay. Seconds, and image-steps."""
    got = [(a, o) for a, o in zip(trace, outcomes, strict=True) if a.cancel_at is None]
    latencies = np.array([o.ended - a.at for a, o in got])
    delivered = sum(a.image_steps for a, _ in got)
    shortest = [o.ended - a.at for a, o in got if a.evaluations == min(SAMPLERS)]
    return {
        "p50_seconds": float(np.quantile(latencies, 0.5)),
        "p99_seconds": float(np.quantile(latencies, 0.99)),
        "mean_seconds": float(latencies.mean()),
        "p50_seconds_of_the_shortest": float(np.quantile(shortest, 0.5)),
        "images_per_second": sum(a.count for a, _ in got) / max(o.ended for _, o in got),
        "image_steps_delivered": delivered,
        "image_steps_wasted": computed - delivered,
        "wasted_share": (computed - delivered) / computed,
        "latencies_seconds": [round(float(seconds), 4) for seconds in latencies],
    }


def same_pixels(*systems: Sequence[Outcome]) -> bool:
    """Whether all systems gave every client the same images."""
    return all(len({outcome.digest for outcome in of_one}) == 1 for of_one in zip(*systems, strict=True))


SYSTEMS: tuple[type[Server], ...] = (
    Scoreserve,
    ContinuousLitServe,
    CompactingLitServe,
    LitServe,
    Mosec,
    FastApiWithLock,
    PlainContinuousLitServe,
)
PEERS = tuple(system.name for system in SYSTEMS if system is not Scoreserve)


def measure(
    store: ModelStore,
    model: str,
    slots: int,
    loads: Sequence[float],
    seconds: float,
    seed: int,
    systems: Sequence[type[Server]],
    rounds: int = 1,
    tell: Callable[[str], None] = lambda _: None,
    keep: Callable[[Any], None] = lambda _: None,
) -> Any:
    """For each round of each load the figures of all systems, and the ratios of ours to each of the others.

    All of them take an hour: as each system ends, `tell` takes a line, and `keep` all figures so far.
    """
    capacities: dict[str, float] = {}
    runs: list[dict[str, Any]] = []
    found = {"capacity_image_steps_per_second": capacities, "runs": runs}
    for system in systems:
        with system(store, model, slots) as server:
            capacities[system.name] = asyncio.run(_capacity(server))
        tell(f"capacity of {system.name}: {capacities[system.name]:.0f} image-steps/s")
    capacity = capacities[Scoreserve.name]
    for load, turn in product(loads, range(rounds)):
        trace = arrivals(seconds, load * capacity, slots / capacity, seed + turn)
        cancelled = sum(arrival.cancel_at is not None for arrival in trace)
        run: dict[str, Any] = {"load": load, "jobs": len(trace), "cancelled": cancelled}
        runs.append(run | {"ratios": {}})
        outcomes: list[Sequence[Outcome]] = []
        for system in systems[:: -1 if turn % 2 else 1]:  # what changes slowly is then shared by all
            with system(store, model, slots) as server:
                outcome, computed = asyncio.run(replay(server, trace))
            outcomes.append(outcome)
            one = run[system.name] = figures_of(trace, outcome, computed)
            tell(f"{load:.0%} load, {system.name}: p50 {one['p50_seconds']:.2f} s, p99 {one['p99_seconds']:.2f} s")
            runs[-1] = run | {"same_pixels": same_pixels(*outcomes), "ratios": _ratios(run)}
            found["ratios"] = ratios_of(runs)
            keep(found)
    return found


def ratios_of(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each load, of ours to each of the other systems, what its rounds have found: the ratios' median, the lowest
    and the highest."""
    found = []
    for load in dict.fromkeys(run["load"] for run in runs):
        rounds = [run["ratios"] for run in runs if run["load"] == load]
        others = {other: [ratios[other] for ratios in rounds if other in ratios] for other in rounds[0]}
        found.append(
            {"load": load, "rounds": len(rounds)}
            | {
                other: {
                    name: {"median": median(of), "lowest": min(of), "highest": max(of)}
                    for name in ("p50_seconds", "p99_seconds")
                    if (of := [ratios[name] for ratios in each if ratios[name] is not None])
                }
                for other, each in others.items()
            }
        )
    return found


def _ratios(run: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Of ours to each of the other systems of a load."""
    if Scoreserve.name not in run:  # not yet its turn
        return {}
    ours = run[Scoreserve.name]
    return {
        other: {name: ours[name] / theirs[name] if theirs[name] else None for _, name, _ in REPORTED}
        for other, theirs in run.items()
        if isinstance(theirs, dict) and other != Scoreserve.name
    }


async def _capacity(server: Server) -> float:
    async with client() as http:
        return await server.capacity(http)


def rows_of(run: dict[str, Any]) -> list[list[str]]:
    """One load as rows of a table: our figure, and each other's with the ratio of ours to it."""
    rows = []
    for what, name, form in REPORTED:
        limited = run["load"] in LIMIT_LOADS and name in ("p50_seconds", "p99_seconds")
        ours = run[Scoreserve.name][name]
        row = [f"{run['load']:.0%} load: {what}", f"{ours:{form}}"]
        for other, ratios in run["ratios"].items():
            ratio = math.nan if ratios[name] is None else ratios[name]
            most = STEPPING_LIMIT if other == ContinuousLitServe.name else LIMIT
            limit = f" (<= {most} {'met' if ratio <= most else 'MISSED'})" if limited else ""
            row += [f"{run[other][name]:{form}}", f"{ratio:.2f}{limit}"]
        rows.append(row)
    return rows


def rows_of_ratios(found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """What `ratios_of` found as rows of a table."""
    rows = []
    for load in found:
        for other, ratios in load.items():
            if isinstance(ratios, dict):
                cells = [f"{of['median']:.2f} ({of['lowest']:.2f} to {of['highest']:.2f})" for of in ratios.values()]
                rows.append([f"{load['load']:.0%} load: {other}", *cells])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--model", default=small.NAME, help="a tiny one by default, which is made for it")
    parser.add_argument("--models-dir", type=Path, default=ZOO, help="where a --model is; those that ship by default")
    parser.add_argument("--loads", default="0.3,0.6,0.9", help="shares of our worker's capacity")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long grids arrive, at each load in each system")
    parser.add_argument("--rounds", type=int, default=1, help="how often all have their turn at each load")
    parser.add_argument(
        "--peer", action="append", choices=PEERS, metavar="NAME", help=f"may be given again; all: {'; '.join(PEERS)}"
    )
    parser.add_argument("--slots", type=int, default=16, help="images that are advanced together, in all")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    machine, console = report.environment(), report.console()
    loads = [float(load) for load in arguments.loads.split(",")]
    os.sched_setaffinity(0, apart()[1])
    with tempfile.TemporaryDirectory() as directory:
        store = ModelStore(arguments.models_dir)
        if arguments.model == small.NAME:
            store = ModelStore(Path(directory))
            small.publish(store)
        card = store.card(arguments.model)
        seconds, tell = 60 * arguments.minutes, partial(print, file=sys.stderr, flush=True)
        model = card.model_dump(mode="json", include={"name", "network"})
        settings = {name: getattr(arguments, name) for name in ("minutes", "rounds", "slots", "seed")}
        asked = {"environment": machine, "model": model, **settings, "mean_image_steps": MEAN_IMAGE_STEPS}

        def keep(found: Any) -> None:
            if arguments.json:
                write_json(arguments.json, {**asked, **found})

        wanted = (Scoreserve.name, *(arguments.peer or PEERS))
        systems = [system for system in SYSTEMS if system.name in wanted]
        found = measure(
            store, card.name, arguments.slots, loads, seconds, arguments.seed, systems, arguments.rounds, tell, keep
        )
    console.print(describe(machine))
    for run in found["runs"]:
        pixels = "the same pixels" if run["same_pixels"] else "PIXELS DIFFER"
        console.print(f"\n{run['jobs']} grids, {run['cancelled']} of them cancelled, {pixels} from all")
        others = [column for name in run["ratios"] for column in (name, "ratio")]
        console.print(report.table(["", Scoreserve.name, *others], rows_of(run)))
    if arguments.rounds > 1:
        console.print(f"\nratios of ours in {arguments.rounds} rounds: median (lowest to highest)")
        console.print(report.table(["", "p50", "p99"], rows_of_ratios(found["ratios"])))


if __name__ == "__main__":
    main()
