"""Whole processes: workers and services as a user starts them."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import httpx
import pytest

from cli.processes import ours
from models.store import SCORES, ZOO, ModelStore
from tests.conftest import publish_tiny
from tests.ports import free_port
from tests.system.markdown import ROOT, Shell

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(models_dir: Path) -> Iterator[Start]:
    """Starts `scoreserve ...`; what still runs at the end is killed, with all that it started.

    What it says is in its pipe `stderr`, which must be read in time by who lets it say much, or in the file `log`. Its
    environment of packages is that of the tests, or that of another `python`.
    """
    started: list[subprocess.Popen[bytes]] = []

    def begin(
        *arguments: str,
        log: IO[bytes] | None = None,
        directory: Path | None = None,
        ignoring: Sequence[int] = (),
        python: str | Path = sys.executable,
        **environment: str,
    ) -> subprocess.Popen[bytes]:
        def ignore() -> None:
            for number in ignoring:
                signal.signal(number, signal.SIG_IGN)

        settings = {
            "SCORESERVE_MODELS_DIR": str(models_dir),
            "SCORESERVE_DEFAULT_MODEL": "tiny",
            "XDG_CACHE_HOME": str(models_dir.with_name("cache")),
        }
        child = subprocess.Popen(
            [str(python), *ours(*arguments)[1:]],
            env={**os.environ, **settings, **environment},
            cwd=directory,
            stderr=log or subprocess.PIPE,
            start_new_session=True,
            preexec_fn=ignore if ignoring else None,  # noqa: PLW1509 (no threads there)
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


@pytest.fixture(scope="module")
def shipped_models(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Path:
    """The cards that ship, on the network of `tiny` and with fewer levels: quick, and all but the pictures is alike."""
    directory = tmp_path_factory.mktemp("shipped")
    zoo, store = ModelStore(ZOO), ModelStore(directory)
    plain, with_classes = ModelStore(models_dir), ModelStore(tmp_path_factory.mktemp("classes"))
    for name in zoo.names():
        card, tiny = zoo.card(name), with_classes if zoo.card(name).classes else plain
        if card.classes:
            small = publish_tiny(tiny, name, classes=card.classes, channels=card.image.channels)
        else:
            small = tiny.card("tiny")
        sampler = card.sampler.model_copy(update={"levels": 2})
        changed = {"network": small.network, "weights_sha256": small.weights_sha256, "sampler": sampler}
        path = store.publish(card.model_copy(update=changed), tiny.weights(small))
        shutil.copy(ROOT / "docs" / "grid.png", path / "preview.png")
        if (scores := zoo.scores(name)) is not None:
            (path / SCORES).write_bytes(scores)
    return directory


@pytest.fixture(scope="module")
def shell(shipped_models: Path) -> Iterator[Shell]:
    """A reader's shell: a directory, and the service that runs after `make up`."""
    home = Path(tempfile.mkdtemp(prefix="reader"))  # of a short path, for the socket in it
    address = f"http://127.0.0.1:{free_port()}"
    environment = {
        "HOME": str(home),
        "SCORESERVE_MODELS_DIR": str(shipped_models),
        "SCORESERVE_SERVER": address,
        "SCORESERVE_API_KEY": "",
        "SCORESERVE_WEBHOOK_NETWORKS": "127.0.0.0/8",
        "XDG_STATE_HOME": "",
        "XDG_CACHE_HOME": str(shipped_models.with_name("cache")),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "cli.main", "up", "--port", address.rpartition(":")[2], "--grace-seconds", "0"]
    with (home / "log").open("wb") as log:
        up = subprocess.Popen(command, env={**os.environ, **environment}, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + 120
            while not _is_ready(address):
                assert up.poll() is None, (home / "log").read_text()
                assert time.monotonic() < deadline, (home / "log").read_text()
                time.sleep(0.05)
            (home / "work").mkdir()
            yield Shell(home / "work", address, environment)
        finally:
            up.terminate()  # which stops what it has started
            up.wait(60)
    shutil.rmtree(home)


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
