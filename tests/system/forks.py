"""Workers that are forked from a process which has imported what they import: that is most of a start, and where it is
not what is tested, it need not be done again for each."""

import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO

IMPORTED = ["cli.main", "worker.process", "worker.settings"]
CONTEXT = get_context("forkserver")


class Forked:
    """A process, with what tests use of `subprocess.Popen`.

    Args:
        process: that has been started.
        log: the file that has what it says.
    """

    def __init__(self, process: Any, log: BinaryIO) -> None:
        self._process, self.pid, self.stderr = process, process.pid, log

    @property
    def returncode(self) -> int | None:
        code: int | None = self._process.exitcode
        return code

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("scoreserve", timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        self.wait(timeout)
        return b"", self.stderr.read()

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()


def fork(arguments: tuple[str, ...], environment: Mapping[str, str], log: Path) -> Forked:
    """Runs `scoreserve ...` in a session of its own; the environment is that of the first, and these."""
    CONTEXT.set_forkserver_preload(IMPORTED)
    process = CONTEXT.Process(target=_run, args=(arguments, dict(environment), str(log)))
    log.touch()
    process.start()
    return Forked(process, log.open("rb"))


def _run(arguments: tuple[str, ...], environment: dict[str, str], log: str) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    out = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    from cli.main import app  # noqa: PLC0415 (of the process that is forked)

    app(list(arguments), prog_name="scoreserve")
