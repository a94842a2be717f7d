"""Drawing: pictures of many images, written to a file. Done in a process of service.apart, so this imports little."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from models.images import Pixels, grid, to_image

LAST_MS = 1000  # how long an animation shows the result


def work(asked: dict[str, Any], pieces: Iterator[bytes]) -> tuple[dict[str, Any], bytes]:
    """Draws what `draw` says into the file `path`, which is not there yet."""
    with Path(asked["path"]).open("xb") as file:
        draw(asked, pieces, file)
    return {}, b""


def draw(asked: dict[str, Any], pieces: Iterator[bytes], file: IO[bytes]) -> None:
    """Draws images into a file.

    Args:
        asked: `kind` (PNG, WEBP or GIF), `image` (height, width and channels of each), `count`, and `columns`,
            `padding` and `scale` of a grid; of a PNG `background` (red, green and blue; None is transparent; not there:
            each channel is 0); of an animation `frames` and `fps`.
        pieces: the images, uint8, any number of bytes at a time; those of an animation as [count, frames, h, w, c].
        file: is written to.
    """
    if asked["kind"] == "PNG":
        _grid(asked, pieces).save(file, "PNG")
    else:
        _animate(asked, b"".join(pieces), file)


def _grid(asked: dict[str, Any], pieces: Iterator[bytes]) -> Image.Image:
    """A grid, as models.images.grid makes it, of which no more than the grid itself is in memory."""
    height, width, _ = asked["image"]
    count, padding, scale = asked["count"], asked["padding"], asked["scale"]
    columns = min(asked["columns"] or math.ceil(math.sqrt(count)), count)
    across, down = width * scale + padding, height * scale + padding
    size = columns * across + padding, -(-count // columns) * down + padding
    canvas: Image.Image | None = None
    for number, pixels in enumerate(_each(asked["image"], pieces)):
        value: Sequence[int] = (0,) * pixels.shape[-1]
        if "background" in asked:
            pixels, value = _on(pixels, asked["background"])  # noqa: PLW2901
        cell = to_image(pixels.repeat(scale, 0).repeat(scale, 1))
        if canvas is None:
            canvas = Image.new(cell.mode, size, tuple(value) if len(value) > 1 else value[0])
        canvas.paste(cell, (number % columns * across + padding, number // columns * down + padding))
    assert canvas is not None  # a job has an image at least
    return canvas


def _each(shape: Sequence[int], pieces: Iterator[bytes]) -> Iterator[Pixels]:
    """One image uint8 [h, w, c] after the other."""
    size, rest = math.prod(shape), b""
    for piece in pieces:
        data = rest + piece
        whole = len(data) // size * size
        yield from np.frombuffer(data[:whole], np.uint8).reshape(-1, *shape)
        rest = data[whole:]


def _on(image: Pixels, background: Sequence[int] | None) -> tuple[Pixels, Sequence[int]]:
    """An image with the channels that a background needs, and its value in them."""
    colours, opacity = np.split(image, [1 if image.shape[-1] < 3 else 3], axis=-1)
    if colours.shape[-1] == 1:
        if background is not None and len(set(background)) == 1:
            return image, (*background[:1], 255)[: image.shape[-1]]
        colours = colours.repeat(3, axis=-1)
    if background is None:
        opacity = opacity if opacity.shape[-1] else np.full_like(colours[..., :1], 255)
    value = (0, 0, 0, 0) if background is None else (*background, 255)
    image = np.concatenate([colours, opacity], axis=-1)
    return image, value[: image.shape[-1]]


def _animate(asked: dict[str, Any], data: bytes, file: IO[bytes]) -> None:
    """An animated grid, which ends with the result for a second, and begins again."""
    images = np.frombuffer(data, np.uint8).reshape(asked["count"], asked["frames"], *asked["image"])
    pause = round(1000 / asked["fps"])
    durations = [pause] * (asked["frames"] - 1) + [max(pause, LAST_MS)]
    webp = {"lossless": True, "quality": 0, "method": 0}
    options: dict[str, Any] = webp if asked["kind"] == "WEBP" else {"disposal": 1}
    film = _Film(images.swapaxes(0, 1), asked["columns"], asked["padding"], asked["scale"])
    film.save(file, asked["kind"], save_all=True, duration=durations, loop=0, **options)


class _Film(Image.Image):
    """Grids of frames uint8 [frames, n, h, w, c], of which one is in memory: Pillow takes one after the other."""

    def __init__(self, frames: Pixels, columns: int | None, padding: int, scale: int) -> None:
        super().__init__()
        self.frames, self.options = frames, (columns, padding, scale)
        self.n_frames = len(frames)
        self.seek(0)

    def seek(self, frame: int) -> None:
        if frame >= self.n_frames:
            raise EOFError
        drawn = to_image(grid(self.frames[frame], *self.options))
        self.im, self._mode, self._size = drawn.im, drawn.mode, drawn.size
        self.number = frame

    def tell(self) -> int:
        return self.number
