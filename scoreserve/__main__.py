"""The command `scoreserve`, which `python -m scoreserve` is as well: of modules that are ours, whatever PYTHONPATH has.

Others have packages called cli, worker, service or models too, and what lies on PYTHONPATH, as where a network of one's
own does, comes before what is installed. This file needs nothing that is not Python's own: it can be run by its path.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

OURS = "cli", "models", "scoreserve", "service", "worker"


class Finder:
    """Finds our packages beside this one, before anybody looks on the path.

    Args:
        directory: where they are.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 (of importlib's protocol)
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Where a package of ours is; None of any other module."""
        return PathFinder.find_spec(name, [self.directory], target) if name in OURS else None


def main() -> None:
    """Runs the command."""
    sys.meta_path.insert(0, Finder(Path(__file__).resolve().parents[1]))
    import_module("cli.main").app(
        prog_name="scoreserve"
    )  # by its name: a program that has only the client imports this file too


if __name__ == "__main__":
    main()
