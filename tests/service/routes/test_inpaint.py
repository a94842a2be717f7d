"""POST /inpaint: as a form and as JSON, what is refused, and that everything outside the mask stays as sent."""

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from redis import Redis

from models.card import ImageShape
from service.asking.decoding import Limits
from service.asking.pictures import Fit, read_picture

Inpaint = Callable[..., httpx.Response]
Png = Callable[[np.ndarray], bytes]
Refusal = Callable[..., str]

FORMS = pytest.mark.parametrize("form", ["multipart", "json"])
WHITE = np.full((8, 8), 255, np.uint8)


@FORMS
def test_kept_pixels_come_back_exactly_and_others_are_repainted(
    form: str, client, inpaint: Inpaint, work: Callable[[], None], png: Png, picture: np.ndarray, half_mask: np.ndarray
) -> None:
    answers = [inpaint(form, png(picture), png(half_mask), count=5, seed=seed) for seed in (1, 2, 1)]
    assert [answer.status_code for answer in answers] == [202] * 3, answers[0].text
    jobs = [answer.json() for answer in answers]
    assert jobs[0]["kind"] == "inpaint"
    assert answers[0].headers["location"] == jobs[0]["links"]["self"]
    work()
    first, second, again = (client.images(job)[..., 0] for job in jobs)
    kept = half_mask == 0
    for images in (first, second):
        assert images.shape == (5, 8, 8)
        assert (images[:, kept] == picture[kept]).all()
        assert len({image[~kept].tobytes() for image in images}) == 5
    assert not (first[:, ~kept] == second[:, ~kept]).all()
    assert (first == again).all()


@FORMS
@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_any_picture_is_fitted_and_what_is_transparent_is_repainted(
    form: str, fit: str, client, inpaint: Inpaint, work: Callable[[], None], png: Png
) -> None:
    """A photograph of another size, whose right half is transparent, and no mask."""
    photograph = np.random.default_rng(5).integers(0, 256, (90, 120, 4), dtype=np.uint8)
    photograph[..., 3] = 255
    photograph[:, 60:, 3] = 0
    job = inpaint(form, png(photograph), None, count=3, fit=fit).json()
    work()
    images = client.images(job)[..., 0]
    fitted = read_picture(
        png(photograph), None, ImageShape(channels=1, height=8, width=8), Fit(fit), Limits(10**6, 10**4, 20)
    )
    assert (fitted.mask == ([0] * 4 + [1] * 4)).all()
    assert (images[:, :, :4] == fitted.pixels[:, :4, 0]).all()
    assert len({image[:, 4:].tobytes() for image in images}) == 3


@FORMS
def test_how_a_picture_is_fitted_is_one_of_three(
    form: str, inpaint: Inpaint, refusal: Refusal, png: Png, picture: np.ndarray
) -> None:
    assert "error or resize or crop" in refusal(inpaint(form, png(picture), png(WHITE), fit="stretch"), "/fit")


def test_both_forms_ask_for_the_same(
    client, inpaint: Inpaint, work: Callable[[], None], png: Png, picture: np.ndarray, half_mask: np.ndarray
) -> None:
    sampler: dict[str, Any] = {"name": "heun", "levels": 4}
    files = png(picture), png(half_mask)
    form = inpaint("multipart", *files, model="tiny", version=1, count=2, seed=9, sampler=json.dumps(sampler)).json()
    body = inpaint("json", *files, model="tiny", version=1, count=2, seed=9, sampler=sampler).json()
    work()
    assert form["sampler"] == body["sampler"]
    assert form["sampler"]["levels"] == 4
    assert (client.images(form) == client.images(body)).all()


def test_the_grid_itself_is_answered(
    client, work_on: Callable[..., httpx.Response], png: Png, picture: np.ndarray, half_mask: np.ndarray
) -> None:
    files = {"image": ("i.png", png(picture)), "mask": ("m.png", png(half_mask))}
    pending = client.begin("POST", "/inpaint", files=files, data={"count": 4}, headers={"Accept": "image/png"})
    response = work_on(pending)
    assert response.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(response.content)) as grid:
        assert grid.size == (38, 38)


@FORMS
def test_pictures_of_another_size_are_refused(
    form: str, inpaint: Inpaint, redis: Redis, refusal: Refusal, png: Png, picture: np.ndarray
) -> None:
    said = refusal(inpaint(form, png(picture), png(WHITE[:, :7])), "/mask")
    assert "7 x 8" in said
    assert "8 x 8 pixels" in said
    assert "9 x 8" in refusal(inpaint(form, png(np.zeros((8, 9), np.uint8)), png(WHITE)), "/image")
    assert redis.dbsize() == 0


@FORMS
def test_what_is_no_picture_is_refused(
    form: str, inpaint: Inpaint, redis: Redis, refusal: Refusal, png: Png, picture: np.ndarray
) -> None:
    image, mask = png(picture), png(WHITE)
    for broken in (b"", b"These are words.", image[:-30], image[:40], b"<svg xmlns='http://www.w3.org/2000/svg'/>"):
        assert "PNG, JPEG" in refusal(inpaint(form, broken, mask), "/image")
    assert "PNG, JPEG" in refusal(inpaint(form, image, mask[:-20]), "/mask")
    assert redis.dbsize() == 0


