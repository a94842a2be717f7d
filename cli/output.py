"""The file that a job's images are written to."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from cli.connection import USAGE
from cli.console import fail

STDOUT = Path("-")
ARRAYS = {".npz": "samples.npz", ".zip": "images.zip"}
ANIMATIONS = {".webp": "animation.webp", ".gif": "animation.gif"}


@dataclass(frozen=True)
class Output:
    """A file, and which view of the job is written to it.

    Args:
        path: of the file; - is standard output.
        view: such as grid.png.
        parameters: of the view.
    """

    path: Path
    view: str
    parameters: dict[str, Any]

    @classmethod
    def of(cls, path: Path, columns: int | None, scale: int, frames: int | None, filmstrip: bool) -> "Output":
        """The view that a file's name asks for. Ends the command if it cannot be made, or the file not be written."""
        suffix = path.suffix.lower()
        if suffix not in ("", ".png", *ARRAYS, *ANIMATIONS):
            allowed = ", ".join((".png", *ARRAYS, *ANIMATIONS))
            fail(f"{path} names a kind of file that is not made: {allowed} are, such as {path.stem}.png", USAGE)
        if not frames and (filmstrip or suffix in ANIMATIONS):
            fail(f"{'--filmstrip' if filmstrip else path} needs snapshots of the annealing: give --frames", USAGE)
        if filmstrip and suffix in ARRAYS | ANIMATIONS:
            fail(f"--filmstrip is a PNG, not {path}: choose another --out, such as filmstrip.png", USAGE)
        if path != STDOUT:
            _check_writable(path)
        if suffix in ARRAYS:
            return cls(path, ARRAYS[suffix], {})
        if filmstrip:
            return cls(path, "filmstrip.png", {"scale": scale})
        return cls(path, ANIMATIONS.get(suffix, "grid.png"), {"scale": scale, "columns": columns})

    @property
    def is_png(self) -> bool:
        return self.view.endswith(".png")

    def write(self, content: bytes) -> None:
        """Writes the file; a new one at once or not at all. Ends the command if it cannot.

        What is there already is written to and not replaced: a pipe, a link, or a file with a mode and an owner.
        """
        try:
            if self.path == STDOUT:
                typer.get_binary_stream("stdout").write(content)
            elif self.path.exists():
                self.path.write_bytes(content)
            else:
                _write_new(self.path.resolve(), content)  # where a link leads
        except OSError as error:
            fail(f"cannot write {self.path}: {error.strerror}")


def _write_new(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _check_writable(out: Path) -> None:
    """Ends the command if the file cannot be written, which is better known before the images are made than after."""
    if out.is_dir():
        fail(f"cannot write {out}: it is a directory; name a file in it, such as --out {out / 'grid.png'}")
    if not out.parent.is_dir():
        fail(f"cannot write {out}: there is no directory {out.parent}; make it, or choose another --out")
    if not os.access(out if out.exists() else out.parent, os.W_OK):
        fail(f"cannot write {out}: you may not write there; choose another --out")
