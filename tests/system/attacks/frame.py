"""Attacks on a live service, of two API processes with keys, beside a victim that keeps asking.

An attack module has functions that take a Mallory, each an attack; its tests give them to `Target.attacked`. The short
version is a part of the tests; `pytest tests/system/attacks --attack-seconds 15 -n 0 -s` prints the table that
docs/operations.md has.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from redis import Redis

from service.access.keys import Keys
from tests.ports import free_port
from tests.system.markdown import ROOT

MOST_MEGABYTES = 512  # of an API process, at any time
SHORT_SECONDS = 1.0
LEAST_ASKED = 30  # times, before an attack is over: a median of fewer says little, and a slow machine answers few
MOST_TIMES = (2, 5)  # what a victim's median and 99th percentile may be of the quiet ones
# The same of the short version, on a machine that is busy with other tests; or so many milliseconds, or rounds of all
# connections of Mallory's: where a busy service answers each in its turn, the victim's turn is one of these.
MOST_TIMES_SHORT, MOST_SHORT, MOST_ROUNDS_SHORT = (8, 25), (250, 2500), (2, 5)
HEADING = (
    "| attack | answers | victim's median, ms | p99, ms | memory, MB | a minute later |\n|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Outcome:
    """What an attack came to; times in milliseconds, memory in MB of the larger API process."""

    name: str
    answers: dict[str, int]
    quiet: tuple[float, float]
    under: tuple[float, float]
    peak: float
    left: float

    def __str__(self) -> str:
        said = ", ".join(f"{number} x {what}" for what, number in sorted(self.answers.items(), key=lambda a: -a[1])[:4])
        times = (f"{self.quiet[i]:.1f} -> {self.under[i]:.1f} ({self.under[i] / self.quiet[i]:.1f})" for i in range(2))
        return f"| {self.name} | {said} | {' | '.join(times)} | {self.peak:.0f} | {self.left:.0f} |"


class Victim:
    """Asks both processes in turn, for its job and for a new one, until it is stopped."""

    def __init__(self, addresses: list[str], key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self.clients = [httpx.Client(base_url=a, headers=headers, timeout=60, trust_env=False) for a in addresses]
        self.job = self.served()
        self.statuses: Counter[int | str] = Counter()

    def served(self) -> dict[str, Any]:
        """A job of its own, done: the worker works."""
        job: dict[str, Any] = self.clients[0].post("/samples", json={"count": 1}, headers={"Prefer": "wait=60"}).json()
        assert job["state"] == "finished", f"the worker has stopped: {job}"
        return job

    def asks(self, seconds: float, going: Callable[[int], bool] = lambda asked: False) -> list[float]:
        """What each answer took, in milliseconds.

        Args:
            seconds: for which it asks at least.
            going: whether it goes on, told how often it has asked.
        """
        times: list[float] = []
        ends = time.monotonic() + seconds
        while time.monotonic() < ends or going(len(times)):
            http = self.clients[len(times) % len(self.clients)]
            begun = time.perf_counter()
            try:
                if len(times) % 10 == 9:
                    answer = http.post("/samples", json={"count": 1})
                else:
                    answer = http.get(self.job["links"]["self"])
                self.statuses[answer.status_code] += 1
            except httpx.TransportError as error:
                self.statuses[type(error).__name__] += 1
            times.append(1000 * (time.perf_counter() - begun))
            time.sleep(0.005)
        return times

    def close(self) -> None:
        for http in self.clients:
            http.close()


class Target:
    """API processes and a worker of the model `tiny`, with keys for a victim and for Mallory.

    Args:
        models_dir: that has the model.
        url: of Redis, for who may do all.
        directory: for what the processes log.
        seconds: how long an attack lasts; None for the short version.
        processes: of the API.
        settings: of the service, besides.
    """

    def __init__(
        self,
        models_dir: Path,
        url: str,
        directory: Path,
        seconds: float | None = None,
        processes: int = 2,
        **settings: str,
    ) -> None:
        self.url, self.directory = url, directory
        self.seconds, self.short = seconds or SHORT_SECONDS, seconds is None
        self.outcomes: list[Outcome] = []
        self.environment = {
            **os.environ,
            "SCORESERVE_MODELS_DIR": str(models_dir),
            "SCORESERVE_DEFAULT_MODEL": "tiny",
            "SCORESERVE_GRACE_SECONDS": "0",
            "SCORESERVE_HEADER_TIMEOUT_SECONDS": "2",
            "SCORESERVE_BODY_TIMEOUT_SECONDS": "5",
            "SCORESERVE_WRITE_TIMEOUT_SECONDS": "2",
            "SCORESERVE_REDIS_TIMEOUT_SECONDS": "10",
            **settings,
        }
        with Redis.from_url(url) as redis:
            keys = Keys(redis)
            (_, self.victims), (_, self.mallorys) = (keys.create(name) for name in ("victim", "mallory"))
        ports = [free_port() for _ in range(processes)]
        self.addresses = [f"http://127.0.0.1:{port}" for port in ports]
        self.processes = [self._start("service", "api", "--port", str(port)) for port in ports]
        self.worker = self._start("worker", "worker")
        deadline = time.monotonic() + 120
        while not all(map(_ready, self.addresses)):
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def _start(self, user: str, *arguments: str) -> subprocess.Popen[bytes]:
        address = self.url.replace("//", f"//{user}:CHANGE-ME-{user.upper()}@")
        with (self.directory / f"log-{arguments[-1]}").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "cli.main", *arguments],
                env={**self.environment, "SCORESERVE_REDIS_URL": address},
                stderr=log,
                start_new_session=True,
            )

    def log(self) -> str:
        """What the processes have logged, the last of it."""
        return "\n".join(path.read_text()[-2000:] for path in sorted(self.directory.glob("log-*")))

    def megabytes(self, what: str = "VmRSS") -> float:
        """Memory of the larger API process now, or the most that it had (VmHWM) since `forget`."""
        found = []
        for process in self.processes:
            assert process.poll() is None, f"an API process has ended: {self.log()}"
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            found.append(next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what)))
        return max(found)

    def forget(self) -> None:
        """Has the system forget how much memory the processes had at most."""
        for process in self.processes:
            with suppress(OSError):  # else it is the most since they were started
                Path(f"/proc/{process.pid}/clear_refs").write_text("5")

    def files(self) -> int:
        """Files and connections that the API processes have open."""
        return sum(len(list(Path(f"/proc/{process.pid}/fd").iterdir())) for process in self.processes)

    def attacked(self, module: str, attack: str) -> Outcome:
        """Sees a victim through an attack, and the service through its end.

        What must hold on any machine, however busy: the victim is never failed, the service stays small and alive, and
        has soon given everything back. What the victim waits is bounded loosely in the short version, since Mallory
        and other tests need processors too. Quiet is what comes before the attack and after it, of a machine whose
        pace may change.
        """
        with closing(Victim(self.addresses, self.victims)) as victim:
            return self._attacked(victim, module, attack)

    def _attacked(self, victim: Victim, module: str, attack: str) -> Outcome:
        victim.asks(0.5)
        files = self.files()
        quiet = victim.asks(min(5.0, self.seconds / 3))
        self.forget()
        command = [sys.executable, "-m", "tests.system.attacks.mallory", module, attack]
        mallory = subprocess.Popen(
            [*command, str(self.seconds), self.mallorys, *self.addresses],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        answered: list[bytes] = []
        begun = threading.Event()

        def read() -> None:
            with mallory:
                for line in mallory.stdout or ():
                    answered.append(line)
                    begun.set()

        reader = threading.Thread(target=read)
        reader.start()
        victim.asks(0.1, lambda _: not begun.is_set() and mallory.poll() is None)  # what is prepared is no attack
        since = time.monotonic()
        under = victim.asks(self.seconds, lambda asked: asked < LEAST_ASKED and mallory.poll() is None)
        if mallory.stdin:
            mallory.stdin.close()  # that is enough: it may end
        under += victim.asks(0, lambda _: mallory.poll() is None)
        reader.join()
        lasted = 1000 * (time.monotonic() - since)
        peak = self.megabytes("VmHWM")
        self._given_back(files)
        victim.served()
        quiet += victim.asks(min(5.0, self.seconds / 3))
        times = _middle_and_end(quiet), _middle_and_end(under)
        told = json.loads(answered[-1])
        outcome = Outcome(attack, told["answers"], *times, peak, self.megabytes())
        self.outcomes.append(outcome)
        print(f"\n{outcome}")
        assert victim.statuses.keys() <= {200, 202}, f"the victim was failed: {victim.statuses} {self.log()}"
        assert not [status for status in outcome.answers if status in ("500", "502", "504")], self.log()
        assert peak < MOST_MEGABYTES
        most, least, rounds = (
            (MOST_TIMES_SHORT, MOST_SHORT, MOST_ROUNDS_SHORT) if self.short else (MOST_TIMES, (0, 0), (0, 0))
        )
        a_round = lasted * told["in_turn"] / max(1, sum(outcome.answers.values()))
        for was, now, ratio, enough, number in zip(outcome.quiet, outcome.under, most, least, rounds, strict=True):
            assert now < max(ratio * was, enough, number * a_round), "the victim has waited too long"
        return outcome

    def _given_back(self, files: int) -> None:
        """Waits until the service has nothing open that it had not before."""
        deadline = time.monotonic() + 60
        while self.files() > files + 60:  # connections to Redis, and processes that draw, stay for a while
            assert time.monotonic() < deadline, f"{self.files()} are open, and {files} were"
            time.sleep(0.1)

    def stop(self) -> None:
        for process in [*self.processes, self.worker]:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _middle_and_end(times: list[float]) -> tuple[float, float]:
    """Median and 99th percentile."""
    return median(times), sorted(times)[int(0.99 * len(times))]


def _ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
