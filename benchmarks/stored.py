"""Does Redis stay small while a job makes many images, and are they streamed? `python -m benchmarks.stored`.

A job of 50,000 images of 32 x 32 x 3 (150 MB) goes through a real worker whose engine computes nothing, a real Redis,
and a results store: a directory, and a bucket of moto, a server of the S3 protocol. In its middle the store is away for
a minute. Measured is the memory of Redis throughout, and the memory and the seconds that the npz takes; looked at is
that every image is what was made, and none twice. Ends with 1 if a limit of docs/scaling.md does not hold.
"""

import argparse
import logging
import os
import signal
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks import report
from benchmarks.fleet import server
from models.card import ImageShape
from models.files import write_json
from models.plan import plan
from models.store import ZOO, ModelStore
from service.answering.views import samples_npz
from tests import buckets
from worker.batching import BatchingWorker
from worker.queue.jobs import JobQueue
from worker.queue.requests import SampleRequest
from worker.queue.results import Results
from worker.queue.server import connect
from worker.settings import WorkerSettings

SHAPE = ImageShape(channels=3, height=32, width=32)
MOST_REDIS, MOST_STREAMED = 50e6, 32e6  # bytes


def made(index: int) -> np.ndarray:
    """The pixels of an image, which depend on its number alone."""
    return np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8)


class Part:
    """A shard in hand, done with its first step."""

    fault, chains, sigma = None, (), None
    lane = SimpleNamespace(arithmetic="none")

    def __init__(self, first: int, count: int, rows: int) -> None:
        self.first, self.count, self.rows = first, count, rows
        self.image_steps_done = 0

    def look_for_faults(self) -> None:
        pass

    def pixels(self) -> np.ndarray:
        return np.stack([made(index) for index in range(self.first, self.first + self.count)])

    def frames(self) -> None:
        return None


class Batch:
    """What a BatchingWorker needs of a Batch, without a network."""

    device, arithmetics, longest_step = "cpu", {}, 0.0

    def __init__(self, slots: int) -> None:
        self.store, self.slots, self.image_steps = ModelStore(ZOO), slots, 0
        self.card = self.store.card("mnist")
        self.parts: list[Part] = []
        self.on_step: Callable[..., None] = lambda *_: None

    @property
    def active(self) -> int:
        return sum(part.count for part in self.parts)

    @property
    def free(self) -> int:
        return max(0, self.slots - self.active)

    @property
    def cards(self) -> list[Any]:
        return [self.card]

    def paces(self) -> dict[str, tuple[float, float]]:
        return {"mnist": (0.001, 100_000.0)}

    def fits(self, card: Any) -> bool:  # noqa: ARG002
        return True

    def watch(self, parts: Any) -> None:
        pass

    def admit(self, request: SampleRequest, first: int, count: int, *_: Any) -> Part:
        self.parts.append(Part(first, count, len(plan(request.sampler, self.card)[1])))
        return self.parts[-1]

    def step(self) -> list[Part]:
        ended, self.parts = self.parts, []
        for part in ended:
            part.image_steps_done = part.count * part.rows
            self.image_steps += part.image_steps_done
        return ended

    def diverged(self) -> list[Part]:
        return []

    def drop(self, part: Part) -> None:
        if part in self.parts:
            self.parts.remove(part)


@contextmanager
def directory() -> Iterator[tuple[str, Callable[[bool], None]]]:
    """A store, and what takes it away and gives it back."""
    with tempfile.TemporaryDirectory() as base:
        there, aside = Path(base, "results"), Path(base, "aside")
        there.mkdir()

        def away(is_away: bool) -> None:
            (there if is_away else aside).rename(aside if is_away else there)

        yield there.as_uri(), away


@contextmanager
def bucket() -> Iterator[tuple[str, Callable[[bool], None]]]:
    """Likewise; its server is frozen."""
    with buckets.server() as (address, process):
        os.environ.update({**buckets.KEYS, "AWS_ENDPOINT_URL": address})
        buckets.make(address, "results")

        def away(is_away: bool) -> None:
            process.send_signal(signal.SIGSTOP if is_away else signal.SIGCONT)

        yield "s3://results/here", away


