"""Views of a finished job's images: backgrounds, zip, animations, filmstrips; tags that clients keep; HEAD."""

import io
import zipfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from models.card import ImageShape
from service.answering import views
from service.drawing.drawings import View
from service.drawing.pictures import draw

Check = Callable[..., Any]
VIEWS = ("grid.png", "images/0.png", "samples.npz", "images.zip", "animation.webp", "animation.gif", "filmstrip.png")


def picture(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.fixture
def job(client, work: Callable[[], None]) -> dict[str, Any]:  # type: ignore[no-untyped-def]
    """Six images in two shards, with five frames of 13 network evaluations."""
    job = client.submit(count=6, seed=4, frames=5)
    work()
    finished: dict[str, Any] = client.get(job["links"]["self"]).json()
    assert finished["state"] == "finished"
    return finished


@pytest.fixture
def strip(client, job: dict[str, Any]) -> np.ndarray:  # type: ignore[no-untyped-def]
    """The frames of the job, from its filmstrip: uint8 [images, frames, h, w]."""
    response = client.get(job["links"]["filmstrip"], params={"padding": 0})
    assert response.headers["content-type"] == "image/png"
    return np.asarray(picture(response.content)).reshape(6, 8, 5, 8).swapaxes(1, 2)


def test_the_last_frame_is_the_result_and_the_others_lead_there(client, job, strip: np.ndarray) -> None:
    images = client.images(job)[..., 0]
    assert (strip[:, -1] == images).all()
    away = [np.abs(strip[:, i].astype(int) - images).mean() for i in range(5)]
    assert len(set(away)) == 5, "no two frames are alike"


def test_frames_do_not_change_the_images_nor_depend_on_who_makes_them(client, job, strip, work, new_worker) -> None:
    plain = client.submit(count=6, seed=4)
    again = client.submit(count=6, seed=4, frames=5)
    worker = new_worker()
    worker._claim()
    for _ in range(7):
        worker._step()
    worker._hand_back()  # half way: frames are in the saved state
    work()
    assert (client.images(plain) == client.images(job)).all()
    response = client.get(f"/jobs/{again['id']}/filmstrip.png", params={"padding": 0})
    assert (np.asarray(picture(response.content)).reshape(6, 8, 5, 8).swapaxes(1, 2) == strip).all()


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_an_animation_shows_every_frame_of_every_image(client, job, strip: np.ndarray, kind: str) -> None:
    response = client.get(job["links"][f"animation_{kind}"], params={"columns": 3, "scale": 1, "fps": 10})
    assert response.headers["content-type"] == f"image/{kind}"
    frames = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(picture(response.content))]
    assert len(frames) == 5
    for number, frame in enumerate(frames):
        assert frame.shape == (22, 32)
        for image in range(6):
            top, left = image // 3 * 10 + 2, image % 3 * 10 + 2
            assert (frame[top : top + 8, left : left + 8] == strip[image, number]).all()
    image = picture(response.content)
    durations = []
    for number in range(5):
        image.seek(number)
        image.load()
        durations.append(image.info["duration"])
    assert durations == [100] * 4 + [1000]


def test_frames_are_refused_where_they_cannot_be(new_client, settings, refusal: Check) -> None:
    client = new_client(settings.model_copy(update={"max_frames_bytes": 10_000}))

    def ask(**body: Any) -> Any:
        return client.post("/samples", json=body)

    assert "0 to 64" in refusal(ask(frames=65), "/frames")
    refusal(ask(frames=-1), "/frames")
    refusal(ask(frames=True), "/frames")
    assert "13 frames of 13 images are 10,816 bytes" in refusal(ask(count=13, frames=13), "/frames")
    assert ask(count=12, frames=13).status_code == 202


def test_of_fewer_evaluations_than_frames_each_is_kept(client, work) -> None:
    job = client.submit(count=2, frames=64)
    assert job["frames"] == 13
    work()
    found = client.get(f"/jobs/{job['id']}/frames").json()["frames"]
    assert [frame["evaluations"] for frame in found] == list(range(1, 14))
    assert picture(client.get(job["links"]["animation_gif"]).content).n_frames == 13


def test_without_frames_there_is_nothing_to_animate(client, work, problem: Check) -> None:
    job = client.submit(count=1)
    work()
    assert job["frames"] == 0
    for name in ("animation_webp", "animation_gif", "filmstrip"):
        assert job["links"][name] is None
    for view in VIEWS[4:]:
        assert "ask for them" in problem(client.get(f"/jobs/{job['id']}/{view}"), 404, "not-found")["detail"]


def test_one_frame_is_the_result(client, work) -> None:
    job = client.submit(count=2, frames=1)
    work()
    strip = np.asarray(picture(client.get(job["links"]["filmstrip"], params={"padding": 0}).content))
    assert (strip.reshape(2, 8, 8) == client.images(job)[..., 0]).all()
    assert picture(client.get(job["links"]["animation_gif"]).content).n_frames == 1


def test_what_would_be_too_large_is_refused(new_client, settings, work, refusal: Check) -> None:
    client = new_client(settings.model_copy(update={"max_grid_pixels": 5_000}))
    job = client.submit(count=6, frames=5)
    work()
    for name in ("animation_webp", "animation_gif", "filmstrip"):
        refusal(client.get(job["links"][name], params={"scale": 9}), "scale")
        assert client.get(job["links"][name], params={"scale": 1}).status_code == 200


