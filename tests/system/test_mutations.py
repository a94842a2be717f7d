"""Pictures that are damaged in every way, sent to a service as it is started: refused or taken, never a 5xx.

Every format and mode that Pillow can write, with bits flipped, cut short, spliced, or with a header that promises a
picture as large as can be. `--mutations N` says how many; the peak of the service's memory and its speed are printed.
"""

import base64
import io
import random
import socket
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "I;16B", "F")
SIZES = ((8, 8), (13, 9), (300, 200))
AT_ONCE = 4
MOST_MEGABYTES = 600  # in all; of pictures with 2**24 pixels, one is decoded at a time
SLOWER = 3.0


def files(draw: random.Random) -> list[bytes]:
    """A file of every format, mode and size that Pillow can write."""
    Image.init()
    out = []
    for size in SIZES:
        noise = Image.fromarray(
            np.frombuffer(draw.randbytes(size[0] * size[1] * 4), np.uint8).reshape(size[1], size[0], 4)
        )
        for mode in MODES:
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


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_no_picture_breaks_the_service(
    request: pytest.FixtureRequest, start: Callable[..., Any], service_url: str, until: Callable[..., None]
) -> None:
    count, draw = request.config.getoption("--mutations"), random.Random(1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service = start("api", "--port", str(port), SCORESERVE_REDIS_URL=service_url)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        until(lambda: _alive(client), 180)
        before = _seconds(client)
        at_rest = megabytes(service.pid, "VmRSS")
        sources = files(draw)
        whole = [vast_png(4096, 4096, *kind) for kind in ((16, 0), (8, 6), (16, 6), (1, 0))]
        requests = list(zip(whole, reversed(whole), ("crop", "resize") * 2, strict=True))
        while len(requests) < count:
            image, mask, *others = (draw.choice(sources) for _ in range(4))
            damaged = mutate(image, others[0], draw), mutate(mask, others[1], draw)
            same = draw.random() < 0.5  # or nearly every mask would be of another size
            requests.append((damaged[0], damaged[0] if same else damaged[1], draw.choice(("error", "resize", "crop"))))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            statuses = Counter(pool.map(lambda asked: _send(client, *asked), requests))
        peak = megabytes(service.pid, "VmHWM")
        after = _seconds(client)
    print(
        f"{count} requests of {len(sources)} files: {dict(statuses)}; memory {at_rest:.0f} MB at rest, "
        f"{peak:.0f} MB at most; {1000 * before:.1f} ms a request before, {1000 * after:.1f} ms after"
    )
    assert set(statuses) - {413} == {202, 422}
    assert min(statuses[202], statuses[422]) > len(requests) / 50, "nearly all were taken, or none"
    assert peak < MOST_MEGABYTES
    assert after < SLOWER * before
    assert service.poll() is None


def _alive(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def _send(client: httpx.Client, image: bytes, mask: bytes, fit: str) -> int:
    """The status of POST /inpaint, or now and then of one of the others that take a picture.

    One that is accepted is cancelled, so that the queue stays short.
    """
    if fit == "error" and len(image) % 3 == 0:
        path = "/upscale" if len(image) % 2 else "/colorize"
        response = client.post(path, files={"image": image}, data={"count": 1})
    elif len(image) % 2:
        response = client.post("/inpaint", files={"image": image, "mask": mask}, data={"count": 1, "fit": fit})
    else:
        encoded = {name: base64.b64encode(data).decode() for name, data in (("image", image), ("mask", mask))}
        response = client.post("/inpaint", json={**encoded, "count": 1, "fit": fit})
    if response.status_code == 202:
        client.delete(response.headers["location"])
    return response.status_code


def _seconds(client: httpx.Client) -> float:
    """What a request with a good picture takes: the median of some, which leaves out the first."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((48, 64), 255, np.uint8)).save(buffer, "PNG")

    def once() -> float:
        begun = time.perf_counter()
        assert _send(client, buffer.getvalue(), buffer.getvalue(), "crop") == 202
        return time.perf_counter() - begun

    return median([once() for _ in range(60)][10:])
