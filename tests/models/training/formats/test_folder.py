from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.card import ImageShape
from models.training.formats import DataError
from models.training.formats.folder import find_pictures, read_pictures

SHAPE = ImageShape(channels=3, height=8, width=8)


def picture(path: Path, size: tuple[int, int] = (8, 8), color: tuple[int, int, int] = (200, 100, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def test_pictures_are_found_at_any_depth_in_the_order_of_their_names(tmp_path: Path) -> None:
    wanted = [picture(tmp_path / name) for name in ("b/2.png", "a.PNG", "c.jpg", "b/1/x.bmp")]
    picture(tmp_path / ".thumbnails" / "a.png")
    picture(tmp_path / ".hidden.png")
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "folder.png").mkdir()
    assert find_pictures(tmp_path) == sorted(wanted)


def test_the_middle_of_a_picture_is_kept(tmp_path: Path) -> None:
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = (10, 20, 30)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    (image,) = read_pictures([tmp_path / "wide.png"], SHAPE)
    assert torch.equal(image, torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None].expand(3, 8, 8))


def test_pictures_are_resized_to_the_shape_in_its_channels(tmp_path: Path) -> None:
    paths = [picture(tmp_path / "large.jpg", (300, 200)), picture(tmp_path / "small.png", (5, 5))]
    images = read_pictures(paths, SHAPE)
    assert images.shape == (2, 3, 8, 8)
    assert images.dtype == torch.uint8
    assert (images.float() - torch.tensor([200.0, 100.0, 50.0])[:, None, None]).abs().max() <= 2
    grey = read_pictures(paths, ImageShape(channels=1, height=6, width=4))
    assert grey.shape == (2, 1, 6, 4)
    assert (grey.float() - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)).abs().max() <= 2


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:, :4] = 255  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    (image,) = read_pictures([tmp_path / "turned.png"], ImageShape(channels=1, height=8, width=8))
    assert image[0, :4].min() == 255
    assert image[0, 4:].max() == 0


@pytest.mark.parametrize("content", [b"", b"words", None], ids=["empty", "words", "cut"])
def test_a_damaged_picture_is_named(tmp_path: Path, content: bytes | None) -> None:
    good, bad = picture(tmp_path / "a.png"), picture(tmp_path / "b.png", (40, 40))
    bad.write_bytes(bad.read_bytes()[:60] if content is None else content)
    with pytest.raises(DataError, match=r"b\.png cannot be read as an image"):
        read_pictures([good, bad], SHAPE)
