"""`scoreserve up`, `scoreserve sample` and Ctrl-C, as a newcomer meets them."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
from PIL import Image


def test_one_command_serves_and_leaves_nothing_behind(start: Callable, tmp_path: Path, until: Callable) -> None:
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    up = start("up", "--port", str(port), "--data-dir", str(tmp_path / "q"), "--grace-seconds", "1")
    until(lambda: up.poll() is None and _ready(address))
    family = _descendants(up.pid)
    assert len(family) >= 4, "a worker, an API, and Valkey with its keeper"

    out = tmp_path / "grid.png"
    options = ["--server", address, "--count", "6", "--seed", "5", "--out", str(out), "--columns", "3", "--scale", "1"]
    done = subprocess.run([sys.executable, "-m", "cli.main", "sample", *options], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    with Image.open(out) as picture:
        assert picture.size == (3 * 10 + 2, 2 * 10 + 2)

    os.kill(up.pid, signal.SIGINT)
    assert up.wait(30) == 0
    assert f"Open {address} in a browser" in up.stderr.read().decode()
    until(lambda: not any(_alive(pid) for pid in family), 10)


def test_accepted_jobs_outlive_a_stop(start: Callable, tmp_path: Path, until: Callable) -> None:
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    arguments = ("up", "--port", str(port), "--data-dir", str(tmp_path / "q"), "--grace-seconds", "0")
    first = start(*arguments)
    until(lambda: _ready(address))
    sampler = {"name": "follow_scores", "steps": 3000}
    job = httpx.post(f"{address}/samples", json={"count": 16, "seed": 1, "sampler": sampler}).json()
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait(30) == 0
    start(*arguments)
    until(lambda: _ready(address))
    until(lambda: httpx.get(f"{address}{job['links']['self']}").json()["state"] == "finished", 120)


def test_two_ups_do_not_share_a_queue_by_accident(start: Callable, tmp_path: Path, until: Callable) -> None:
    port = _free_port()
    start("up", "--port", str(port), "--data-dir", str(tmp_path / "q"))
    until(lambda: _ready(f"http://127.0.0.1:{port}"))
    second = start("up", "--port", str(_free_port()), "--data-dir", str(tmp_path / "q"))
    assert second.wait(30) == 1
    assert b"another" in second.stderr.read()
    third = start("up", "--port", str(port), "--data-dir", str(tmp_path / "r"))
    assert third.wait(30) == 1
    assert b"--port" in third.stderr.read()


def test_a_killed_up_takes_its_children_along(start: Callable, tmp_path: Path, until: Callable) -> None:
    port = _free_port()
    up = start("up", "--port", str(port), "--data-dir", str(tmp_path / "q"), "--grace-seconds", "0")
    until(lambda: _ready(f"http://127.0.0.1:{port}"))
    family = _descendants(up.pid)
    os.kill(up.pid, signal.SIGKILL)
    until(lambda: not any(_alive(pid) for pid in family), 30)


def _ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _descendants(pid: int) -> list[int]:
    children = [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [below for child in children for below in _descendants(child)]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
