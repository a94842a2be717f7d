"""What every benchmark reports beside its figures: where and how it ran, as a table and as JSON."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table


def environment() -> dict[str, Any]:
    """Date, versions, device, threads, load average and command of this run."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(),
        "device": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def describe(machine: dict[str, Any]) -> str:
    """The environment in one line."""
    return (
        f"{machine['device']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"load average {machine['load_average_at_start']:g} at the start, torch {machine['torch']}"
    )


def console() -> Console:
    """A console wide enough for our tables, also where the output goes into a file."""
    wide = Console(highlight=False)
    return wide if wide.is_terminal else Console(width=160, highlight=False)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose first column is a name and whose other columns are figures."""
    out = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, column in enumerate(columns):
        out.add_column(column, justify="right" if i else "left", overflow="fold")
    for row in rows:
        out.add_row(*row)
    return out


def write_json(path: Path, figures: dict[str, Any]) -> None:
    """Writes figures as JSON, whole or not at all; the directory is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    aside.replace(path)


def _command() -> str:
    """The command line, its absolute paths made relative to the working directory."""
    spec = sys.modules["__main__"].__spec__
    program = ["-m", spec.name] if spec else [Path(sys.argv[0]).name]
    return shlex.join(["python", *program, *(_relative(argument) for argument in sys.argv[1:])])


def _relative(argument: str) -> str:
    option, equals, value = argument.rpartition("=")
    return option + equals + (os.path.relpath(value) if os.path.isabs(value) else value)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
