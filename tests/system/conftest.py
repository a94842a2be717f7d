"""Whole processes: workers and services as a user starts them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(models_dir: Path) -> Iterator[Start]:
    """Starts `scoreserve ...`; what still runs at the end is killed, with all that it started."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        settings = {
            "SCORESERVE_MODELS_DIR": str(models_dir),
            "SCORESERVE_DEFAULT_MODEL": "tiny",
            "XDG_CACHE_HOME": str(models_dir.with_name("cache")),
            "OMP_NUM_THREADS": "1",
        }
        child = subprocess.Popen(
            [sys.executable, "-m", "cli.main", *arguments],
            env={**os.environ, **settings, **environment},
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(child)
        return child

    yield begin
    for child in started:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if child.stderr:
            child.stderr.close()
