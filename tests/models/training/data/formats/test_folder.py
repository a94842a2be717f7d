import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.card import ImageShape
from models.training.data.formats import DataError
from models.training.data.formats.folder import find_pictures, read_pictures

SHAPE = ImageShape(channels=3, height=8, width=8)


def picture(path: Path, size: tuple[int, int] = (8, 8), color: tuple[int, int, int] = (200, 100, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def read(paths: list[Path], shape: ImageShape) -> torch.Tensor:
    return read_pictures(paths, shape).images


def test_pictures_are_found_at_any_depth_in_the_order_of_their_names(tmp_path: Path) -> None:
    wanted = [
        picture(tmp_path / name)
        for name in ("b/2.png", "a.PNG", "c.jpg", "b/1/x.bmp", "d.jp2", "e.jfif", "f.ppm", "g.tga")
    ]
    picture(tmp_path / ".thumbnails" / "a.png")
    picture(tmp_path / ".hidden.png")
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "folder.png").mkdir()
    assert find_pictures(tmp_path).pictures == sorted(wanted)
    assert find_pictures(tmp_path).others == {".txt": 1}


def test_the_middle_of_a_picture_is_kept(tmp_path: Path) -> None:
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = (10, 20, 30)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    (image,) = read([tmp_path / "wide.png"], SHAPE)
    assert torch.equal(image, torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None].expand(3, 8, 8))


def test_pictures_are_resized_to_the_shape_in_its_channels(tmp_path: Path) -> None:
    paths = [picture(tmp_path / "large.jpg", (300, 200)), picture(tmp_path / "small.png", (5, 5))]
    images = read(paths, SHAPE)
    assert images.shape == (2, 3, 8, 8)
    assert images.dtype == torch.uint8
    assert (images.float() - torch.tensor([200.0, 100.0, 50.0])[:, None, None]).abs().max() <= 2
    grey = read(paths, ImageShape(channels=1, height=6, width=4))
    assert grey.shape == (2, 1, 6, 4)
    assert (grey.float() - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)).abs().max() <= 2


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:, :4] = 255  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    (image,) = read([tmp_path / "turned.png"], ImageShape(channels=1, height=8, width=8))
    assert image[0, :4].min() == 255
    assert image[0, 4:].max() == 0


@pytest.mark.parametrize("content", [b"", b"words", None], ids=["empty", "words", "cut"])
def test_a_damaged_picture_is_named(tmp_path: Path, content: bytes | None) -> None:
    good, bad = picture(tmp_path / "a.png"), picture(tmp_path / "b.png", (40, 40))
    bad.write_bytes(bad.read_bytes()[:60] if content is None else content)
    with pytest.raises(DataError, match=r"b\.png cannot be read as an image"):
        read_pictures([good, bad], SHAPE)


GREY = ImageShape(channels=1, height=8, width=8)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("x.png", np.full((8, 8), 32896, np.uint16)),
        ("x.tif", np.full((8, 8), 32896, np.uint16)),
        ("x.tif", np.full((8, 8), 32896, np.int32)),
        ("x.tif", np.full((8, 8), 128, np.int32)),
        ("x.tif", np.full((8, 8), 0.502, np.float32)),
        ("x.tif", np.full((8, 8), 128.0, np.float32)),
    ],
    ids=["16 bits, png", "16 bits, tiff", "16 in 32 bits", "8 in 32 bits", "floats to 1", "floats to 255"],
)
def test_grey_stays_grey_in_whatever_type(tmp_path: Path, name: str, pixels: Any) -> None:
    Image.fromarray(pixels).save(tmp_path / name)
    assert read([tmp_path / name], GREY).unique().tolist() == [128]
    assert read([tmp_path / name], SHAPE).unique().tolist() == [128]


def test_a_dark_picture_of_16_bits_is_not_made_brighter(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 257, np.uint16)).save(tmp_path / "x.png")
    assert read([tmp_path / "x.png"], GREY).unique().tolist() == [1]


@pytest.mark.parametrize("pixels", [np.full((8, 8), 3e5), np.full((8, 8), -1.0), np.full((8, 8), np.nan)], ids=str)
def test_floats_without_a_known_white_are_refused(tmp_path: Path, pixels: Any) -> None:
    Image.fromarray(pixels.astype(np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match=r"x\.tif cannot be read as an image: its pixels go from"):
        read([tmp_path / "x.tif"], GREY)


def test_what_cannot_be_seen_is_not_learned(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4] = (200, 0, 0, 255)
    pixels[4:] = (0, 77, 0, 0)  # a colour below full transparency
    Image.fromarray(pixels).save(tmp_path / "x.png")
    (image,) = read([tmp_path / "x.png"], SHAPE)
    assert image[:, :4].flatten(1).unique(dim=1).flatten().tolist() == [200, 0, 0]
    assert image[:, 4:].unique().tolist() == [255]
    (four,) = read([tmp_path / "x.png"], ImageShape(channels=4, height=8, width=8))
    assert four[:, 4:].flatten(1).unique(dim=1).flatten().tolist() == [255, 255, 255, 0]
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([9, 9, 9, 60, 60, 60])
    palette.save(tmp_path / "p.png", transparency=1)
    assert read([tmp_path / "p.png"], GREY).unique().tolist() == [255]


@pytest.mark.parametrize("damage", [struct.error("unpack"), KeyError(1), SyntaxError("not a TIFF"), TypeError("x")])
def test_a_malformed_tag_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Exception) -> None:
    path = picture(tmp_path / "x.jpg")
    expected = read([path], SHAPE)

    def fail(_picture: Image.Image) -> Image.Image:
        raise damage

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", fail)
    assert torch.equal(read([path], SHAPE), expected)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0words", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\1\x12"]
)
def test_a_picture_with_damaged_tags_is_read(tmp_path: Path, exif: bytes) -> None:
    Image.new("RGB", (8, 8), (200, 100, 50)).save(tmp_path / "x.jpg", exif=exif)
    assert read([tmp_path / "x.jpg"], SHAPE).shape == (1, 3, 8, 8)
