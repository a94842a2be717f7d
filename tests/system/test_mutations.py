"""Pictures that are damaged in every way, sent to a service as it is started: refused or taken, never a 5xx.

Every format and mode that Pillow can write, with bits flipped, cut short, spliced, or with a header that promises a
picture as large as can be, to every route that takes a picture. `--mutations N` says how many; printed are the peak of
the service's memory, and what a good one takes of the processor.
"""

import base64
import io
import os
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from models.store import ModelStore
from tests.conftest import publish_tiny
from tests.ports import free_port

Asked = tuple[str, dict[str, bytes], dict[str, object]]  # a route, its pictures, and what else is said
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "I;16B", "F")
ROUTES = ("/inpaint", "/inpaint", "/inpaint", "/upscale", "/colorize")  # as often as here
SIZES = ((8, 8), (13, 9), (300, 200))
GREY = ("1", "L", "LA", "I", "I;16", "F")
AT_ONCE = 4
MOST_MEGABYTES = 600  # in all; of pictures with 2**24 pixels, one is decoded at a time
SLOWER = 3.0


def files(draw: random.Random, sizes: Sequence[tuple[int, int]] = SIZES, modes: Sequence[str] = MODES) -> list[bytes]:
    """A file of every format, mode and size that Pillow can write."""
    Image.init()
    out = []
    for size in sizes:
        noise = Image.fromarray(
            np.frombuffer(draw.randbytes(size[0] * size[1] * 4), np.uint8).reshape(size[1], size[0], 4)
        )
        for mode in modes:
            try:
                image = noise.convert("RGB").convert(mode) if mode != "RGBA" else noise
            except ValueError:
                image = Image.new(mode, size, 1)
            for kind in sorted(Image.SAVE):
                buffer = io.BytesIO()
                try:
                    image.save(buffer, kind)
                except Exception:
                    continue
                out.append(buffer.getvalue())
    return out


def vast_png(width: int, height: int, bits: int, colour: int) -> bytes:
    """A PNG of one colour, whole, whose pixels take some kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    rows = zlib.compressobj(1)
    row = bytes(1 + -(-width * samples * bits // 8))
    data = b"".join(rows.compress(row) for _ in range(height)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def mutate(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """The file, damaged; one in ten is left whole."""
    out = bytearray(data)
    match draw.choice(("flip", "flip", "flip header", "cut", "splice", "vast", "vast", "repeat", "insert", "whole")):
        case "flip" | "flip header" as what:
            end = min(64, len(out)) if what == "flip header" else len(out)
            for _ in range(draw.choice((1, 3, 20))):
                out[draw.randrange(end)] ^= 1 << draw.randrange(8)
        case "cut":
            del out[draw.randrange(len(out)) :]
        case "splice":
            out[draw.randrange(len(out)) :] = other[draw.randrange(len(other)) :]
        case "vast":
            _promise(out, draw)
        case "repeat":
            place = draw.randrange(len(out))
            out[place:place] = out[place : place + draw.randrange(1, 200)] * draw.choice((1, 100))
        case "insert":
            place = draw.randrange(len(out))
            out[place:place] = draw.randbytes(draw.randrange(1, 50))
    return bytes(out)


def _promise(out: bytearray, draw: random.Random) -> None:
    """Makes the header promise a vast picture, with the right checksum where there is one."""
    width, height = draw.choice(((65535, 65535), (4096, 4096), (16000, 1000), (1, 2**24), (2**31 - 1, 1), (0, 0)))
    short = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
    if out[:4] == b"\x89PNG":
        out[16:24] = struct.pack(">II", width, height)
        out[29:33] = struct.pack(">I", zlib.crc32(out[12:29]))
    elif out[:4] == b"GIF8":
        out[6:10] = short
    elif out[:2] == b"BM":
        out[18:26] = struct.pack("<II", width, height)
    elif out[:2] == b"\xff\xd8" and (place := max(out.find(b"\xff\xc0"), out.find(b"\xff\xc2"))) > 0:
        out[place + 5 : place + 9] = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
    elif out[8:16] == b"WEBPVP8X":
        out[24:30] = struct.pack("<I", width - 1 & 0xFFFFFF)[:3] + struct.pack("<I", height - 1 & 0xFFFFFF)[:3]
    elif out[8:15] == b"WEBPVP8":
        out[26:30] = short
    elif out[:4] == b"II*\0":
        for tag, value in ((256, width), (257, height)):
            if (place := out.find(struct.pack("<H", tag), 8)) > 0:
                out[place : place + 12] = struct.pack("<HHII", tag, 4, 1, value)
    else:
        place = draw.randrange(min(40, len(out)))
        out[place : place + 4] = b"\xff" * 4


def megabytes(pid: int, what: str) -> float:
    """VmRSS (now) or VmHWM (at most so far) of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def cpu_seconds(pid: int) -> float:
    """What a process and its descendants have had of the processor so far, also those that have ended."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
    children = " ".join(file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children")).split()
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") + sum(map(cpu_seconds, map(int, children)))


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with `tiny`, which is grey, and `colour`."""
    directory = tmp_path_factory.mktemp("models")
    publish_tiny(ModelStore(directory))
    publish_tiny(ModelStore(directory), "colour", channels=3)
    return directory


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_no_picture_breaks_the_service(
    request: pytest.FixtureRequest, start: Callable[..., Any], service_url: str, until: Callable[..., None]
) -> None:
    count, draw = request.config.getoption("--mutations"), random.Random(1)
    port = free_port()
    service = start("api", "--port", str(port), SCORESERVE_REDIS_URL=service_url)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
        until(lambda: _alive(client), 180)
        before = _seconds(client, service.pid)
        at_rest = megabytes(service.pid, "VmRSS")
        sources = files(draw)
        fitting = {"/upscale": files(draw, [(4, 4)]), "/colorize": files(draw, [(8, 8)], GREY)}
        whole = [vast_png(4096, 4096, *kind) for kind in ((16, 0), (8, 6), (16, 6), (1, 0))]
        asked: list[Asked] = [
            ("/inpaint", {"image": image, "mask": mask}, {"fit": fit})
            for image, mask, fit in zip(whole, reversed(whole), ("crop", "resize") * 2, strict=True)
        ]
        while len(asked) < count:
            asked.append(_ask(draw, sources, fitting))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = list(pool.map(lambda one: _send(client, one), asked))
        peak = megabytes(service.pid, "VmHWM")
        after = _seconds(client, service.pid)
    statuses = Counter(answers)
    routes = {route: Counter(s for (r, *_), s in zip(asked, answers, strict=True) if r == route) for route in ROUTES}
    told = "; ".join(f"{route} {dict(found)}" for route, found in routes.items())
    print(
        f"{count} requests of {len(sources)} files: {told}; memory {at_rest:.0f} MB at rest, {peak:.0f} MB at most; "
        f"{1000 * before:.1f} ms of the processor a request before, {1000 * after:.1f} ms after"
    )
    assert set(statuses) - {413} == {202, 422}
    for route, found in routes.items():
        assert min(found[202], found[422]) > sum(found.values()) / 50, f"nearly all of {route} were taken, or none"
    assert peak < MOST_MEGABYTES
    assert after < SLOWER * before
    assert service.poll() is None


