"""Pictures that clients send: every mode and format, and what is done to them to fit."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from models.card import ImageShape
from service.asking.decoding import FORMATS, Limits, Unusable, _scaled
from service.asking.pictures import Fit, Picture, read_grey, read_picture, read_small

GREY = ImageShape(channels=1, height=6, width=8)
COLOUR = ImageShape(channels=3, height=6, width=8)
RAMP = np.linspace(0, 255, 48).round().astype(np.uint8).reshape(6, 8)


MOST = 100_000  # pixels that are fitted
LIMITS = Limits(MOST, 10_000, 20)
PLAIN = ("L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")  # modes of eight bits, opaque


def read(image: bytes, mask: bytes | None, shape: ImageShape, fit: Fit = Fit.ERROR) -> Picture:
    return read_picture(image, mask, shape, fit, LIMITS)


def decode_image(data: bytes, shape: ImageShape) -> np.ndarray:
    """Pixels of a picture that has the model's size."""
    return read(data, save(Image.new("L", (shape.width, shape.height), 255)), shape).pixels


def save(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


OWN_SIZE = save(Image.new("L", (8, 6), 255))


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


def test_twelve_bits_are_scaled_by_twelve() -> None:
    deep = Image.fromarray((RAMP.astype(np.uint32) * 4095 // 255).astype(np.uint16))
    assert _scaled("image", deep, 12).white == 4095
    assert np.abs(np.asarray(_scaled("image", deep, 12).image).astype(int) - RAMP).max() <= 1
    assert _scaled("image", deep, 16).white == 65535


def test_one_value_of_sixteen_bits_may_be_transparent() -> None:
    deep = Image.fromarray(RAMP.astype(np.uint16) * 257)
    found = read(save(deep, transparency=int(RAMP[2, 3]) * 257), None, GREY)
    assert found.mask.sum() == 1
    assert found.mask[2, 3] == 1


def test_floats_are_taken_as_0_to_255() -> None:
    values = RAMP.astype(np.float32)
    values[0, 0], values[0, 1] = -0.4, 255.4
    found = decode_image(save(Image.fromarray(values), "TIFF"), GREY)[..., 0]
    assert (found[0, :2] == [0, 255]).all()
    assert (found[1:] == RAMP[1:]).all()
    assert decode_image(save(Image.fromarray(values * 0), "TIFF"), GREY).max() == 0, "black is black in any scale"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (RAMP.astype(np.float32) / 255, "floating-point numbers: its largest value is 1"),
        (RAMP.astype(np.float32) * 257, "floating-point numbers: its largest value is 65535"),
        (-1 - RAMP.astype(np.float32), "floating-point numbers: its largest value is -1, its smallest -256"),
        (RAMP.astype(np.int32), "32-bit whole numbers: its largest value is 255"),
        (RAMP.astype(np.int32) * 257, "32-bit whole numbers: its largest value is 65535"),
        (np.where(RAMP > 100, np.nan, RAMP).astype(np.float32), "not numbers"),
        (np.where(RAMP > 100, np.inf, RAMP).astype(np.float32), "its largest value is inf"),
    ],
)
def test_where_nothing_tells_which_value_is_white_the_picture_is_refused(values: np.ndarray, said: str) -> None:
    file = save(Image.fromarray(values), "TIFF")
    for field, pair in (("/image", (file, OWN_SIZE)), ("/mask", (OWN_SIZE, file))):
        with pytest.raises(Unusable, match=said) as caught:
            read(*pair, GREY)
        assert f"/{caught.value.field}" == field


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
    with pytest.raises(Unusable, match="not a picture that can be read"):
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
    with pytest.raises(Unusable, match="6 x 8 pixels"):
        decode_image(save(Image.fromarray(RAMP), "JPEG", exif=exif), GREY)
    with pytest.raises(Unusable, match="6 x 8 pixels"):
        decode_image(save(Image.fromarray(np.ascontiguousarray(RAMP.T))), GREY)


def test_a_damaged_tag_of_exif_does_not_matter() -> None:
    """An orientation of 6, and before it a tag of a type that there is not, beyond the end of the data."""
    tags = struct.pack("<HHIIHHIHH", 0x010F, 77, 2**31, 2**31, 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + bytes(4)
    lying = np.ascontiguousarray(np.rot90(RAMP))
    for data, upright in ((exif, True), (b"Exif\0\0II*\0" + b"\xff" * 40, False), (exif[:20], False)):
        file = save(Image.fromarray(lying), "WEBP", lossless=True, exif=data)
        found = read(file, save(Image.new("L", lying.shape[::-1] if not upright else (8, 6), 255)), GREY, Fit.RESIZE)
        assert ((found.pixels[..., 0] == RAMP).all()) == upright


MASKS = {
    **{mode: Image.fromarray(np.where(RAMP > 100, 255, 0).astype(np.uint8)).convert(mode) for mode in PLAIN},
    "1": Image.fromarray(RAMP > 100),
    "I;16": Image.fromarray(np.where(RAMP > 100, 65535, 0).astype(np.uint16)),
    "F": Image.fromarray(np.where(RAMP > 100, 255, 0).astype(np.float32)),
}


@pytest.mark.parametrize("mode", MASKS)
def test_a_mask_is_white_or_black(mode: str) -> None:
    kind = "PNG" if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "TIFF"
    found = read(save(Image.new("L", (8, 6))), save(MASKS[mode], kind), COLOUR)
    assert (found.mask == (RAMP > 100)).all()


def strokes(mode: str, colour: int) -> Image.Image:
    """Strokes of one grey where RAMP is above 100, and white under what is transparent."""
    image = Image.fromarray(np.where(RAMP > 100, colour, 255).astype(np.uint8)).convert(mode.removesuffix("+"))
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(np.where(RAMP > 100, 255, 0).astype(np.uint8)))
    return image


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_what_is_transparent_in_a_mask_is_kept(mode: str, kind: str) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    found = read(OWN_SIZE, save(strokes(mode, 255), kind, **options), GREY)
    assert (found.mask == (RAMP > 100)).all()
    with pytest.raises(Unusable, match=r"/mask: all white pixels of the mask are transparent"):
        read(OWN_SIZE, save(strokes(mode, 0), kind, **options), GREY)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_what_is_transparent_in_the_palette_of_a_mask_is_kept(kind: str) -> None:
    mask = Image.fromarray(np.where(RAMP > 200, 2, RAMP > 100).astype(np.uint8), "P")
    mask.putpalette([255, 255, 255, 255, 255, 255, 0, 0, 0])
    found = read(OWN_SIZE, save(mask, kind, transparency=0), GREY)
    assert (found.mask == ((RAMP > 100) & (RAMP <= 200))).all()


@pytest.mark.parametrize(("mode", "transparent"), [("L", 200), ("RGB", (200, 200, 200)), ("1", 255), ("I;16", 51400)])
def test_the_one_colour_that_is_transparent_in_a_mask_is_kept(mode: str, transparent: Any) -> None:
    grey = np.where(RAMP > 100, np.where(RAMP > 150, 255, 200), 0).astype(np.uint8)
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    if mode == "1":
        with pytest.raises(Unusable, match="transparent"):
            read(OWN_SIZE, save(image, transparency=transparent), GREY)
    else:
        assert (read(OWN_SIZE, save(image, transparency=transparent), GREY).mask == (RAMP > 150)).all()


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (Image.fromarray((RAMP > 100).astype(np.uint8)), "1 of 255"),
        (Image.fromarray((RAMP > 100).astype(np.uint8)).convert("RGB"), "1 of 255"),
        (Image.fromarray((RAMP > 100).astype(np.uint16)), "1 of 65,535"),
        (Image.fromarray(np.full((6, 8), 127, np.uint8)), "127 of 255"),
        (Image.fromarray(np.zeros((6, 8), np.uint8)), "0 of 255"),
    ],
)
def test_a_mask_without_white_is_refused_with_the_largest_value_found(mask: Image.Image, found: str) -> None:
    with pytest.raises(Unusable, match=f"/mask: the mask has no white pixel: its largest value is {found}"):
        read(OWN_SIZE, save(mask), GREY)


