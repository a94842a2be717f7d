"""Files that are whole or not there: written aside, then renamed into place. Torch-free."""

import json
import os
from pathlib import Path
from typing import Any


def cache_dir() -> Path:
    """Where what can be made again is kept: $XDG_CACHE_HOME/scoreserve, by default ~/.cache/scoreserve."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scoreserve"


def write(path: Path, data: bytes) -> None:
    """Writes a file, or replaces it, atomically; its directory is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, figures: dict[str, Any]) -> None:
    """Writes figures as JSON for a person to read, atomically."""
    write(path, (json.dumps(figures, indent=2, ensure_ascii=False) + "\n").encode())
