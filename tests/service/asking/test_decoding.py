"""From files to pictures: a file is one picture, or it is refused."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from service.asking.decoding import Unusable, open_picture

ONE = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8))
OTHER = Image.new("L", (8, 6), 200)


def save(kind: str, *more: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    ONE.save(buffer, kind, **({"save_all": True, "append_images": more} if more else {}), **options)
    return buffer.getvalue()


def decode(data: bytes) -> np.ndarray:
    return np.asarray(open_picture("image", data, lambda *_: True, "any size", 20).decode().image.convert("L"))


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
