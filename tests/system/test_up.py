"""`scoreserve up`, `scoreserve sample` and Ctrl-C, as a newcomer meets them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from PIL import Image
from redis import Redis

from service.webhooks.records import check_secret
from tests.ports import free_port
from worker.queue import keys


def test_one_command_serves_and_leaves_nothing_behind(start: Callable, tmp_path: Path, until: Callable) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    options = ["--port", str(port), "--data-dir", str(tmp_path / "q"), "--grace-seconds", "1"]
    up = start("up", *options, SCORESERVE_RESULTS_IN_REDIS_BYTES="0")
    until(lambda: up.poll() is None and _ready(address))
    family = _descendants(up.pid)
    assert len(family) >= 3, "a worker, an API, and Valkey"

    out = tmp_path / "grid.png"
    options = ["--server", address, "--count", "6", "--seed", "5", "--out", str(out), "--columns", "3", "--scale", "1"]
    done = subprocess.run([sys.executable, "-m", "cli.main", "sample", *options], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    with Image.open(out) as picture:
        assert picture.size == (3 * 10 + 2, 2 * 10 + 2)
    results = tmp_path / "q" / "results"
    assert results.stat().st_mode & 0o777 == 0o700
    assert len(list(results.glob("*/*"))) >= 1, "the images lie there"

    os.kill(up.pid, signal.SIGINT)
    assert up.wait(60) == 0
    assert f"Open {address} in a browser" in up.stderr.read().decode()
    until(lambda: not any(_alive(pid) for pid in family))
    assert "bye bye" in (tmp_path / "q" / "valkey.log").read_text(), "it was not killed"


def test_modules_of_others_on_the_path_are_not_taken_for_ours(start: Callable, tmp_path: Path, until: Callable) -> None:
    """As of who has a network of their own in a directory where there is a worker.py, or a package called models."""
    theirs, port = tmp_path / "theirs", free_port()
    for name in ("cli/__init__", "cli/main", "worker", "models/__init__", "service/__init__"):
        (theirs / name).parent.mkdir(parents=True, exist_ok=True)
        (theirs / f"{name}.py").write_text("raise SystemExit('not this one')")
    up = start("up", "--port", str(port), "--data-dir", str(tmp_path / "q"), PYTHONPATH=str(theirs))
    until(lambda: up.poll() is None and _ready(f"http://127.0.0.1:{port}"))
    asked = {"json": {"count": 1}, "headers": {"Prefer": "wait=60"}}
    assert httpx.post(f"http://127.0.0.1:{port}/samples", timeout=70, **asked).json()["state"] == "finished"


def test_accepted_jobs_outlive_a_stop(start: Callable, tmp_path: Path, until: Callable) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    arguments = ("up", "--port", str(port), "--data-dir", str(tmp_path / "q"), "--grace-seconds", "0")
    first = start(*arguments)
    until(lambda: _ready(address))
    sampler = {"name": "follow_scores", "steps": 1000}
    job = httpx.post(f"{address}/samples", json={"count": 16, "seed": 1, "sampler": sampler}).json()
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait(60) == 0
    sealing = tmp_path / "q" / "sealing-secret"
    secret = sealing.read_text()
    check_secret(secret)
    assert sealing.stat().st_mode & 0o077 == 0
    start(*arguments)
    until(lambda: _ready(address))
    assert sealing.read_text() == secret, "what was sealed before can be read"
    until(lambda: httpx.get(f"{address}{job['links']['self']}").json()["state"] == "finished", 120)


def test_two_ups_do_not_share_a_queue_by_accident(start: Callable, tmp_path: Path, until: Callable) -> None:
    port = free_port()
    start("up", "--port", str(port), "--data-dir", str(tmp_path / "q"))
    until(lambda: _ready(f"http://127.0.0.1:{port}"))
    where = f"which serves http://127.0.0.1:{port}".encode()
    second = start("up", "--port", str(free_port()), "--data-dir", str(tmp_path / "q"))
    assert second.wait(60) == 1
    said = second.stderr.read()
    assert b"another `scoreserve up` uses" in said
    assert where in said
    assert b"--port" not in said
    third = start("up", "--port", str(port), "--data-dir", str(tmp_path / "q"))
    assert third.wait(60) == 1
    (said,) = third.stderr.read().splitlines()
    assert f"cannot listen on 127.0.0.1, port {port} (Address already in use)".encode() in said
    for told in (b"another `scoreserve up` uses", where, b"--data-dir", b"--port"):
        assert told in said, "both are told at once, or who mends one meets the other"
    fourth = start("up", "--port", str(port), "--data-dir", str(tmp_path / "other"))
    assert fourth.wait(60) == 1
    said = fourth.stderr.read()
    assert b"--port" in said
    assert b"another `scoreserve up`" not in said


def test_a_killed_up_takes_its_children_along(start: Callable, tmp_path: Path, until: Callable) -> None:
    port = free_port()
    up = start("up", "--port", str(port), "--data-dir", str(tmp_path / "q"), "--grace-seconds", "0")
    until(lambda: _ready(f"http://127.0.0.1:{port}"))
    family = _descendants(up.pid)
    os.kill(up.pid, signal.SIGKILL)
    until(lambda: not any(_alive(pid) for pid in family))


def test_surroundings_that_are_not_usual(start: Callable, tmp_path: Path, until: Callable) -> None:
    """Proxies, odd names, files that look like modules, Kubernetes' variables, IPv6, signals that are to be ignored."""
    home = Path(tempfile.mkdtemp(prefix="a b'\"#?%41;$"))  # short, for the socket in it
    for name in ("worker", "random", "json", "cli/__init__", "cli/main"):
        path = home / "here" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "socks5://127.0.0.1:1")
    odd = {
        "XDG_STATE_HOME": str(home),
        "HOME": "/nowhere/at all",
        "SCORESERVE_METRICS_PORT": "tcp://10.0.0.1:9101",
        "SCORESERVE_PORT": "tcp://10.0.0.1:8000",
        **proxies,
    }
    address = f"http://[::1]:{(port := free_port())}"
    options = {"directory": home / "here", "ignoring": (signal.SIGINT, signal.SIGHUP), **odd}
    up = start("up", "--host", "::1", "--port", str(port), "--grace-seconds", "0", **options)
    try:
        until(lambda: up.poll() is not None or _ready(address))
        assert up.poll() is None, up.stderr.read().decode()
        done = start("sample", "--count", "2", "--out", str(tmp_path / "grid.png"), **options)
        assert done.wait(60) == 0, done.stderr.read().decode()
        key = start("keys", "list", **options)
        assert key.wait(60) == 0, key.stderr.read().decode()
        family = [pid for pid in (up.pid, *_descendants(up.pid)) if b"scoreserve" in _command(pid)]
        assert len(family) == 3
        for number in (signal.SIGHUP, signal.SIGINT):
            for pid in family:
                os.kill(pid, number)
        assert _ready(address)
        assert all(_alive(pid) for pid in family)
        os.kill(up.pid, signal.SIGTERM)
        assert up.wait(60) == 0
        assert not (tmp_path / "run").exists()
    finally:
        shutil.rmtree(home)


