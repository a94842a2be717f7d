"""Pictures that clients send: every mode and format, and that a bomb is not decoded."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from models.card import ImageShape
from service.answering.problems import Problem
from service.asking.pictures import FORMATS, Fit, Picture, read_picture

GREY = ImageShape(channels=1, height=6, width=8)
COLOUR = ImageShape(channels=3, height=6, width=8)
RAMP = np.linspace(0, 255, 48).round().astype(np.uint8).reshape(6, 8)


MOST = 100_000  # pixels that are fitted


def read(image: bytes, mask: bytes | None, shape: ImageShape, fit: Fit = Fit.ERROR) -> Picture:
    return read_picture(image, mask, shape, fit, MOST)


def decode_image(data: bytes, shape: ImageShape) -> np.ndarray:
    """Pixels of a picture that has the model's size."""
    return read(data, save(Image.new("L", (shape.width, shape.height), 255)), shape).pixels


def save(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
def test_grey_in_every_mode_of_eight_bits_is_exact(mode: str) -> None:
    image = Image.fromarray(RAMP).convert(mode)
    assert (decode_image(save(image), GREY)[..., 0] == RAMP).all()
    colour = decode_image(save(image), COLOUR)
    assert colour.shape == (6, 8, 3)
    assert (colour == RAMP[..., None]).all()


def test_one_bit() -> None:
    found = decode_image(save(Image.fromarray(RAMP > 100)), GREY)[..., 0]
    assert (found == np.where(RAMP > 100, 255, 0)).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_cut(kind: str) -> None:
    image = Image.fromarray(RAMP.astype(np.uint16) * 257)
    assert image.mode == "I;16"
    assert (decode_image(save(image, kind), GREY)[..., 0] == RAMP).all()


def test_floats_are_taken_as_0_to_255() -> None:
    values = RAMP.astype(np.float32)
    values[0, 0], values[0, 1] = -1e9, 1e9
    found = decode_image(save(Image.fromarray(values), "TIFF"), GREY)[..., 0]
    assert (found[0, :2] == [0, 255]).all()
    assert (found[1:] == RAMP[1:]).all()


def test_floats_that_are_no_numbers_are_refused() -> None:
    values = RAMP.astype(np.float32)
    values[0, 0] = np.nan
    with pytest.raises(Problem, match="/image"):
        decode_image(save(Image.fromarray(values), "TIFF"), GREY)


def test_colours_of_a_palette_and_of_cmyk() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    palette = Image.fromarray(colours).quantize(256)
    assert palette.mode == "P"
    assert (decode_image(save(palette), COLOUR) == np.asarray(palette.convert("RGB"))).all()
    assert decode_image(save(Image.new("CMYK", (8, 6)), "JPEG"), COLOUR).min() > 250


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(kind: str) -> None:
    found = decode_image(save(Image.fromarray(RAMP), kind), GREY)[..., 0]
    assert np.abs(found.astype(int) - RAMP).max() < 40


def test_other_formats_are_refused() -> None:
    with pytest.raises(Problem, match="not a picture that can be read"):
        decode_image(save(Image.fromarray(RAMP), "PPM"), GREY)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_turned_back(orientation: int) -> None:
    photograph = Image.fromarray(RAMP if orientation < 5 else np.ascontiguousarray(RAMP.T))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = save(photograph, "JPEG", quality=100, exif=exif)
    found = decode_image(data, GREY)[..., 0]
    with Image.open(io.BytesIO(data)) as stored:
        upright = ImageOps.exif_transpose(stored)
    assert upright.size == (8, 6)
    assert (found == np.asarray(upright)).all()


def test_a_turned_photograph_of_the_wrong_way_round_is_refused() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with pytest.raises(Problem, match="6 x 8 pixels"):
        decode_image(save(Image.fromarray(RAMP), "JPEG", exif=exif), GREY)
    with pytest.raises(Problem, match="6 x 8 pixels"):
        decode_image(save(Image.fromarray(np.ascontiguousarray(RAMP.T))), GREY)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_a_mask_is_white_or_black(mode: str) -> None:
    wanted = RAMP > 100
    mask = Image.fromarray(np.where(wanted, 255, 0).astype(np.uint8)).convert(mode)
    assert (read(save(Image.new("L", (8, 6))), save(mask), COLOUR).mask == wanted).all()


def test_without_a_mask_what_is_transparent_is_repainted() -> None:
    alpha = np.where(RAMP > 100, 127, 128).astype(np.uint8)
    for mode in ("LA", "RGBA"):
        picture = Image.fromarray(RAMP).convert(mode)
        picture.putalpha(Image.fromarray(alpha))
        found = read(save(picture), None, GREY)
        assert (found.mask == (RAMP > 100)).all()
        assert (found.pixels[..., 0] == RAMP).all()
    palette = Image.fromarray((RAMP > 100).astype(np.uint8), "P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    found = read(save(palette, "GIF", transparency=1), None, COLOUR)
    assert (found.mask == (RAMP > 100)).all()
    assert (found.pixels[RAMP <= 100] == [10, 20, 30]).all()
    with pytest.raises(Problem, match=r"/mask.*no alpha"):
        read(save(Image.fromarray(RAMP)), None, GREY)
    with pytest.raises(Problem, match=r"/mask.*no transparent"):
        read(save(Image.fromarray(RAMP).convert("LA")), None, GREY)


def test_models_of_two_and_four_channels() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8))
    assert (decode_image(save(picture), COLOUR.model_copy(update={"channels": 4})) == np.asarray(picture)).all()
    two = decode_image(save(picture), COLOUR.model_copy(update={"channels": 2}))
    assert (two[..., 1] == np.asarray(picture)[..., 3]).all()


