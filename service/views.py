"""Views of a finished job's images, drawn when they are asked for."""

import io
import math
import zipfile
from collections.abc import Iterator
from itertools import chain
from typing import IO, Any

import numpy as np

from models.images import Pixels, grid, to_png
from service.problems import invalid
from worker.queue import Job
from worker.results import Results

PNG = "image/png"
NPZ = "application/x-npz"


def grid_png(
    job: Job, results: Results, max_pixels: int, columns: int | None = None, padding: int = 2, scale: int = 2
) -> bytes:
    """A PNG grid of a finished job's images.

    Raises:
        Problem: it would have more than `max_pixels` pixels.
        JobNotFound: the images are gone.
    """
    check_grid(job.request.count, job.image.height, job.image.width, max_pixels, columns, padding, scale)
    images = results.images(job)
    return to_png(grid(images, columns, padding, scale))


def check_grid(
    count: int, height: int, width: int, max_pixels: int, columns: int | None = None, padding: int = 2, scale: int = 2
) -> None:
    """Whether a grid of `count` images may be drawn.

    Raises:
        Problem: it would have more than `max_pixels` pixels.
    """
    across = min(columns or math.ceil(math.sqrt(count)), count)
    down = -(-count // across)
    pixels = (across * (width * scale + padding) + padding) * (down * (height * scale + padding) + padding)
    if pixels > max_pixels:
        raise invalid(
            "scale",
            f"the grid would have {pixels:,} pixels",
            f"at most {max_pixels:,}: use a smaller scale, or samples.npz, which has no limit",
        )


def samples_npz(job: Job, pieces: Iterator[Pixels]) -> Iterator[bytes]:
    """An npz file, a piece at a time: `images` uint8 [n, h, w, c], `seed`, and the job's `request` as JSON.

    Args:
        job: finished.
        pieces: its images, uint8 [n, h, w, c] at a time.

    Raises:
        JobNotFound: the images are gone; before the first piece, so that there can be another answer.
    """
    return _zipped(job, chain([next(pieces)], pieces))


def _zipped(job: Job, pieces: Iterator[Pixels]) -> Iterator[bytes]:
    sink = _Sink()
    shape = (job.request.count, job.image.height, job.image.width, job.image.channels)
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        with _member(archive, "images") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for piece in pieces:
                file.write(piece.tobytes())
                yield sink.take()
        request = job.request.model_dump_json(exclude={"image", "mask"})
        for name, array in (("seed", np.array(job.request.seed)), ("request", np.array(request))):
            with _member(archive, name) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    yield sink.take()


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """An array in an npz. It has no time, so that the same images make the same file."""
    info = zipfile.ZipInfo(f"{name}.npy")
    info.compress_type = zipfile.ZIP_DEFLATED
    return archive.open(info, "w", force_zip64=True)


class _Sink(io.RawIOBase):
    """A file that is only written to, and read piece by piece by who sends it on."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """What was written since the last time."""
        taken, self._written = b"".join(self._written), []
        return taken
