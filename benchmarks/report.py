"""What every benchmark reports beside its figures: where and how it ran, as a table and as JSON."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from models import environment as machines


def environment() -> dict[str, Any]:
    """Date, versions, device, threads, load average and command of this run."""
    return machines.environment(_command())


def console() -> Console:
    """A console wide enough for our tables, also where the output goes into a file."""
    wide = Console(highlight=False)
    return wide if wide.is_terminal else Console(width=160, highlight=False)


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median of some figures, and how far they are apart."""
    return {"median": median(values), "lowest": min(values), "highest": max(values)}


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose first column is a name and whose other columns are figures."""
    out = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, column in enumerate(columns):
        out.add_column(column, justify="right" if i else "left", overflow="fold")
    for row in rows:
        out.add_row(*row)
    return out


def _command() -> str:
    """The command line, its absolute paths made relative to the working directory."""
    spec = sys.modules["__main__"].__spec__
    program = ["-m", spec.name] if spec else [Path(sys.argv[0]).name]
    return shlex.join(["python", *program, *(_relative(argument) for argument in sys.argv[1:])])


def _relative(argument: str) -> str:
    option, equals, value = argument.rpartition("=")
    return option + equals + (os.path.relpath(value) if os.path.isabs(value) else value)