def test_a_picture_is_resized_or_cropped_to_the_model() -> None:
    """Left a third white, in the middle grey, right black; the model's proportions are those of the middle."""
    wide = np.full((30, 120, 3), 100, np.uint8)
    wide[:, :40], wide[:, 80:] = 255, 0
    mask = save(Image.new("1", (120, 30), 1))
    resized = read(save(Image.fromarray(wide)), mask, COLOUR, Fit.RESIZE).pixels
    assert resized[:, 0].min() > 245 > 10 > resized[:, -1].max()
    assert abs(int(resized[3, 4, 0]) - 100) < 12
    cropped = read(save(Image.fromarray(wide)), mask, COLOUR, Fit.CROP).pixels
    assert cropped.shape == (6, 8, 3)
    assert (cropped == 100).all()
    tall = np.ascontiguousarray(wide.transpose(1, 0, 2))
    assert (
        abs(
            read(save(Image.fromarray(tall)), save(Image.new("1", (30, 120), 1)), COLOUR, Fit.CROP).pixels - 100.0
        ).max()
        < 1
    )
    for fit in (Fit.RESIZE, Fit.CROP):
        small = read(save(Image.new("RGB", (1, 1), (9, 8, 7))), save(Image.new("1", (1, 1), 1)), COLOUR, fit)
        assert (small.pixels == [9, 8, 7]).all()
        assert (small.mask == 1).all()
        same = save(Image.fromarray(RAMP))
        assert (read(same, save(Image.fromarray(RAMP > 100)), GREY, fit).pixels[..., 0] == RAMP).all()