@FORMS
def test_a_mask_that_repaints_nothing_is_refused(
    form: str, inpaint: Inpaint, redis: Redis, refusal: Refusal, png: Png, picture: np.ndarray
) -> None:
    assert "white = repaint" in refusal(inpaint(form, png(picture), png(np.full((8, 8), 127, np.uint8))), "/mask")
    assert inpaint(form, png(picture), png(np.full((8, 8), 128, np.uint8))).status_code == 202


@FORMS
def test_both_pictures_are_needed(
    form: str, inpaint: Inpaint, redis: Redis, refusal: Refusal, png: Png, picture: np.ndarray
) -> None:
    refusal(inpaint(form, png(picture), None), "/mask")
    refusal(inpaint(form, None, png(WHITE)), "/image")
    assert redis.dbsize() == 0


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"model": "gone"}, "/model"),
        ({"version": 7}, "/version"),
        ({"count": 0}, "/count"),
        ({"count": "many"}, "/count"),
        ({"seed": 2**60}, "/seed"),
        ({"images": 3}, "/images"),
        ({"sampler": {"name": "magic"}}, "/sampler"),
        ({"sampler": {"name": "heun", "step_size": 1}}, "/sampler/step_size"),
        ({"sampler": {"step_size": 0.5}}, "/sampler/step_size"),
    ],
)
@FORMS
def test_bad_fields_are_refused_as_for_samples(
    form: str, inpaint: Inpaint, redis: Redis, refusal: Refusal, png: Png, picture, fields: dict[str, Any], pointer: str
) -> None:
    if form == "multipart":
        fields = {k: json.dumps(v) if isinstance(v, dict) else v for k, v in fields.items()}
    refusal(inpaint(form, png(picture), png(WHITE), **fields), pointer)
    assert redis.dbsize() == 0


@pytest.mark.parametrize("sampler", ["heun", '{"name": "heun"', "[" * 60_000])
def test_a_sampler_of_a_form_must_be_json(
    inpaint: Inpaint, refusal: Refusal, png: Png, picture: np.ndarray, sampler: str
) -> None:
    assert '{"name": "heun"}' in refusal(inpaint("multipart", png(picture), png(WHITE), sampler=sampler), "/sampler")


def test_a_form_has_each_field_once_and_no_others(
    client, redis: Redis, refusal: Refusal, problem: Callable[..., Any], png: Png, picture: np.ndarray
) -> None:
    image, mask = ("image", ("i.png", png(picture))), ("mask", ("m.png", png(WHITE)))
    assert "twice" in refusal(client.post("/inpaint", files=[image, image, mask]), "/image")
    assert "twice" in refusal(client.post("/inpaint", files=[image, mask, ("seed", (None, "1"))] * 2), "/image")
    twice = [image, mask, ("count", (None, "1")), ("count", (None, "2"))]
    assert "twice" in refusal(client.post("/inpaint", files=twice), "/count")
    refusal(client.post("/inpaint", files=[image, ("count", ("c.png", png(WHITE))), mask]), "/count")
    refusal(client.post("/inpaint", files=[mask, ("image", (None, "words"))]), "/image")
    many = [image, mask, *((f"f{i}", (None, "x")) for i in range(500))]
    problem(client.post("/inpaint", files=many), 400, "malformed")
    long = [image, mask, ("sampler", (None, "x" * 100_000))]
    problem(client.post("/inpaint", files=long), 400, "malformed")
    assert redis.dbsize() == 0


def test_a_form_that_cannot_be_read_is_a_problem(client, problem: Callable[..., Any]) -> None:
    for media_type in ("multipart/form-data", "multipart/form-data; boundary=x"):
        response = client.post("/inpaint", content=b"nonsense", headers={"Content-Type": media_type})
        problem(response, 400, "malformed")
    for media_type in ("text/plain", "image/png", "application/x-www-form-urlencoded"):
        response = client.post("/inpaint", content=b"nonsense", headers={"Content-Type": media_type})
        detail = problem(response, 415, "unsupported-media-type")["detail"]
        assert "multipart/form-data or application/json" in detail
    response = client.post("/inpaint", content=b"{", headers={"Content-Type": "application/json"})
    problem(response, 400, "malformed")


@pytest.mark.parametrize("image", ["what?", "QQ=", "é", "data:image/png;base64,?"])
def test_what_is_not_base64_is_refused(client, redis: Redis, refusal: Refusal, png: Png, image: str) -> None:
    mask = base64.b64encode(png(WHITE)).decode()
    assert "base64" in refusal(client.post("/inpaint", json={"image": image, "mask": mask}), "/image")
    assert redis.dbsize() == 0


def test_data_urls_are_understood(client, png: Png, picture: np.ndarray) -> None:
    image, mask = (base64.b64encode(png(pixels)).decode() for pixels in (picture, WHITE))
    body = {"image": f"data:image/png;base64,{image}", "mask": mask}
    assert client.post("/inpaint", json=body).status_code == 202


def test_pixels_are_not_told_to_others(client, inpaint: Inpaint, png: Png, picture, half_mask, work) -> None:
    job = inpaint("json", png(picture), png(half_mask), count=1).json()
    work()
    assert "image" not in client.get(job["links"]["self"]).json()
    with np.load(io.BytesIO(client.get(job["links"]["samples"]).content)) as archive:
        assert set(json.loads(str(archive["request"]))) == {
            "kind",
            "model",
            "version",
            "weights_sha256",
            "count",
            "frames",
            "seed",
            "sampler",
            "labels",
            "guidance",
            "guidance_interval",
        }
