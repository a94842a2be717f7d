"""Views of a finished job's images: pictures, which are drawn when they are asked for, and archives."""

import io
import math
import zipfile
from collections.abc import Iterator
from itertools import chain
from typing import IO, Any

import numpy as np

from models.images import Pixels, to_png
from service.answering.problems import Problem, invalid
from service.drawing.drawings import View
from worker.queue.job import Job
from worker.queue.results import Results

PNG = "image/png"
NPZ = "application/x-npz"
ZIP = "application/zip"
WEBP, GIF = "image/webp", "image/gif"
PIECE_BYTES = 2**16  # sent at a time
LIGHT_BYTES = 2**16  # of pixels in an npz that takes some milliseconds


Colour = tuple[int, int, int] | None  # of the background; None is transparent
BLACK: Colour = (0, 0, 0)


def grid(
    job: Job,
    results: Results,
    max_pixels: int,
    columns: int | None = None,
    padding: int = 2,
    scale: int = 2,
    background: Colour = BLACK,
) -> View:
    """A PNG grid of a finished job's images.

    Raises:
        Problem: it would have more than `max_pixels` pixels.
    """
    options: dict[str, Any] = {"columns": columns, "padding": padding, "scale": scale}
    pixels = check_grid(job.request.count, job.image.height, job.image.width, max_pixels, **options)
    said = {"kind": "PNG", "count": job.request.count, "background": background, **options}
    return View("grid.png", pixels, said, lambda: results.pieces(job))


def image(job: Job, results: Results, max_pixels: int, index: int, scale: int) -> View:
    """A PNG of one image of a finished job.

    Raises:
        Problem: there is no such image, or it would have more than `max_pixels` pixels.
    """
    if index >= job.request.count:
        raise Problem("not-found", f"job {job.id} has images 0 to {job.request.count - 1}")
    options = {"columns": 1, "padding": 0, "scale": scale}
    pixels = check_grid(1, job.image.height, job.image.width, max_pixels, **options)
    name = f"images/{index}.png"
    return View(name, pixels, {"kind": "PNG", "count": 1, **options}, lambda: [results.image(job, index)])


def filmstrip(job: Job, results: Results, max_pixels: int, padding: int = 2, scale: int = 1) -> View:
    """A PNG with a row for each image of a finished job and a column for each frame, as in Song & Ermon 2019, figure 5.

    Raises:
        Problem: it would have more than `max_pixels` pixels.
    """
    count, frames = job.request.count, job.request.frames
    options = {"columns": frames, "padding": padding, "scale": scale}
    pixels = check_grid(count * frames, job.image.height, job.image.width, max_pixels, **options)
    said = {"kind": "PNG", "count": count * frames, **options}
    return View("filmstrip.png", pixels, said, lambda: [results.frames(job)])


def animation(
    job: Job, results: Results, kind: str, max_pixels: int, columns: int | None, scale: int, fps: float
) -> View:
    """The frames of a finished job as an animated grid, which ends with the result for a second, and begins again.

    Args:
        job: with frames.
        results: its images.
        kind: WEBP (without loss) or GIF.
        max_pixels: of all frames together.
        columns: images in a row.
        scale: factor by which each pixel is repeated.
        fps: frames a second.

    Raises:
        Problem: it would have more than `max_pixels` pixels.
    """
    frames = job.request.frames
    options: dict[str, Any] = {"columns": columns, "padding": 2, "scale": scale}
    pixels = check_grid(job.request.count, job.image.height, job.image.width, max_pixels // frames, **options)
    said = {"kind": kind, "count": job.request.count, "frames": frames, "fps": fps, **options}
    return View(f"animation.{kind.lower()}", pixels * frames, said, lambda: [results.frames(job)])


def images_zip(job: Job, pieces: Iterator[Pixels]) -> Iterator[bytes]:
    """A zip file of PNG files `0000.png` and so on, a piece at a time.

    Args:
        job: finished.
        pieces: its images, uint8 [n, h, w, c] at a time.

    Raises:
        JobNotFound: the images are gone; before the first piece, so that there can be another answer.
    """
    return _pngs(job, chain([next(pieces)], pieces))


def _pngs(job: Job, pieces: Iterator[Pixels]) -> Iterator[bytes]:
    sink, digits = _Sink(), max(4, len(str(job.request.count - 1)))
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for number, pixels in enumerate(chain.from_iterable(pieces)):
            archive.writestr(zipfile.ZipInfo(f"{number:0{digits}}.png"), to_png(pixels))
            if sink.size > PIECE_BYTES:
                yield sink.take()
    yield sink.take()


def check_grid(
    count: int, height: int, width: int, max_pixels: int, columns: int | None = None, padding: int = 2, scale: int = 2
) -> int:
    """How many pixels a grid of `count` images has, if it may be drawn.

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
    return pixels


def is_light(job: Job) -> bool:
    """Whether an npz of a job is an answer like others, and not one of those of which few are sent at once."""
    return job.request.count * job.image.size <= LIGHT_BYTES


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

    @property
    def size(self) -> int:
        """Bytes to take."""
        return sum(map(len, self._written))

    def take(self) -> bytes:
        """What was written since the last time."""
        taken, self._written = b"".join(self._written), []
        return taken