def _alive(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def _ask(draw: random.Random, sources: list[bytes], fitting: dict[str, list[bytes]]) -> Asked:
    """A request with damaged pictures: where few would fit a route, half of them would but for the damage."""
    route = draw.choice(ROUTES)
    chosen = fitting[route] if route in fitting and draw.random() < 0.5 else sources
    image = mutate(draw.choice(chosen), draw.choice(sources), draw)
    if route != "/inpaint":
        return route, {"image": image}, {"model": "colour" if route == "/colorize" else draw.choice(("tiny", "colour"))}
    mask = mutate(draw.choice(sources), draw.choice(sources), draw)
    pictures = {"image": image, "mask": image if draw.random() < 0.5 else mask}  # or most would be of another size
    return route, pictures, {"fit": draw.choice(("error", "resize", "crop")), "model": draw.choice(("tiny", "colour"))}


def _send(client: httpx.Client, asked: Asked) -> int:
    """The status; a job that is accepted is cancelled, so that the queue stays short."""
    route, pictures, settings = asked
    if len(pictures["image"]) % 2:
        response = client.post(route, files=pictures, data={"count": 1, **settings})
    else:
        encoded = {name: base64.b64encode(data).decode() for name, data in pictures.items()}
        response = client.post(route, json={**encoded, "count": 1, **settings})
    if response.status_code == 202:
        client.delete(response.headers["location"])
    return response.status_code


def _seconds(client: httpx.Client, pid: int) -> float:
    """What a request with a good picture takes of the processor, on average of some; the first are left out."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((48, 64), 255, np.uint8)).save(buffer, "PNG")
    picture = buffer.getvalue()
    for number in range(110):
        if number == 10:
            begun = cpu_seconds(pid)
        assert _send(client, ("/inpaint", {"image": picture, "mask": picture}, {"fit": "crop"})) == 202
    return (cpu_seconds(pid) - begun) / 100