@pytest.mark.parametrize(("size", "factor"), [((8, 6), 1), ((4, 3), 2), ((2, 2), 0), ((3, 4), 0), ((8, 3), 0)])
def test_a_picture_to_enlarge_is_a_fraction_of_the_models_size(size: tuple[int, int], factor: int) -> None:
    small = Image.fromarray(np.arange(size[0] * size[1], dtype=np.uint8).reshape(size[::-1]) * 5)
    if factor < 2:
        with pytest.raises(Unusable, match=rf"/image: the picture is {size[0]} x {size[1]} pixels$") as caught:
            read_small(save(small), GREY, LIMITS)
        assert caught.value.allowed == "4 x 3 pixels, of which the model's 8 x 6 are a multiple"
    else:
        assert (read_small(save(small), GREY, LIMITS)[..., 0] == np.asarray(small)).all()
        assert read_small(save(small), COLOUR, LIMITS).shape == (3, 4, 3)


def test_what_cannot_be_enlarged_says_why() -> None:
    with pytest.raises(Unusable, match="no multiple of anything smaller"):
        read_small(OWN_SIZE, ImageShape(channels=1, height=7, width=8), LIMITS)
    with pytest.raises(Unusable, match="transparent in places"):
        read_small(save(Image.new("LA", (4, 3), (9, 254))), GREY, LIMITS)
    read_small(save(Image.new("LA", (4, 3), (9, 255))), GREY, LIMITS)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(4, 3))
    found = read_small(save(lying, exif=exif), GREY, LIMITS)[..., 0]
    assert (found == np.rot90(np.asarray(lying), -1)).all()


