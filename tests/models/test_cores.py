"""Cores: a process counts those that it may use, not those that the machine has."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from models.cores import usable_cores


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Usable cores of a machine with so many, whose files say so much."""

    def cores(of: int, **files: str) -> int:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(of)), raising=False)
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return usable_cores(tmp_path)

    return cores


def test_without_limits_it_is_what_it_may_run_on(machine: Callable[..., int]) -> None:
    assert machine(6) == 6


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("x", 8)])
def test_a_control_group_limits_it(machine: Callable[..., int], quota: str, cores: int) -> None:
    files = {"proc__self__cgroup": "0::/", "sys__fs__cgroup__cpu_dot_max": quota}
    assert machine(8, **files) == cores


def test_a_group_around_its_own_limits_it_too(machine: Callable[..., int]) -> None:
    files = {
        "proc__self__cgroup": "0::/pod/box\n",
        "sys__fs__cgroup__pod__cpu_dot_max": "300000 100000\n",
        "sys__fs__cgroup__pod__box__cpu_dot_max": "max 100000\n",
    }
    assert machine(8, **files) == 3


def test_version_1_of_control_groups_is_read(machine: Callable[..., int]) -> None:
    files = {
        "proc__self__cgroup": "3:cpu,cpuacct:/\n2:memory:/",
        "sys__fs__cgroup__cpu__cpu_dot_cfs_quota_us": "400000\n",
        "sys__fs__cgroup__cpu__cpu_dot_cfs_period_us": "100000\n",
    }
    assert machine(8, **files) == 4
