"""Views of a finished job's images, drawn when they are asked for."""

import io
import math

import numpy as np

from models.images import Pixels, grid, to_png
from service.problems import invalid
from worker.queue import Job

PNG = "image/png"
NPZ = "application/x-npz"


def grid_png(images: Pixels, max_pixels: int, columns: int | None = None, padding: int = 2, scale: int = 2) -> bytes:
    """A PNG grid of images uint8 [n, h, w, c].

    Raises:
        Problem: it would have more than `max_pixels` pixels.
    """
    n, height, width, _ = images.shape
    check_grid(n, height, width, max_pixels, columns, padding, scale)
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
        raise invalid("scale", f"the grid would have {pixels:,} pixels", f"at most {max_pixels:,}: use a smaller scale")


def samples_npz(job: Job, images: Pixels) -> bytes:
    """An npz file: `images` uint8 [n, h, w, c], `seed`, and the job's `request` as JSON."""
    buffer = io.BytesIO()
    request = job.request.model_dump_json(exclude={"image", "mask"})
    np.savez_compressed(buffer, images=images, seed=np.array(job.request.seed), request=np.array(request))
    return buffer.getvalue()