def test_a_zip_has_every_image_and_the_same_bytes_each_time(client, job) -> None:
    response = client.get(job["links"]["zip"])
    assert response.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{number:04}.png" for number in range(6)]
        for number, image in enumerate(client.images(job)[..., 0]):
            assert (np.asarray(picture(archive.read(f"{number:04}.png"))) == image).all()
    assert client.get(job["links"]["zip"]).content == response.content


@pytest.mark.parametrize(
    ("background", "mode", "value"),
    [("808080", "L", 128), ("ff8000", "RGB", (255, 128, 0)), ("transparent", "RGBA", (0, 0, 0, 0))],
)
def test_a_grid_stands_on_the_background_that_is_asked_for(client, job, background, mode, value) -> None:
    query = {"background": background, "columns": 4, "scale": 1}
    grid = picture(client.get(job["links"]["grid"], params=query).content)
    assert grid.mode == mode
    assert grid.getpixel((0, 0)) == value
    assert grid.getpixel((41, 21)) == value, "where no image is"
    first = np.asarray(grid.convert("RGBA"))[2:10, 2:10]
    assert (first[..., :3] == client.images(job)[0]).all()
    assert (first[..., 3] == 255).all()


def test_views_are_kept_by_their_tags(client, job) -> None:
    tags = set()
    for view in VIEWS:
        url = f"/jobs/{job['id']}/{view}"
        response = client.get(url)
        tag = response.headers["etag"]
        tags.add(tag)
        control = response.headers["cache-control"].split(", ")
        assert control[0] == "private"
        assert control[2] == "immutable"
        assert 3500 < int(control[1].removeprefix("max-age=")) <= 3600
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            unchanged = client.get(url, headers={"If-None-Match": known})
            assert unchanged.status_code == 304
            assert unchanged.content == b""
            assert unchanged.headers["etag"] == tag
            assert unchanged.headers["cache-control"].startswith("private")
        changed = client.get(url, headers={"If-None-Match": '"other"'})
        assert changed.status_code == 200
        assert changed.content == response.content
    tags.add(client.get(job["links"]["grid"], params={"scale": 3}).headers["etag"])
    assert len(tags) == len(VIEWS) + 1


def test_head_is_answered_like_get_without_the_body(client, job, problem: Check) -> None:
    urls = [f"/jobs/{job['id']}/{view}" for view in VIEWS]
    for url in (*urls, "/jobs", f"/jobs/{job['id']}", "/models", "/healthz", f"/jobs/{job['id']}/events"):
        response = client.begin("HEAD", url).result(60)
        assert response.status_code == 200, url
        assert response.content == b""
        if url.endswith("events"):
            continue
        got = client.get(url).headers
        for name in ("content-type", "content-length", "etag"):
            if name in response.headers:
                assert response.headers[name] == got[name]
        assert (url in urls) == ("etag" in response.headers)
    assert client.begin("HEAD", f"/jobs/{24 * '0'}/grid.png").result(60).status_code == 404
    assert client.begin("HEAD", f"/jobs/{24 * '0'}/events").result(60).status_code == 404
    assert client.begin("HEAD", "/samples").result(60).status_code == 405


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_view_of_images_of_any_number_of_channels(channels: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 5, 4, 7, channels), dtype=np.uint8)  # images, frames, ...
    pixels[..., -1] |= 255 * (channels in (2, 4))  # opaque, for what is compared below
    request = SimpleNamespace(count=3, frames=5, model_dump_json=lambda **_: "{}", seed=1)
    job: Any = SimpleNamespace(id="j", request=request, image=ImageShape(channels=channels, height=4, width=7))
    results: Any = SimpleNamespace(pieces=lambda _: iter([pixels[:2, -1], pixels[2:, -1]]), frames=lambda _: pixels)

    def drawn(view: View) -> Image.Image:
        file = io.BytesIO()
        data = b"".join(np.ascontiguousarray(images).tobytes() for images in view.images())
        draw({**view.options, "image": [4, 7, channels]}, iter([data[:50], data[50:]]), file)
        found = picture(file.getvalue())
        assert found.width * found.height * getattr(found, "n_frames", 1) == view.pixels
        return found

    for background in ((0, 0, 0), (128, 128, 128), (255, 128, 0), None):
        shown = np.asarray(drawn(views.grid(job, results, 10**6, 3, 2, 1, background)).convert("RGBA"))
        assert tuple(shown[0, 0]) == ((0, 0, 0, 0) if background is None else (*background, 255))
        grey = channels < 3
        assert (shown[2:6, 2:9, 0] == pixels[0, -1, :, :, 0]).all()
        assert (shown[2:6, 2:9, 2] == pixels[0, -1, :, :, 0 if grey else 2]).all()
    for kind in ("WEBP", "GIF"):
        assert drawn(views.animation(job, results, kind, 10**6, 3, 1, 12.0)).n_frames == 5  # type: ignore[attr-defined]
    assert drawn(views.filmstrip(job, results, 10**6)).size == (5 * 9 + 2, 3 * 6 + 2)
    archive = zipfile.ZipFile(io.BytesIO(b"".join(views.images_zip(job, iter([pixels[:, -1]])))))
    assert (np.asarray(picture(archive.read("0001.png"))).reshape(4, 7, channels) == pixels[1, -1]).all()