def test_a_picture_to_colour_is_grey() -> None:
    grey = Image.fromarray(RAMP)
    for image in (grey, grey.convert("RGB"), grey.convert("P"), Image.fromarray(RAMP.astype(np.uint16) * 257)):
        assert (read_grey(save(image), COLOUR, Fit.ERROR, LIMITS) == RAMP).all()
    assert read_grey(save(grey.resize((80, 60))), COLOUR, Fit.RESIZE, LIMITS).shape == (6, 8)
    with pytest.raises(Unusable, match=r"/image: the picture is 80 x 60 pixels, the model"):
        read_grey(save(grey.resize((80, 60))), COLOUR, Fit.ERROR, LIMITS)
    with pytest.raises(Unusable, match="has colours already"):
        read_grey(save(Image.new("RGB", (8, 6), (1, 2, 3))), COLOUR, Fit.ERROR, LIMITS)
    with pytest.raises(Unusable, match="transparent in places"):
        read_grey(save(Image.new("LA", (8, 6), (9, 0))), COLOUR, Fit.ERROR, LIMITS)


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
    with pytest.raises(Unusable, match=r"/mask.*no alpha"):
        read(save(Image.fromarray(RAMP)), None, GREY)
    with pytest.raises(Unusable, match=r"/mask.*no transparent"):
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
        with pytest.raises(Unusable, match=r"/mask: the mask is 50 x 60 pixels, the picture 100 x 60"):
            read(picture, save(Image.new("L", (50, 60), 255)), GREY, fit)
    left[:, 10:] = 0
    with pytest.raises(Unusable, match=r"/mask.*cut off"):
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
        with pytest.raises(Unusable, match=f"{field}: the picture is 10000 x 11 pixels") as caught:
            read(*pair, GREY, Fit.RESIZE)
        assert caught.value.allowed == "at most 100,000 pixels, and 10,000 on each side"


def test_a_side_is_bounded_besides_the_pixels() -> None:
    for size in ((10_001, 1), (1, 10_001)):
        with pytest.raises(Unusable, match=f"{size[0]} x {size[1]} pixels") as caught:
            read(save(Image.new("L", size)), OWN_SIZE, GREY, Fit.RESIZE)
        assert "10,000 on each side" in caught.value.allowed
    read(save(Image.new("L", (10_000, 1))), OWN_SIZE, GREY, Fit.RESIZE)


def test_nothing_is_decoded_where_headers_tell_that_it_does_not_fit() -> None:
    damaged = save(Image.new("L", (100, 60)))[:-20]  # which a decoder would say
    with pytest.raises(Unusable, match="the mask is 50 x 60 pixels, the picture 100 x 60"):
        read(damaged, save(Image.new("L", (50, 60), 255)), GREY, Fit.RESIZE)
    with pytest.raises(Unusable, match=r"/image: the picture is 10000 x 11 pixels"):
        read(save(Image.new("L", (10_000, 11))), damaged, GREY, Fit.RESIZE)