@pytest.mark.parametrize(("x", "y"), [(0, 0), (79, 59), (9, 10), (10, 9), (37, 23)])
@pytest.mark.parametrize("source", ["mask", "alpha"])
def test_one_white_pixel_makes_the_one_that_covers_it_repainted(x: int, y: int, source: str) -> None:
    white = np.zeros((60, 80), np.uint8)
    white[y, x] = 255
    picture = Image.new("LA", (80, 60), (77, 255))
    if source == "alpha":
        picture.putalpha(Image.fromarray(255 - white))
    mask = save(Image.fromarray(white)) if source == "mask" else None
    for fit in (Fit.RESIZE, Fit.CROP):
        found = read(save(picture), mask, GREY, fit)
        assert found.mask.sum() == 1
        assert found.mask[y // 10, x // 10] == 1
        assert (found.pixels[found.mask == 0] == 77).all(), "what is repainted bleeds into what is kept"


def test_a_mask_is_fitted_like_its_picture_or_is_already_of_the_models_size() -> None:
    picture = save(Image.new("L", (100, 60)))
    left = np.zeros((60, 100), np.uint8)
    left[:, :15] = 255
    assert (read(picture, save(Image.fromarray(left)), GREY, Fit.CROP).mask.sum(axis=0) == [6] + [0] * 7).all()
    assert (read(picture, save(Image.fromarray(left)), GREY, Fit.RESIZE).mask.sum(axis=0) == [6] * 2 + [0] * 6).all()
    own = np.where(RAMP > 100, 255, 0).astype(np.uint8)
    for fit in (Fit.RESIZE, Fit.CROP):
        assert (read(picture, save(Image.fromarray(own)), GREY, fit).mask == (RAMP > 100)).all()
        with pytest.raises(Problem, match=r"/mask: the mask is 50 x 60 pixels, the picture 100 x 60"):
            read(picture, save(Image.new("L", (50, 60), 255)), GREY, fit)
    left[:, 10:] = 0
    with pytest.raises(Problem, match=r"/mask.*cut off"):
        read(picture, save(Image.fromarray(left)), GREY, Fit.CROP)


def test_what_is_to_be_fitted_is_turned_first_and_may_have_sixteen_bits() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = np.zeros((80, 60), np.uint8)
    lying[40:] = 200
    found = read(
        save(Image.fromarray(lying), "JPEG", quality=100, exif=exif),
        save(Image.new("1", (80, 60), 1)),
        GREY,
        Fit.RESIZE,
    )
    assert (found.pixels[:, :3] > 190).all()
    assert (found.pixels[:, 5:] < 10).all()
    deep = Image.fromarray(np.full((300, 200), 150 * 257, np.uint16))
    assert (read(save(deep), save(Image.new("1", (200, 300), 1)), COLOUR, Fit.CROP).pixels == 150).all()


def test_what_is_too_large_to_be_fitted_is_refused() -> None:
    small, large = (save(Image.new("L", (MOST // 10, height), 255)) for height in (10, 11))
    read(small, small, GREY, Fit.RESIZE)
    for pair, field in (((large, small), "/image"), ((small, large), "/mask")):
        with pytest.raises(Problem, match=f"{field}: the picture is 10000 x 11 pixels") as caught:
            read(*pair, GREY, Fit.RESIZE)
        assert caught.value.errors[0].allowed == "at most 100,000 pixels"


# Runs without torch and with little else, so that its memory can be watched.
BOMBS = """
import asyncio, io, resource, sys
import httpx
from service.app import create_app
from service.settings import ServiceSettings

app = create_app(ServiceSettings(redis_url=sys.argv[2], models_dir=sys.argv[1], default_model="tiny"))
small, *bombs = [open(path, "rb").read() for path in sys.argv[3:]]

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

async def main():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        async def said(image, mask):
            response = await client.post("/inpaint", files={"image": image, "mask": mask})
            return response.status_code, response.json()["detail"]
        assert (await client.post("/inpaint", files={"image": small, "mask": small})).status_code == 202
        before = peak()
        for bomb in bombs:
            for pair in ((bomb, small), (small, bomb)):
                status, detail = await said(*pair)
                assert status == 422, detail
                assert "10000 x 10000" in detail or "far too large" in detail, detail
        print(peak() - before)

asyncio.run(main())
"""


def test_a_bomb_is_not_decoded(models_dir: Path, service_url: str, tmp_path: Path) -> None:
    """100 and 200 million pixels in a few kilobytes, and a GIF whose picture is larger than its header says."""
    gif = bytearray(save(Image.new("L", (8, 8)), "GIF"))
    place = gif.index(b"\x2c" + bytes(4) + b"\x08\0\x08\0") + 5
    gif[place : place + 4] = struct.pack("<HH", 10_000, 10_000)
    files = {
        "small.png": save(Image.new("L", (8, 8), 255)),
        "bomb.png": _black_png(10_000, 10_000),
        "vast.png": _black_png(20_000, 10_000),
        "liar.gif": bytes(gif),
    }
    for name, data in files.items():
        assert len(data) < 100_000, f"{name} is no bomb"
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", BOMBS, str(models_dir), service_url, *(str(tmp_path / name) for name in files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 30, "megabytes"


def _black_png(width: int, height: int) -> bytes:
    """A PNG file of one bit a pixel, made without holding its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(height * (1 + -(-width // 8))))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
