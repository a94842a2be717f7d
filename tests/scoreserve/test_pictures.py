"""Pictures for the service: whatever they are given as, they have the pixels of their file."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.card import ImageShape
from scoreserve import WrongArgument
from scoreserve.pictures import encode
from service.asking.decoding import Limits, Unusable
from service.asking.pictures import Fit, read_picture

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def seen(file: bytes) -> Any:
    """What the service sees in a file that is picture and mask at once, of whichever size."""
    shape = ImageShape(channels=3, height=6, width=8)
    try:
        found = read_picture(file, file, shape, Fit.RESIZE, Limits(10_000, 10_000, 20))
    except Unusable as refusal:
        return str(refusal)
    return found.pixels.tolist(), found.mask.tolist()


def files() -> dict[str, bytes]:
    grey, colour = Image.fromarray(RAMP), Image.fromarray(COLOUR)
    made = {mode: save(colour.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")}
    made |= {f"{mode} in TIFF": save(colour.convert(mode), "TIFF") for mode in ("CMYK", "YCbCr", "RGBA", "LAB")}
    made |= {
        "CMYK in JPEG": save(colour.convert("CMYK"), "JPEG"),
        "I;16": save(Image.fromarray(RAMP.astype(np.uint16) * 257), "PNG"),
        "I;16 in TIFF": save(Image.fromarray(RAMP.astype(np.uint16) * 257), "TIFF"),
        "I": save(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
        "F": save(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
        "transparent palette": save(grey.quantize(), "GIF", transparency=3),
        "transparent grey": save(grey, "PNG", transparency=200),
        "transparent colour": save(colour.convert("RGB"), "PNG", transparency=tuple(COLOUR[2, 3, :3].tolist())),
    }
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        made[f"turned {orientation}"] = save(grey, "JPEG", quality=100, exif=exif)
    exif = (
        b"Exif\0\0II*\0\x08\0\0\0\x02\0\x0f\x01\x4d\0\xff\xff\xff\xff\xff\xff\xff\xff\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
    )
    made["a damaged tag"] = save(grey, "WEBP", lossless=True, exif=exif + bytes(4))
    return made


FILES = files()


@pytest.mark.parametrize("name", FILES)
def test_a_pillow_image_has_the_pixels_of_its_file(name: str) -> None:
    with Image.open(io.BytesIO(FILES[name])) as image:
        assert seen(encode(image)) == seen(FILES[name])


def test_a_turned_image_is_seen_upright() -> None:
    assert seen(FILES["turned 6"]) != seen(FILES["turned 1"])
    assert seen(FILES["a damaged tag"]) != seen(save(Image.fromarray(RAMP), "PNG"))


@pytest.mark.parametrize("mode", ["La", "RGBa", "RGBX", "HSV"])
def test_a_mode_that_no_file_has_is_stored_as_one_that_has_the_same_pixels(mode: str) -> None:
    image = Image.fromarray(COLOUR).convert({"La": "LA", "RGBa": "RGBA"}.get(mode, "RGB")).convert(mode)
    with Image.open(io.BytesIO(encode(image))) as stored:
        assert stored.size == (8, 6)
        assert np.asarray(stored.convert("RGBA")).shape == (6, 8, 4)


def test_a_path_may_be_text(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(FILES["RGB"])
    assert encode(str(path)) == encode(path) == encode(FILES["RGB"])
    with pytest.raises(WrongArgument, match=r"missing\.png: No such file"):
        encode(str(tmp_path / "missing.png"))
