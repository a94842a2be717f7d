"""Uploads: what is too much is refused to its client, and others do not wait for it."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.card import ImageShape
from service.answering.problems import Problem
from service.apart import crew
from service.asking.pictures import Fit
from service.asking.uploads import Asked, Uploads
from service.settings import ServiceSettings

SHAPE = ImageShape(channels=1, height=6, width=8)


def save(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


WHITE = save(Image.new("L", (8, 6), 255))
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4096, 4096, 3), dtype=np.uint8))


def run(test: Callable[[Uploads], Awaitable[None]], **changed: Any) -> None:
    async def main() -> None:
        uploads = Uploads(ServiceSettings(**changed))
        try:
            await test(uploads)
        finally:
            await uploads.crew.aclose()

    asyncio.run(main())


async def grey(uploads: Uploads, client: str, image: bytes) -> Any:
    files = {"image": image, "mask": WHITE}
    return await uploads.read(client, Asked.UNMASKED, SHAPE, Fit.RESIZE, files)


def test_a_picture_that_takes_too_much_is_refused_with_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "PATIENCE", 600)  # a second of a processor may take long on a machine that is busy
    large = save(Image.new("RGB", NOISE.size), "JPEG", progressive=True)
    scans = large[:-2] + 600 * large[large.rindex(b"\xff\xda") : -2] + large[-2:]

    async def test(uploads: Uploads) -> None:
        with pytest.raises(Problem, match=r"/image: reading the picture takes more than 1 s of a processor") as caught:
            await grey(uploads, "a", scans)
        assert "fewer pixels, fewer scans" in str(caught.value.errors[0].allowed)
        assert (await grey(uploads, "a", WHITE)).fields["mask"] == b"\1" * 48

    run(test, decoding_seconds=1, max_jpeg_scans=1000)


def test_so_is_one_that_takes_too_much_memory() -> None:
    async def test(uploads: Uploads) -> None:
        with pytest.raises(Problem, match=r"/image: reading the picture takes more than 16 MB of memory"):
            await grey(uploads, "a", save(NOISE, "JPEG", quality=1))
        await grey(uploads, "a", WHITE)

    run(test, decoding_memory_mb=16)


def test_who_sends_many_waits_and_others_do_not() -> None:
    large = save(NOISE, "JPEG", quality=1, progressive=True)

    async def test(uploads: Uploads) -> None:
        await asyncio.gather(grey(uploads, "a", WHITE), grey(uploads, "b", WHITE))
        many = [asyncio.create_task(grey(uploads, "a", large)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Problem, match="at most 3 at once") as caught:
            await grey(uploads, "a", WHITE)
        assert caught.value.code == "quota-exceeded"
        for _ in range(3):
            await grey(uploads, "b", WHITE)
        assert not all(task.done() for task in many)
        for task in many:
            task.cancel()
        await asyncio.wait(many)
        assert not uploads.crew._busy, "what nobody waits for is ended"

    run(test, max_client_uploads=3)
