"""Samples of one sampler setting, drawn once and kept: an interrupted run goes on, and a larger one draws the rest."""

import hashlib
import io
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models import files
from models.environment import device_name
from models.guidance import UNGUIDED, Guidance
from models.images import Pixels
from models.samplers.table import Table
from models.sampling.sample import sample
from models.score import ScoreModel


def key(
    weights_sha256: str,
    table: Table,
    seed: int,
    labels: Sequence[int] | None = None,
    guidance: Guidance = UNGUIDED,
) -> str:
    """Names all that images depend on but their numbers: weights, table, seed, and labels and guidance if there are."""
    start = f"{weights_sha256} {table.initial_mean!r} {table.initial_std!r} {seed}"
    if labels is not None:
        start += f" {list(labels)} {guidance}"
    return hashlib.sha256(start.encode() + table.rows.tobytes()).hexdigest()[:12]


@dataclass(frozen=True)
class Drawn:
    """Images that were drawn, and what it took.

    Args:
        pixels: uint8 [n, h, w, c].
        seconds: that drawing them took.
        devices: names of those that drew.
    """

    pixels: Pixels
    seconds: float
    devices: list[str]


class Samples:
    """The samples of one setting in a directory, a file for each chunk: images [n, h, w, c], seconds and device.

    Args:
        directory: whose name holds the `key` of the setting, since nothing else tells its samples from others.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def count(self) -> int:
        """How many are kept, without a gap."""
        chunks = self._chunks()
        return chunks[-1][1] if chunks else 0

    def draw(
        self,
        model: ScoreModel,
        table: Table,
        seed: int,
        count: int,
        slots: int,
        on_step: Callable[[int], None] = lambda _: None,
        labels: Sequence[int] | None = None,
        guidance: Guidance = UNGUIDED,
    ) -> None:
        """Draws what is missing of the first `count` samples, and keeps them `slots` at a time; see `sample`.

        `on_step` is called after every step with the image-steps that this call has done.

        Raises:
            OSError: the directory cannot be written.
        """
        device, done = device_name(model.device), 0

        def stepped(steps: int) -> None:
            on_step(done + steps)

        for first in range(self.count(), count, slots):
            n = min(slots, count - first)
            start = time.perf_counter()
            pixels = sample(model, table, n, seed, slots, first, stepped, labels, guidance)
            seconds = time.perf_counter() - start
            done += n * guidance.image_steps(table)
            file = io.BytesIO()
            np.savez(file, pixels=pixels, seconds=seconds, device=device)
            files.write(self.directory / f"{first:07d}-{first + n:07d}.npz", file.getvalue())

    def read(self, count: int) -> Drawn:
        """The first `count` samples; their seconds are those of all that are kept, in proportion.

        Raises:
            ValueError: there are fewer, or a file is damaged; the message says which.
        """
        images, seconds, devices = [], 0.0, set()
        chunks = self._chunks()
        kept = chunks[-1][1] if chunks else 0
        if kept < count:
            raise ValueError(f"{self.directory} holds {kept} samples, not {count}")
        for first, _, path in chunks:
            try:
                with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                    seconds += float(file["seconds"])
                    devices.add(str(file["device"]))
                    if first < count:
                        images.append(file["pixels"])
            except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise ValueError(f"{path} cannot be read ({error}): delete it, and it is drawn again") from error
        return Drawn(np.concatenate(images)[:count], seconds * count / kept, sorted(devices))

    def _chunks(self) -> list[tuple[int, int, Path]]:
        """First number, the one after the last, and file of every chunk, without a gap."""
        chunks: list[tuple[int, int, Path]] = []
        for path in sorted(self.directory.glob("[0-9]*-[0-9]*.npz")):
            first, end = map(int, path.stem.split("-"))
            if first == (chunks[-1][1] if chunks else 0):
                chunks.append((first, end, path))
        return chunks
