"""docs/your-model.md is followed as a reader would, from a network of one's own to images over HTTP."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.ports import free_port
from tests.system.markdown import ROOT, Block, Shell, blocks

PAGE = blocks(ROOT / "docs" / "your-model.md")
MADE, ASKED = (block for block in PAGE if block.heading == "From a network to images")


@pytest.fixture
def shell() -> Iterator[Shell]:
    """A reader's shell, with nothing in it."""
    home = Path(tempfile.mkdtemp(prefix="reader"))  # of a short path, for the socket in it
    address = f"http://127.0.0.1:{free_port()}"
    (home / "work").mkdir()
    environment = {"HOME": str(home), "XDG_STATE_HOME": "", "XDG_CACHE_HOME": ""}
    yield Shell(home / "work", address, environment)
    shutil.rmtree(home)


def test_a_network_of_ones_own_is_trained_and_served(shell: Shell) -> None:
    port = shell.address.rpartition(":")[2]
    assert MADE.text.endswith("scoreserve up")
    environment = {**os.environ, **shell.environment}
    log = shell.directory / "log"
    with log.open("wb") as said:
        up = subprocess.Popen(
            ["bash", "-ec", f"{MADE.text} --port {port} --grace-seconds 0"],
            cwd=shell.directory,
            env=environment,
            stderr=said,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while not _is_ready(shell.address):
            assert up.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        assert "SCORESERVE_NETWORKS=my_net:Net" in log.read_text()
        shell.run(ASKED)
        shell.run(Block("sh", ASKED.text.replace("mine.png", "again.png"), 0, ""))
    finally:
        os.killpg(up.pid, signal.SIGTERM)
        up.wait(60)
    with Image.open(shell.directory / "mine.png") as picture:
        assert picture.size == (4 * 18 + 2, 4 * 18 + 2)
        lit = np.asarray(picture.convert("L"))[2:, 2:].reshape(4, 18, 4, 18).swapaxes(1, 2).reshape(16, 18, 18) > 127
    bars = [max(image[:16:2, :16:2].all(axis=0).sum(), image[:16:2, :16:2].all(axis=1).sum()) for image in lit]
    assert bars.count(1) >= 12, "it has learned what it was shown"
    assert (shell.directory / "mine.png").read_bytes() == (shell.directory / "again.png").read_bytes()


def test_the_readme_imports_a_network_of_ones_own_in_one_command(shell: Shell) -> None:
    lines = MADE.text.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("export "))
    shell.run(Block("sh", "\n".join(lines[:begin]), MADE.line, MADE.heading))
    (served,) = [block for block in blocks(ROOT / "README.md") if block.heading == "Serve your own model"]
    *first, last = served.text.splitlines()
    assert last == "make up"
    shell.run(Block("sh", "\n".join(first), served.line, served.heading))
    assert (shell.directory / "my-models" / "mine" / "1" / "card.json").is_file()


def test_a_program_is_exported_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return x * sigma[:, None, None, None]

    (block,) = [block for block in PAGE if "torch.export" in block.text]
    monkeypatch.chdir(tmp_path)
    exec(block.text, {"torch": torch, "network": Net(), "x": torch.rand(4, 1, 8, 8), "sigma": torch.rand(4)})
    network = torch.export.load("model.pt2").module()
    assert network(torch.ones(7, 1, 8, 8), torch.full((7,), 2.0)).shape == (7, 1, 8, 8)


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