def run(settings: WorkerSettings, count: int, away: Callable[[bool], None], seconds: float) -> dict[str, float]:
    """The job, and what was measured."""
    url, slots = settings.redis_url, settings.slots
    queue = JobQueue(connect(url, 30, 0), settings)
    batch: Any = Batch(slots)
    worker = BatchingWorker(connect(url, 30, 0), batch, settings)
    sampler, table = plan(None, batch.card)
    request = SampleRequest(model="mnist", version=batch.card.version, count=count, seed=1, sampler=sampler)
    before = queue.memory().used
    job = queue.accept(queue.offer(request, SHAPE, count * len(table)))
    most, outage = 0, 0.0
    stop = threading.Event()

    def watch() -> None:
        nonlocal most, outage
        while not stop.wait(0.02):
            most = max(most, queue.memory().used)
            if not outage and batch.image_steps > job.image_steps / 2:
                outage = time.monotonic()
                away(True)
                stop.wait(seconds)
                away(False)
                outage = time.monotonic() - outage

    watching = threading.Thread(target=watch)
    begun = time.monotonic()
    watching.start()
    worker.work(burst=True)
    took = time.monotonic() - begun
    stop.set()
    watching.join()
    ended = queue.get(job.id)
    assert ended.state == "finished", ended.error
    assert batch.image_steps == job.image_steps, "some images were made twice"
    results, index = Results(queue.connection), 0
    for images in results.pieces(ended):
        assert all(np.array_equal(image, made(index + place)) for place, image in enumerate(images))
        index += len(images)
    assert index == count
    begun = time.monotonic()
    sizes = sum(len(piece) for piece in samples_npz(ended, results.pieces(ended)))
    npz_seconds = time.monotonic() - begun
    tracemalloc.start()
    for number, _ in enumerate(samples_npz(ended, results.pieces(ended))):
        if number > 200:
            break
    streamed = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "redis_bytes": most, "redis_grew_bytes": most - before, "away_seconds": outage, "seconds": took,
        "npz_bytes": sizes, "npz_seconds": npz_seconds, "npz_memory_bytes": streamed,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000, help="images")
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--shard-size", type=int, default=64)
    parser.add_argument("--away", type=float, default=60.0, help="seconds that the store is away")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    found = {}
    for kind in (directory, bucket):
        with server() as (name, url), kind() as (results_url, away):
            sizes = {"slots": options.slots, "shard_size": options.shard_size}
            settings = WorkerSettings(redis_url=url, results_url=results_url, **sizes)
            found[urlsplit(results_url).scheme] = run(settings, options.count, away, options.away)
    out = report.console()
    out.print(f"{name}, {options.count:,} images of 32 x 32 x 3, {options.count * SHAPE.size / 1e6:.0f} MB")
    columns = ["store", "Redis at most", "away", "job", "npz", "its seconds", "its memory"]
    out.print(report.table(columns, [[kind, *_row(of)] for kind, of in found.items()]))
    if options.json:
        write_json(options.json, {"environment": report.environment(), "server": name, "count": options.count, **found})
    faults = [
        f"{kind}: {name} is {of[name]:,.0f}, more than {most:,.0f}"
        for kind, of in found.items()
        for name, most in (("redis_bytes", MOST_REDIS), ("npz_memory_bytes", MOST_STREAMED))
        if of[name] > most
    ]
    if faults:
        raise SystemExit("\n".join(faults))


def _row(of: dict[str, float]) -> list[str]:
    return [
        f"{of['redis_bytes'] / 1e6:.1f} MB", f"{of['away_seconds']:.0f} s", f"{of['seconds']:.0f} s",
        f"{of['npz_bytes'] / 1e6:.0f} MB", f"{of['npz_seconds']:.1f} s", f"{of['npz_memory_bytes'] / 1e6:.1f} MB",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
