"""What runs here: `scoreserve up` writes down where it serves, so that other commands find it."""

import fcntl
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

FILE = "running.json"

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
        settings: those of the environment that say which models it serves, and on what.
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
        return {"redis_url": self.redis_url} | {name.removeprefix("SCORESERVE_").lower(): v for name, v in told.items()}

    @classmethod
    def find(cls, data_dir: Path | None = None) -> "Running | None":
        """What runs with this directory, or with the one that is meant where none is named; None if nothing does."""
        with suppress(OSError, ValueError, TypeError), (data_dir or default_data_dir()).joinpath(FILE).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # whoever wrote it is alive
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


def default_data_dir() -> Path:
    """Where the embedded queue and the images of large jobs are kept unless told otherwise.

    That is $XDG_STATE_HOME/scoreserve, or in ~/.local/state.

    Raises:
        OSError: there is no home directory.
    """
    try:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    except RuntimeError as error:
        raise FileNotFoundError("there is no home directory") from error
    return base / "scoreserve"