@pytest.mark.parametrize("data_dir", ["file/q", "/proc/1/q"])
def test_a_directory_that_cannot_be_is_said_in_one_line(start: Callable, tmp_path: Path, data_dir: str) -> None:
    (tmp_path / "file").touch()
    up = start("up", "--port", str(free_port()), "--data-dir", str(tmp_path / data_dir))
    assert up.wait(60) == 1
    said = up.stderr.read().decode()
    assert said.startswith("error: cannot keep the queue in ")
    assert said.count("\n") == 1


def test_who_waits_is_answered_when_the_service_stops(
    start: Callable, service_url: str, redis: Redis, until: Callable[..., None], tmp_path: Path
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    api = start("api", "--port", str(port), SCORESERVE_REDIS_URL=service_url)
    until(lambda: _answers(address))
    asked = [{"Prefer": "wait=250"}, {"Accept": "image/png"}, {"Accept": "application/x-npz"}]
    with (
        httpx.Client(base_url=address, timeout=120, trust_env=False, verify=False) as http,
        ThreadPoolExecutor(len(asked)) as pool,
        socket.create_connection(("127.0.0.1", port)) as slow,
    ):
        head = "POST /samples HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99"
        slow.sendall(f"{head}\r\n\r\n{{".encode())
        pending = [pool.submit(http.post, "/samples", json={"count": 1}, headers=headers) for headers in asked]
        until(lambda: redis.zcard(keys.ACTIVE) == len(asked))
        api.send_signal(signal.SIGTERM)
        answers = [answer.result(120) for answer in pending]
        said = b""
        while more := slow.recv(4096):
            said += more
    assert api.wait(60) == -signal.SIGTERM
    assert [answer.status_code for answer in answers] == [202, 202, 202]
    jobs = {f"/jobs/{job_id.decode()}" for job_id in redis.zrange(keys.ACTIVE, 0, -1)}
    assert {answer.headers["location"] for answer in answers} == jobs
    assert said.startswith(b"HTTP/1.1 503")
    assert b"the service stops" in said


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/healthz", timeout=5, trust_env=False, verify=False).status_code == 200
    except httpx.TransportError:
        return False


def _ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=5, trust_env=False, verify=False).status_code == 200
    except httpx.TransportError:
        return False


def _descendants(pid: int) -> list[int]:
    children = [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [below for child in children for below in _descendants(child)]


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
