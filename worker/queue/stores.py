"""Stores: where the images of large jobs lie, out of Redis, chosen by URL: a directory or a bucket. Torch-free.

An object is what one shard has made, `JOB/NUMBER-DIGEST`, and never changes. In Redis is kept in its place what it was
`put` under, which says what has to be in it: so one that is written twice, or by a worker whose lease is lost, does no
harm, and one that is damaged is never shown.
"""

import logging
import os
import re
import secrets
import shutil
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

log = logging.getLogger(__name__)

ALLOWED = "file:///DIRECTORY, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"
PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}  # that a scheme takes, and that the extra of its name brings
MARK, DIGEST_BYTES = b"blake2b:", 20
READ_PAUSES = 0.1, 0.4  # seconds before an object is asked for again
# The store's own waits are short: workers try again for ever, and a client is told when to.
OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "config_kwargs": {
            "connect_timeout": 3,
            "read_timeout": 10,
            "retries": {"total_max_attempts": 2, "mode": "standard"},
        }
    },
    "gs": {},
}
_JOB = re.compile(r"[0-9a-f]{24}")


class StoreAway(Exception):
    """A store cannot be reached, or refuses: later it may not."""


class Damaged(Exception):
    """An object is not what was written."""


def check_url(url: str) -> str:
    """The address of a store, without a slash at its end.

    Raises:
        ValueError: it is none, or what it takes is not installed.
    """
    parts = urlsplit(url)
    path = parts.path.strip("/")
    if parts.scheme not in {"file", *PACKAGES} or parts.query or parts.fragment:
        raise ValueError(f"{url!r} is no store of results: {ALLOWED}")
    if parts.scheme == "file":
        if parts.netloc or not path:
            raise ValueError(f"{url!r} names no directory of this machine: file:///DIRECTORY, with three slashes")
        return f"file:///{path}"
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", parts.netloc) or not re.fullmatch(r"[\w./=+-]*", path, re.ASCII):
        raise ValueError(f"{url!r} names no bucket: {ALLOWED}, of letters, digits, and ._-=+")
    if find_spec(PACKAGES[parts.scheme]) is None:
        extra = f"pip install 'scoreserve[{parts.scheme}]'"
        raise ValueError(f"{parts.scheme}:// takes {PACKAGES[parts.scheme]}, which is not installed: {extra}")
    return f"{parts.scheme}://{parts.netloc}" + (f"/{path}" if path else "")


def reference(data: bytes) -> bytes:
    """What is kept in Redis of an object with these bytes."""
    return MARK + blake2b(data, digest_size=DIGEST_BYTES).hexdigest().encode()


def is_reference(value: bytes) -> bool:
    """Whether a value of Redis stands for an object; else it is the pixels themselves."""
    return len(value) == len(MARK) + 2 * DIGEST_BYTES and value.startswith(MARK)


