"""POST /upscale: the means of blocks are the given pixels, and what is no fraction of the model is refused."""

import base64
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from redis import Redis

Asked = Callable[..., httpx.Response]
Png = Callable[[np.ndarray], bytes]
FORMS = pytest.mark.parametrize("form", ["multipart", "json"])
SMALL = np.random.default_rng(0).integers(0, 256, (4, 4), dtype=np.uint8)


def means(images: np.ndarray, size: int) -> np.ndarray:
    """Of blocks of size x size pixels, of images [n, 8, 8]."""
    of_blocks: np.ndarray = images.reshape(-1, 8 // size, size, 8 // size, size).mean((2, 4))
    return of_blocks


@FORMS
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_the_mean_of_each_block_is_the_given_pixel(
    form: str, factor: int, client, asked: Asked, work: Callable[[], None], png: Png
) -> None:
    small = SMALL[: 8 // factor, : 8 // factor].copy()
    if factor < 8:
        small[0, 0] = 255
    answers = [asked(form, "/upscale", {"image": png(small)}, count=5, seed=seed) for seed in (1, 2, 1)]
    assert [answer.status_code for answer in answers] == [202] * 3, answers[0].text
    jobs = [answer.json() for answer in answers]
    assert jobs[0]["kind"] == "upscale"
    work()
    first, second, again = (client.images(job)[..., 0] for job in jobs)
    for images in (first, second):
        assert np.abs(means(images, factor) - small).max() <= 0.51
        if factor < 8:
            assert (images[:, :factor, :factor] == 255).all(), "of white there is one enlargement only"
    assert len({image.tobytes() for image in (*first, *second)}) == 10
    assert (first == again).all()


def test_both_forms_ask_for_the_same_and_the_key_knows_the_picture(client, png: Png, problem: Callable) -> None:
    key = {"Idempotency-Key": "once"}
    first = client.post("/upscale", files={"image": png(SMALL)}, data={"count": 2}, headers=key)
    body = {"count": 2, "image": base64.b64encode(png(SMALL)).decode()}
    again = client.post("/upscale", json=body, headers=key)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]
    other = {"count": 2, "image": base64.b64encode(png(255 - SMALL)).decode()}
    problem(client.post("/upscale", json=other, headers=key), 422, "idempotency-mismatch")


@FORMS
def test_what_is_no_fraction_of_the_models_size_is_refused(
    form: str, asked: Asked, redis: Redis, refusal: Callable[..., str], png: Png
) -> None:
    for shape in ((8, 8), (4, 2), (3, 3), (9, 9), (16, 16)):
        said = refusal(asked(form, "/upscale", {"image": png(np.zeros(shape, np.uint8))}), "/image")
        assert f"{shape[1]} x {shape[0]} pixels | 4 x 4, 2 x 2, 1 x 1 pixels" in said
    assert "PNG, JPEG" in refusal(asked(form, "/upscale", {"image": b"words"}), "/image")
    if form == "json":
        refusal(asked(form, "/upscale", {}), "/image")
    assert redis.dbsize() == 0


@pytest.mark.parametrize("field", [{"mask": "QQ=="}, {"fit": "resize"}, {"factor": 2}])
def test_there_is_no_other_field(client, png: Png, refusal: Callable[..., str], field: dict[str, Any]) -> None:
    body = {"image": base64.b64encode(png(SMALL)).decode(), **field}
    refusal(client.post("/upscale", json=body), f"/{next(iter(field))}")


def test_a_form_has_no_mask(client, png: Png, refusal: Callable[..., str]) -> None:
    files = {"image": png(SMALL), "mask": png(SMALL)}
    assert "image" in refusal(client.post("/upscale", files=files), "/mask")


def test_limits_hold(client, settings, new_client, png: Png, refusal: Callable[..., str]) -> None:
    few = new_client(settings.model_copy(update={"max_images_per_job": 3}))
    body = {"image": base64.b64encode(png(SMALL)).decode(), "count": 4}
    assert "1 to 3" in refusal(few.post("/upscale", json=body), "/count")
