"""Cores: how many of the machine's this process may use. Torch-free."""

import os
from collections.abc import Iterator
from pathlib import Path

FILES = Path("/")


def usable_cores(files: Path = FILES) -> int:
    """Cores that this process may use: those it may run on, and no more than its control groups give it time for.

    A container with `cpus: 2` on a machine with 64 cores sees all 64: threads for all of them would be stopped for most
    of each period. A part of a core counts for none beside whole ones.

    Args:
        files: root of the file system that /proc and /sys are read from.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    return max(1, min([cores, *(int(limit) for limit in _limits(files))]))


def _limits(files: Path) -> Iterator[float]:
    """Cores' worth of time of each group that limits it: version 2 of control groups, then version 1."""
    groups = _text(files / "proc/self/cgroup").splitlines()
    for line in groups:
        _, controllers, path = [*line.split(":", 2), "", "", ""][:3]
        inner = Path(path.lstrip("/"))
        for group in (inner, *inner.parents):  # a group is limited by those around it too
            if not controllers:
                quota, _, period = _text(files / "sys/fs/cgroup" / group / "cpu.max").partition(" ")
                yield from _ratio(quota, period)
            elif "cpu" in controllers.split(","):
                folder = files / "sys/fs/cgroup/cpu" / group
                yield from _ratio(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> Iterator[float]:
    try:
        time, of = int(quota), int(period)
    except ValueError:  # `max`, or no such file
        return
    if time > 0 and of > 0:
        yield time / of


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
