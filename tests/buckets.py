"""A server of the S3 protocol that runs on this machine, with buckets in its memory: moto's."""

import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from tests.ports import free_port

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
    port = free_port()
    process = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(address, timeout=5, trust_env=False, verify=False)
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
    httpx.put(f"{address}/{bucket}", timeout=30, trust_env=False, verify=False).raise_for_status()


class Way:
    """A way to a server of this machine that can be cut, as if the server was killed, and be there again.

    Args:
        port: of the server.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._is_cut = False
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Connections end at once, whatever is under way; new ones do too."""
        with self._lock:
            self._is_cut = True
            for end in self._open:
                _reset(end)
            self._open.clear()

    def mend(self) -> None:
        self._is_cut = False

    def close(self) -> None:
        """Ends all for good."""
        self.cut()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listening.accept()
            except OSError:  # it is closed
                return
            with self._lock:
                if self._is_cut:
                    _reset(here)
                    continue
                there = socket.create_connection(("127.0.0.1", self._port))
                self._open |= {here, there}
            for ends in ((here, there), (there, here)):
                threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        """What comes in one direction, until one side has ended: nobody closes half a connection here."""
        with suppress(OSError):
            while data := source.recv(2**16):
                sink.sendall(data)
        with self._lock:
            for end in {source, sink} & self._open:
                _close(end)
            self._open -= {source, sink}


def _reset(end: socket.socket) -> None:
    """Closes a connection so that the other side sees an error."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    _close(end)


def _close(end: socket.socket) -> None:
    """Closes a connection; a thread that waits for it wakes up."""
    with suppress(OSError):
        end.shutdown(socket.SHUT_RD)
    end.close()
