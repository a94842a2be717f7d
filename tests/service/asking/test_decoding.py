"""From files to pictures: a file is one picture, or it is refused; and a bomb is not decoded."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from service.asking.decoding import Unusable, count_scans, open_picture

ONE = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8))
OTHER = Image.new("L", (8, 6), 200)
SCANS = 20  # of a JPEG


def save(kind: str, *more: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    ONE.save(buffer, kind, **({"save_all": True, "append_images": more} if more else {}), **options)
    return buffer.getvalue()


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data: bytes) -> np.ndarray:
    return np.asarray(open_picture("image", data, lambda *_: True, "any size", SCANS).decode().image.convert("L"))


def page(kind: int, size: tuple[int, int] = (8, 6)) -> Image.Image:
    """One of a TIFF file, that says what it is."""
    made = OTHER.resize(size)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[254] = kind
    made.encoderinfo = {"tiffinfo": tags}
    return made


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("GIF", {}),
        ("WEBP", {"lossless": True}),
        ("PNG", {}),
        ("PNG", {"default_image": True}),  # beside the animation
        ("TIFF", {}),
    ],
)
def test_a_file_of_more_than_one_picture_is_refused(kind: str, options: dict[str, Any]) -> None:
    assert (decode(save(kind, **options)) == np.asarray(ONE)).all()
    with pytest.raises(Unusable, match="/image: the file has more than one picture") as refused:
        decode(save(kind, OTHER, **options))
    assert refused.value.allowed == "a file of one picture: one frame, or one page"


def test_an_animation_of_one_frame_is_a_picture() -> None:
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        assert (decode(save(kind, save_all=True, **{"lossless": True} if kind == "WEBP" else {})) == ONE).all(), kind


@pytest.mark.parametrize(("what", "refused"), [(0, True), (2, True), (1, False), (4, False)])
def test_a_thumbnail_or_a_mask_of_the_first_page_is_no_page(what: int, refused: bool) -> None:
    data = save("TIFF", page(what, (4, 3)))
    if refused:
        with pytest.raises(Unusable, match="more than one"):
            decode(data)
    else:
        assert (decode(data) == np.asarray(ONE)).all()


def test_what_a_camera_adds_to_a_photograph_is_no_other_picture() -> None:
    photograph = save("MPO", OTHER, quality=100)
    with Image.open(io.BytesIO(photograph)) as opened:
        assert opened.format == "MPO"
        assert opened.n_frames == 2  # type: ignore[attr-defined]
    assert np.abs(decode(photograph).astype(int) - np.asarray(ONE)).max() < 3


def test_a_next_page_that_is_not_there_is_none() -> None:
    data = bytearray(save("TIFF"))
    start = int.from_bytes(data[4:8], "little")
    end = start + 2 + 12 * int.from_bytes(data[start : start + 2], "little")
    data[end : end + 4] = (10**6).to_bytes(4, "little")
    assert (decode(bytes(data)) == np.asarray(ONE)).all()


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
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
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
    gif = bytearray(file_of(Image.new("L", (8, 8)), "GIF"))
    place = gif.index(b"\x2c" + bytes(4) + b"\x08\0\x08\0") + 5
    gif[place : place + 4] = struct.pack("<HH", 10_000, 10_000)
    files = {
        "small.png": file_of(Image.new("L", (8, 8), 255)),
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


def scans_of(data: bytes, more: int) -> bytes:
    """A progressive JPEG file with its last scan so many times more."""
    last = data.rindex(b"\xff\xda")
    return data[:-2] + more * data[last:-2] + data[-2:]


def test_scans_of_a_jpeg_are_counted_before_it_is_decoded() -> None:
    thumbnail = save("JPEG")
    exif = Image.Exif()
    exif[0x010E] = thumbnail.decode("latin1")  # a picture in the data beside the picture
    plain = save("JPEG", exif=exif)
    assert count_scans(plain, 100) == 1
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8))
    progressive = file_of(colours, "JPEG", progressive=True)
    usual = count_scans(progressive, 100)
    assert 5 < usual <= SCANS
    assert decode(progressive).shape == (6, 8)
    assert count_scans(scans_of(progressive, 600), 10_000) == usual + 600
    assert count_scans(scans_of(progressive, 600), 21) == 21, "no further than it matters"
    decode(scans_of(progressive, SCANS - usual))
    with pytest.raises(Unusable, match="more than 20 scans") as caught:
        decode(scans_of(progressive, SCANS - usual + 1))
    assert caught.value.allowed == "at most 20 scans"