class Store(ABC):
    """A place for objects. Names are relative to its root, JOB/NAME; every method may raise StoreAway."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Writes an object: once this returns it is there, whatever happens; until then, it is not there in part."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """An object's bytes.

        Raises:
            FileNotFoundError: there is none.
        """

    @abstractmethod
    def jobs(self) -> Iterator[str]:
        """Ids of the jobs of which there are objects."""

    @abstractmethod
    def written_at(self, job_id: str) -> float | None:
        """When the last object of a job was written, in seconds since 1970; None if there is none."""

    @abstractmethod
    def remove(self, job_id: str) -> None:
        """Removes all objects of a job, if there are any."""


class Directory(Store):
    """Objects as files: on a disk of the only machine, or on one that all machines mount at the same place.

    Args:
        path: of it. One that is missing is away and never made: it may be on a disk that is not mounted just now, and
            what was written in its place would lie on another, where nobody looks for it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, data: bytes) -> None:
        path = self.path / name
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        try:
            with suppress(FileExistsError):
                path.parent.mkdir()
            try:
                with part.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
            for directory in (path.parent, self.path):  # what they list, too, is to outlast a loss of power
                descriptor = os.open(directory, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        except OSError as error:
            raise self._away(error) from error

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError as error:
            if self.path.is_dir():
                raise
            raise self._away(error) from error
        except OSError as error:
            raise self._away(error) from error

    def jobs(self) -> Iterator[str]:
        try:
            yield from (entry.name for entry in os.scandir(self.path) if _JOB.fullmatch(entry.name))
        except OSError as error:
            raise self._away(error) from error

    def written_at(self, job_id: str) -> float | None:
        try:
            return (self.path / job_id).stat().st_mtime  # of the directory: what is in it never changes
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._away(error) from error

    def remove(self, job_id: str) -> None:
        try:
            shutil.rmtree(self.path / job_id)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._away(error) from error

    def _away(self, error: OSError) -> StoreAway:
        if isinstance(error, FileNotFoundError) and not self.path.is_dir():
            return StoreAway(f"there is no directory {self.path}: mount the disk that has it, or make it once")
        return _away(self.path, error)


class Bucket(Store):
    """Objects of S3, of Google Cloud Storage, or of another server of these protocols.

    Who may use them, and where, is for their own libraries to find out: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL,
    GOOGLE_APPLICATION_CREDENTIALS, or what the machine is allowed.

    Args:
        scheme: s3 or gs.
        root: bucket, and prefix.
    """

    def __init__(self, scheme: str, root: str) -> None:
        import fsspec  # noqa: PLC0415 (takes time, and few need it)

        self.root = root
        options = {"skip_instance_cache": True, "use_listings_cache": False, **OPTIONS[scheme]}
        try:
            self.files: Any = fsspec.filesystem(scheme, **options)
        except Exception as error:  # whatever its library may throw: no credentials, say
            raise _away(self.root, error) from error

    def write(self, name: str, data: bytes) -> None:
        try:
            self.files.pipe_file(f"{self.root}/{name}", data)
        except Exception as error:  # FileNotFoundError, too: there is no such bucket
            raise _away(self.root, error) from error

    def read(self, name: str) -> bytes:
        try:
            data: bytes = self.files.cat_file(f"{self.root}/{name}")
        except FileNotFoundError:
            raise
        except Exception as error:
            raise _away(self.root, error) from error
        return data

    def jobs(self) -> Iterator[str]:
        names = (entry["name"].rstrip("/").rpartition("/")[2] for entry in self._listing(self.root))
        yield from (name for name in names if _JOB.fullmatch(name))

    def written_at(self, job_id: str) -> float | None:
        times = [_seconds(entry) for entry in self._listing(f"{self.root}/{job_id}") if entry["type"] == "file"]
        return max(times, default=None)

    def remove(self, job_id: str) -> None:
        names = [entry["name"] for entry in self._listing(f"{self.root}/{job_id}") if entry["type"] == "file"]
        try:
            if names:
                self.files.rm(names)
        except FileNotFoundError:  # another was as fast
            pass
        except Exception as error:
            raise _away(self.root, error) from error

    def _listing(self, path: str) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = self.files.ls(path, detail=True)
        except FileNotFoundError:  # what has no objects is not there
            return []
        except Exception as error:
            raise _away(self.root, error) from error
        return found


class Stores:
    """The stores that jobs name, each opened when it is first needed."""

    def __init__(self) -> None:
        self._open: dict[str, Store] = {}
        self._lock = threading.Lock()

    def of(self, url: str) -> Store:
        """The store at an address.

        Raises:
            StoreAway: it cannot be used, at least not here and now.
        """
        with self._lock:
            if url not in self._open:
                self._open[url] = _opened(url)
            return self._open[url]

    def put(self, url: str, job_id: str, number: int, data: bytes) -> bytes:
        """Writes down what a shard has made, and returns what to keep in Redis in its place.

        Raises:
            StoreAway: it may not be written.
        """
        kept = reference(data)
        self.of(url).write(_name(job_id, number, kept), data)
        return kept

    def get(self, url: str, job_id: str, number: int, kept: bytes) -> bytes:
        """What was put.

        Raises:
            StoreAway: it cannot be read, though it was tried more than once.
            Damaged: it is not what was put.
            FileNotFoundError: it is not there any more.
        """
        name = _name(job_id, number, kept)
        for pause in (*READ_PAUSES, None):
            try:
                data = self.of(url).read(name)
                break
            except StoreAway:
                if pause is None:
                    raise
                time.sleep(pause)
        if reference(data) != kept:
            log.error("%s in %s is damaged", name, url)
            raise Damaged(f"{name} is not what was written")
        return data


def _name(job_id: str, number: int, kept: bytes) -> str:
    return f"{job_id}/{number}-{kept.removeprefix(MARK).decode()}"


def _opened(url: str) -> Store:
    try:
        parts = urlsplit(check_url(url))
    except ValueError as error:
        raise StoreAway(str(error)) from error
    if parts.scheme == "file":
        return Directory(Path(unquote(parts.path)))
    return Bucket(parts.scheme, f"{parts.netloc}{parts.path}")


def _away(where: object, error: Exception) -> StoreAway:
    return StoreAway(f"{where}: {type(error).__name__}: {error}")


def _seconds(entry: dict[str, Any]) -> float:
    """When an object was written, as S3 or as GCS tells it."""
    when = entry.get("LastModified") or entry.get("mtime") or entry["updated"]
    return (when if isinstance(when, datetime) else datetime.fromisoformat(when)).timestamp()
