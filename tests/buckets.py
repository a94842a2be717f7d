"""A server of the S3 protocol that runs on this machine, with buckets in its memory: moto's."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

OURS = Path(__file__).parents[1] / "var" / "moto" / "bin"  # where .ci/run installs it
KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def server() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Its address and its process. Skips the test where it, or what talks to it, is not installed."""
    program = shutil.which("moto_server", path=f"{os.environ['PATH']}:{OURS}")
    if find_spec("s3fs") is None:
        pytest.skip("s3fs is not installed, so nothing is kept in buckets: pip install 'scoreserve[s3]'")
    if program is None:
        pytest.skip("moto is not installed, so there is no server of S3: .ci/run has the commands")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(address, timeout=5, trust_env=False)
                break
            except httpx.TransportError:
                assert process.poll() is None, "moto_server ended"
                time.sleep(0.1)
        yield address, process
    finally:
        process.kill()
        process.wait()


def make(address: str, bucket: str) -> None:
    """Makes a bucket."""
    httpx.put(f"{address}/{bucket}", timeout=30, trust_env=False).raise_for_status()
