"""Whether memory is flat: many small jobs through the whole service, over HTTP, and the memory of all three of it.

Each job asks for 1 to 4 images of a few network evaluations, waits for them, and fetches them as an npz; every 20th is
cancelled instead. Results live for some seconds, so that as much is forgotten as comes in. After the first thousand
jobs the resident memory of the worker and of the service, and what Redis counts as used, must not grow: reported is how
much a line through all later samples rises (Theil-Sen: the median of the slopes between pairs of them), which may be at
most `--bound` of its height at the beginning.

`python -m benchmarks.soak --jobs 20000`
"""

import argparse
import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from benchmarks import report, small
from benchmarks.system import System, cores
from models.environment import describe
from models.files import write_json
from models.store import ModelStore

WARM = 1000  # jobs before memory has to be flat
EVERY_SECONDS = 1.0  # between two samples
POINTS = 400  # about as many samples make a line, since pairs grow with their square, and are kept
NAMES = {"worker": "worker, resident", "service": "service, resident", "redis": "Redis, used"}


def resident(pid: int) -> int:
    """Bytes of a process that are in memory and not of a file that it maps."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def growth(jobs: list[int], used: list[int]) -> float:
    """How much a line through the samples rises from the first to the last, over its height at the first."""
    step = max(1, len(jobs) // POINTS)
    points = list(zip(jobs, used, strict=True))[::step]
    slope = median((b - a) / (n - m) for (m, a), (n, b) in itertools.combinations(points, 2) if n > m)
    start = median(y - slope * (x - points[0][0]) for x, y in points)
    return slope * (points[-1][0] - points[0][0]) / start


async def client(address: str, numbers: "itertools.count[int]", jobs: int, done: Callable[[], None], seed: int) -> None:
    """Asks for one job after the other, as long as there are numbers below `jobs`."""
    rng = random.Random(seed)
    async with httpx.AsyncClient(base_url=address, timeout=None, limits=httpx.Limits(keepalive_expiry=2.0)) as http:
        while next(numbers) < jobs:
            sampler = rng.choice([{"name": "heun", "levels": rng.randint(2, 6)}, {"levels": 4, "steps_per_level": 2}])
            body = {"count": rng.randint(1, 4), "seed": rng.randrange(2**32), "sampler": sampler}
            if rng.random() < 0.05:
                job = (await http.post("/samples", json=body)).raise_for_status().json()
                answer = await http.delete(f"/jobs/{job['id']}")
                if answer.status_code not in (200, 409):
                    answer.raise_for_status()
            else:
                answer = await http.post("/samples", json=body, headers={"Accept": "application/x-npz"})
                answer.raise_for_status()
                if len(answer.content) < 64 * body["count"]:
                    raise RuntimeError(f"an answer of {len(answer.content)} bytes has not {body['count']} images")
            done()


async def soak(system: System, worker: int, jobs: int, clients: int) -> list[dict[str, float]]:
    """Samples of the memory, in bytes, with the time in seconds and the jobs that had ended."""
    samples: list[dict[str, float]] = []
    ended, begun = 0, time.monotonic()

    def look() -> None:
        info: Any = system.queue.connection.info("memory")
        sample = {"seconds": round(time.monotonic() - begun, 2), "jobs": ended}
        samples.append(
            sample | {"worker": resident(worker), "service": resident(system.api_pid), "redis": info["used_memory"]}
        )

    def done() -> None:
        nonlocal ended
        ended += 1

    async def watch() -> None:
        while True:
            look()
            system.children.check()
            await asyncio.sleep(EVERY_SECONDS)

    numbers = itertools.count()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        work = [group.create_task(client(system.address, numbers, jobs, done, seed)) for seed in range(clients)]
        await asyncio.wait(work)
        watching.cancel()
    look()
    return samples


def verdict(samples: list[dict[str, float]], warm: int, bound: float) -> dict[str, Any]:
    """For each of NAMES: memory after the warm-up and at the end, its growth, and whether that is within the bound."""
    later = [sample for sample in samples if sample["jobs"] >= warm]
    jobs = [int(sample["jobs"]) for sample in later]
    out = {}
    for name in NAMES:
        used = [int(sample[name]) for sample in later]
        grown = growth(jobs, used)
        out[name] = {"first": used[0], "last": used[-1], "highest": max(used), "growth": grown, "flat": grown <= bound}
    return out


def plot(samples: list[dict[str, float]], path: Path) -> None:
    """Memory over jobs, as a picture; needs the extra `train`."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra)

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    for name, label in NAMES.items():
        axes.plot([s["jobs"] for s in samples], [s[name] / 2**20 for s in samples], label=label)
    axes.set(xlabel="jobs ended", ylabel="MiB", yscale="log")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=24, help="how many wait for a job at a time")
    parser.add_argument("--warm", type=int, default=WARM, help="jobs before memory has to be flat")
    parser.add_argument("--ttl", type=int, default=10, help="seconds that a result is kept")
    parser.add_argument("--bound", type=float, default=0.02, help="growth over all jobs that counts as flat")
    parser.add_argument("--plot", type=Path, help="write a picture to this file")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    machine, console = report.environment(), report.console()
    everywhere = cores()
    with tempfile.TemporaryDirectory() as directory:
        store, place = ModelStore(Path(directory) / "models"), Path(directory) / "system"
        place.mkdir()
        small.publish(store)
        settings = {"SCORESERVE_RESULT_TTL_SECONDS": str(arguments.ttl)}
        with System(place, store, small.NAME, everywhere, **settings) as system:
            worker = system.worker(everywhere[0])
            system.wait(workers=1)
            samples = asyncio.run(soak(system, worker, arguments.jobs, arguments.clients))
            totals = dict(system.queue.totals())
    found = verdict(samples, arguments.warm, arguments.bound)
    settings = {name: getattr(arguments, name) for name in ("jobs", "clients", "warm", "ttl", "bound")}
    kept = samples[:: max(1, len(samples) // POINTS)]
    figures = {"environment": machine, **settings, "totals": totals, "verdict": found, "samples": kept}
    rows = [
        [
            NAMES[name],
            *(f"{of[part] / 2**20:.1f}" for part in ("first", "last", "highest")),
            f"{of['growth']:+.2%}",
            f"<= {arguments.bound:.0%} {'met' if of['flat'] else 'MISSED'}",
        ]
        for name, of in found.items()
    ]
    console.print(describe(machine))
    console.print(f"{arguments.jobs} jobs in {samples[-1]['seconds']:.0f} s; MiB after the first {arguments.warm}:")
    console.print(report.table(["", "first", "last", "highest", "growth", "limit"], rows))
    if arguments.plot:
        plot(samples, arguments.plot)
    if arguments.json:
        write_json(arguments.json, figures)


if __name__ == "__main__":
    main()
