"""A process that does work which may go wrong: `python -m service.apart.child MODULE SECONDS MEGABYTES`.

What is sent either way is a line of JSON, then pieces of bytes, each after its length, and a length of 0. MODULE has a
function `work`, which gets the object of the line and the pieces, and returns an object and the bytes of the answer. It
imports little, for a process is started while a client waits, and its memory counts for each.
"""

import importlib
import json
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

NICE = 10
TRIES, TRY_SECONDS = 20, 0.05  # to be put last
LENGTH = struct.Struct(">I")


def frames(line: object, *pieces: bytes) -> bytes:
    """What is sent: an object, and pieces of bytes."""
    parts = [json.dumps(line).encode(), b"\n"]
    for piece in filter(None, pieces):
        parts += [LENGTH.pack(len(piece)), piece]
    return b"".join([*parts, LENGTH.pack(0)])


def main(module: str, seconds: int, megabytes: int) -> None:
    """Works until nothing more is asked for.

    Args:
        module: that has `work`.
        seconds: of a processor, for each piece of work; then the process is ended by SIGXCPU.
        megabytes: of memory, besides what it has at the start; more is a MemoryError, and said as `overrun`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the service ends its processes
    work = importlib.import_module(module).work
    _go_last()
    _limit("RLIMIT_CORE", 0)
    _limit_memory(megabytes)
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    while line := asked.readline():
        _limit("RLIMIT_CPU", _seconds_used() + seconds)
        try:
            answer, data = work(json.loads(line), _pieces(asked))
        except MemoryError:
            answer, data = {"overrun": "memory"}, b""
        answers.write(frames(answer, data))
        answers.flush()
        if "overrun" in answer:
            return  # what is left of the work may hold on to its memory


def _pieces(source: IO[bytes]) -> Iterator[bytes]:
    while length := LENGTH.unpack(source.read(LENGTH.size))[0]:
        yield source.read(length)


def _go_last() -> None:
    """Lets those who answer go first, and leaves them the first of several processors."""
    os.nice(NICE)
    for _ in range(TRIES):
        try:  # where Linux shares processors among sessions, and this has one of its own
            Path("/proc/self/autogroup").write_text(str(NICE))
        except BlockingIOError:  # of all without privileges it lets one say so in a tenth of a second
            time.sleep(TRY_SECONDS)
        except OSError:
            break
        else:
            break
    if hasattr(os, "sched_setaffinity"):  # on Linux
        with suppress(OSError):
            mine = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, mine[1:] or mine)


def _limit(name: str, value: int) -> None:
    """Sets a soft limit, which stays the process's own to raise."""
    import resource  # noqa: PLC0415 (which not every system has)

    kind = getattr(resource, name)
    hard = resource.getrlimit(kind)[1]
    with suppress(ValueError, OSError):  # what is limited to less already
        resource.setrlimit(kind, (value, hard))


def _limit_memory(megabytes: int) -> None:
    statm = Path("/proc/self/statm")
    if statm.exists():
        has = int(statm.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        _limit("RLIMIT_AS", has + megabytes * 2**20)


def _seconds_used() -> int:
    used: Any = os.times()
    return int(used.user + used.system) + 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
