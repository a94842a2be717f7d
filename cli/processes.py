"""Child processes of `scoreserve up`: started together, watched, stopped without a rest."""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import scoreserve
from cli.console import err

POLL_SECONDS = 0.1
RESTART_SECONDS = 1.0
PR_SET_PDEATHSIG = 1


class ProcessEnded(RuntimeError):
    """A process ended that should not have."""


def ours(*arguments: str) -> list[str]:
    """What runs a command of ours, with modules of ours: none of the current directory (-P), or of PYTHONPATH."""
    return [sys.executable, "-P", str(Path(scoreserve.__file__).with_name("__main__.py")), *arguments]


class Processes:
    """Named children, each in a session of its own so that Ctrl-C reaches only their parent."""

    def __init__(self) -> None:
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, tuple[Sequence[str], Mapping[str, str], Path | None]] = {}
        self._locks: list[int] = []

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], directory: Path | None = None
    ) -> None:
        """Starts a command. Should this process die without stopping it, it gets a SIGTERM (on Linux).

        Args:
            name: of the child.
            command: program and arguments.
            environment: more of it.
            directory: where it is started; here by default.
        """
        self._commands[name] = command, environment, directory
        self._children[name] = subprocess.Popen(  # noqa: S603
            command,
            cwd=directory,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 (no threads here)
        )

    def lock(self, path: Path) -> int | None:
        """Holds a lock file until this process ends; None if another process does."""
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        self._locks.append(descriptor)
        return descriptor

    def wait(self, condition: Callable[[], bool], seconds: float, stop: Collection[int]) -> None:
        """Returns when the condition holds or `stop` has something in it.

        Raises:
            ProcessEnded: a child ended, or the time is up.
        """
        deadline = time.monotonic() + seconds
        while not stop and not condition():
            for name, child in self._children.items():
                if child.poll() is not None:
                    raise ProcessEnded(f"{name} ended with code {child.returncode}; its last lines say why")
            if time.monotonic() > deadline:
                raise ProcessEnded(f"{', '.join(self._children)}: not ready after {seconds:.0f} seconds")
            time.sleep(POLL_SECONDS)

    def watch(self, stop: Collection[int], restart: Collection[str]) -> None:
        """Returns when `stop` has something in it; starts those in `restart` anew whenever they end.

        Raises:
            ProcessEnded: another child ended.
        """
        while not stop:
            for name, child in list(self._children.items()):
                if child.poll() is None:
                    continue
                if name not in restart:
                    raise ProcessEnded(f"{name} ended with code {child.returncode}")
                err.print(f"{name} ended with code {child.returncode}; starting it again", highlight=False)
                time.sleep(RESTART_SECONDS)
                self.start(name, *self._commands[name])
            time.sleep(POLL_SECONDS)

    def stop(self, names: Sequence[str], seconds: float) -> None:
        """Stops children with SIGTERM, all at once, and with SIGKILL those that are still there after `seconds`."""
        children = [self._children.pop(name) for name in names if name in self._children]
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        for child in children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
