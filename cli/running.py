"""What runs here: `scoreserve up` writes down where it serves, so that other commands find it."""

import fcntl
import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from cli.console import err

FILE = "running.json"
SETTINGS = "SCORESERVE_DEFAULT_MODEL", "SCORESERVE_DEVICE", "SCORESERVE_EXECUTION"  # that other commands are told
NETWORKS = "SCORESERVE_NETWORKS"
MODELS, CODE = "SCORESERVE_MODELS_DIR", "PYTHONPATH"  # likewise: a directory, and some

DataDir = Annotated[
    Path | None,
    typer.Option(
        help="That of the `scoreserve up` which is meant.", envvar="SCORESERVE_DATA_DIR", show_default="per user"
    ),
]


@dataclass(frozen=True)
class Running:
    """A service that `scoreserve up` runs.

    Args:
        pid: of its process.
        address: where it serves.
        redis_url: of its queue.
        settings: those of the environment that say which models it serves, with whose code, and on what.
    """

    pid: int
    address: str
    redis_url: str
    settings: dict[str, str]

    def __str__(self) -> str:
        return f"process {self.pid}, which serves {self.address}"

    @property
    def options(self) -> dict[str, str]:
        """Arguments of settings, but those that the environment decides."""
        told = {name: value for name, value in self.settings.items() if not os.environ.get(name)}
        for name in (NETWORKS, CODE):  # which `share` sees to
            told.pop(name, None)
        return {"redis_url": self.redis_url} | {name.removeprefix("SCORESERVE_").lower(): v for name, v in told.items()}

    def share(self) -> None:
        """Has this process find and trust the networks that the service does, unless its environment says which."""
        if NETWORKS in self.settings and not os.environ.get(NETWORKS):
            os.environ[NETWORKS] = self.settings[NETWORKS]
            sys.path += [path for path in _paths(self.settings.get(CODE, "")) if path not in sys.path]

    @classmethod
    def find(cls, data_dir: Path | None = None) -> "Running | None":
        """What runs with this directory, or with the one that is meant where none is named; None if nothing does."""
        with suppress(OSError, ValueError, TypeError), (data_dir or default_data_dir()).joinpath(FILE).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # whoever wrote it is alive
                if os.fstat(file.fileno()).st_uid in (0, os.getuid()):  # another's is not to be trusted: see `share`
                    return cls(**json.load(file))
        return None

    def write_down(self, data_dir: Path) -> int | None:
        """Writes itself down until this process ends, unless another does; returns what holds it."""
        descriptor = os.open(data_dir / FILE, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(asdict(self)).encode())
        return descriptor


def told() -> dict[str, str]:
    """What the environment says that other commands have to know, wherever they are called."""
    environment = {name: os.environ[name] for name in (*SETTINGS, NETWORKS, MODELS, CODE) if os.environ.get(name)}
    if MODELS in environment:
        environment[MODELS] = os.path.abspath(environment[MODELS])
    if CODE in environment:
        environment[CODE] = os.pathsep.join(_paths(environment[CODE]))
    return environment


def nothing_runs(data_dir: Path | None) -> str:
    """That `scoreserve up` was not found, and where it was looked for."""
    try:
        return f"nor does `scoreserve up` run with the data directory {data_dir or default_data_dir()}"
    except OSError as error:
        return f"nor is there a data directory of `scoreserve up`: {error}"


def say_taken(redis_url: str, data_dir: Path | None) -> None:
    """Says which Redis is taken, where none is named and nothing runs."""
    from worker.queue.server import without_password  # noqa: PLC0415 (only services and workers have it)

    said = f"takes {without_password(redis_url)}: no Redis is named, {nothing_runs(data_dir)}"
    err.print(said, markup=False, highlight=False, soft_wrap=True)


def _paths(text: str) -> list[str]:
    return [os.path.abspath(path) for path in text.split(os.pathsep) if path]


def default_data_dir() -> Path:
    """Where the embedded queue and the images of large jobs are kept unless an option says otherwise.

    That is $SCORESERVE_DATA_DIR, or $XDG_STATE_HOME/scoreserve, or in ~/.local/state.

    Raises:
        OSError: there is no home directory.
    """
    if os.environ.get("SCORESERVE_DATA_DIR"):
        return Path(os.environ["SCORESERVE_DATA_DIR"])
    try:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    except RuntimeError as error:
        raise FileNotFoundError("there is no home directory") from error
    return base / "scoreserve"
