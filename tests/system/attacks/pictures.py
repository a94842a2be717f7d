"""Attacks by pictures that are sent, and by pictures that are asked for."""

import io
import time
from typing import Any

import httpx
from PIL import Image

from tests.system.attacks.mallory import Mallory

SIDE = 4096  # of the largest square that is decoded


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _send(mallory: Mallory, *pictures: bytes) -> None:
    """Has pictures fitted to the model's size, with a mask that is small; what was accepted by mistake is too."""
    white = _file(Image.new("L", (8, 8), 255), "PNG")

    def one(http: httpx.Client, number: int) -> httpx.Response:
        files = {"image": pictures[number % len(pictures)], "mask": white}
        return http.post("/inpaint", files=files, data={"fit": "crop", "count": 1})

    mallory.begin()  # to make them took time
    mallory.at_once(16, one)


def scans_without_end(mallory: Mallory) -> None:
    """Progressive JPEG files of 4096 x 4096 pixels: of 600 scans, and of as many as are decoded."""
    data = _file(Image.new("L", (SIDE, SIDE)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    few, many = (data[:-2] + number * data[last:-2] + data[-2:] for number in (50, 600))
    _send(mallory, few, many)


def all_width(mallory: Mallory) -> None:
    """16,777,216 x 1 pixels, and as long as may be."""
    pictures = [Image.new("1", size) for size in ((2**24, 1), (1, 2**24), (2**14, 2**10))]
    _send(mallory, *(_file(picture, "PNG") for picture in pictures))


def most_memory(mallory: Mallory) -> None:
    """Of each format what takes most."""
    colours = Image.new("RGB", (SIDE, SIDE), (1, 2, 3))
    grey = Image.new("I;16", (SIDE, SIDE), 60_000)
    _send(
        mallory,
        _file(colours, "WEBP", method=0),
        _file(grey, "PNG"),
        _file(colours, "TIFF", compression="tiff_lzw"),
    )


def _job(mallory: Mallory) -> str:
    """The address of a job of many images with frames, from whose end on the time of the attack counts."""
    asked = {"count": 700, "frames": 4, "sampler": {"name": "follow_scores", "steps": 4}}
    headers = mallory.headers | {"Prefer": "wait=120"}
    answer = httpx.post(f"{mallory.addresses[0]}/samples", json=asked, headers=headers, timeout=180)
    assert answer.status_code == 200, answer.text
    mallory.begin()
    return str(answer.json()["links"]["self"])


def grids_by_the_byte(mallory: Mallory) -> None:
    """The largest that are drawn, each a byte at a time, and by HEAD."""
    job, asked = _job(mallory), 0

    def one(http: httpx.Client, number: int) -> httpx.Response:
        nonlocal asked
        asked += 1
        query = {"scale": 16, "columns": 20 + asked % 10}
        if number % 3 == 0:
            return http.head(f"{job}/grid.png", params=query)
        return http.get(f"{job}/grid.png", params=query, headers={"Range": f"bytes={number}-{number}"})

    mallory.at_once(30, one)


def animations(mallory: Mallory) -> None:
    """Sixty at once, each another, as large as may be."""
    job = _job(mallory)

    def one(http: httpx.Client, number: int) -> httpx.Response:
        kind = "webp" if number % 2 else "gif"
        return http.get(f"{job}/animation.{kind}", params={"scale": 8, "columns": 20 + number})

    mallory.at_once(60, one)


def small_drawings(mallory: Mallory) -> None:
    """Pictures that are drawn in some milliseconds, as many as one can ask for."""
    job = _job(mallory)
    mallory.at_once(60, lambda http, number: http.get(f"{job}/images/{number}.png", params={"scale": 16}))


def archives(mallory: Mallory) -> None:
    """Of all images, again and again."""
    job = _job(mallory)
    kinds = ("images.zip", "samples.npz")
    mallory.at_once(30, lambda http, number: http.get(f"{job}/{kinds[number % 2]}"))


def readers_who_never_read(mallory: Mallory) -> None:
    """A large picture that is kept, and archives, of which nothing is taken."""
    job = _job(mallory)
    large = f"{job}/grid.png?scale=13"
    for address in mallory.addresses:
        httpx.get(f"{address}{large}", headers=mallory.headers, timeout=120)
    mallory.begin()
    asked = b"".join(mallory.request(f"GET {path}") for path in (large, f"{job}/images.zip"))
    with mallory.sockets(100, asked):
        while mallory.going:
            time.sleep(0.05)
