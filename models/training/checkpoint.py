"""The file that a run goes on from."""

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

CHECKPOINT, BEFORE = "checkpoint.pt", "checkpoint-before.pt"


class AnotherRun(ValueError):
    """A checkpoint is there, but of a run that this one does not go on; the message says what to do."""


class Checkpoint:
    """The last checkpoint of a run, and beside it the one before.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: Path) -> None:
        self.path, self._before = directory / CHECKPOINT, directory / BEFORE

    def exists(self) -> bool:
        """Whether there is one."""
        return self.path.exists()

    def write(self, state: dict[str, Any]) -> None:
        """Writes it atomically; what was there is kept as the one before.

        Raises:
            OSError: it cannot be written; the checkpoint before it stays.
            KeyboardInterrupt: Ctrl-C was pressed meanwhile; the checkpoint before it stays.
        """
        path, aside = self.path, self.path.with_suffix(".tmp")
        try:
            with aside.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                self._before.unlink(missing_ok=True)
                os.link(path, self._before)
            aside.replace(path)
        except (OSError, RuntimeError) as error:  # torch's writer turns what the file raises into a RuntimeError
            aside.unlink(missing_ok=True)
            if isinstance(error.__context__, KeyboardInterrupt):  # nothing is wrong with the file
                raise error.__context__ from None
            cause = error.__context__ if isinstance(error.__context__, OSError) else error
            raise OSError(f"the checkpoint cannot be written to {path}: {cause}; the one before it stays") from error

    @contextmanager
    def read(self, device: torch.device) -> Iterator[dict[str, Any]]:
        """What it holds, on a device; errors inside, of reading and of using it, become one that says what to do.

        Raises:
            ValueError: it is damaged or of another network.
            AnotherRun: passed on.
        """
        try:
            yield torch.load(self.path, map_location=device, weights_only=True)
        except AnotherRun:
            raise
        except (RuntimeError, ValueError, TypeError, KeyError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"{self.path} is damaged or of another network: use another --out, or move it away"
            ) from error
