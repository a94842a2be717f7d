"""Files that were drawn, kept on disk for a while: so many bytes, of which no client can take another's."""

import fcntl
import os
import shutil
import tempfile
import time
from collections import Counter, OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PREFIX = "scoreserve-views-"


@dataclass(frozen=True)
class _Entry:
    size: int
    client: str
    until: float


class Kept:
    """A directory of this process alone, which goes with it; what is left of one that was killed goes with the next.

    Args:
        parent: in which it is; None is that of the system for what is temporary.
        most: bytes that stay; the newest file does in any case, until the next.
        seconds: that a file stays.
    """

    def __init__(self, parent: Path | None, most: int, seconds: float) -> None:
        self.parent, self.most, self.seconds = Path(parent or tempfile.gettempdir()), most, seconds
        self._directory: Path | None = None
        self._lock: int | None = None
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # used last comes last
        self._made = 0

    def new(self) -> Path:
        """Where the next file may be written."""
        if self._directory is not None and not self._directory.is_dir():  # somebody cleaned up
            self.close()
        self._made += 1
        return self._home() / f"new-{self._made}"

    def open(self, key: str) -> IO[bytes] | None:
        """A file that was kept under this key."""
        self.expire()
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        with suppress(FileNotFoundError):  # somebody cleaned up
            return (self._home() / key).open("rb")
        del self._entries[key]
        return None

    def keep(self, key: str, client: str, path: Path) -> None:
        """Keeps what was written under a key; who keeps most gives way, with what was used least lately."""
        kept = path.rename(self._home() / key)
        self.expire()
        self._entries[key] = _Entry(kept.stat().st_size, client, time.monotonic() + self.seconds)
        self._entries.move_to_end(key)
        while len(self._entries) > 1 and sum(entry.size for entry in self._entries.values()) > self.most:
            sizes = Counter[str]()
            others = list(self._entries.items())[:-1]
            for _, entry in others:
                sizes[entry.client] += entry.size
            greediest = sizes.most_common(1)[0][0]
            self._drop(next(other for other, entry in others if entry.client == greediest))

    def expire(self) -> None:
        """Drops what was kept for long enough."""
        now = time.monotonic()
        for key in [key for key, entry in self._entries.items() if entry.until <= now]:
            self._drop(key)

    def close(self) -> None:
        """Drops everything."""
        self._entries.clear()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _drop(self, key: str) -> None:
        del self._entries[key]
        (self._home() / key).unlink(missing_ok=True)

    def _home(self) -> Path:
        """The directory, which is made when something is first drawn."""
        if self._directory is None:
            for left in self.parent.glob(f"{PREFIX}*"):
                _remove(left)
            made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self.parent))
            self._lock = _lock(made)
            self._directory = made
        return self._directory


def _lock(directory: Path) -> int | None:
    """Holds a directory for as long as the process lives, or until this is closed; None if another does."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _remove(directory: Path) -> None:
    """Removes a directory that no process holds, if it is ours."""
    with suppress(OSError):
        if directory.is_symlink() or directory.stat().st_uid != os.getuid():
            return
        if time.time() - directory.stat().st_mtime < 1:
            return  # perhaps of one who is about to hold it
        handle = _lock(directory)
        if handle is not None:
            shutil.rmtree(directory, ignore_errors=True)
            os.close(handle)
