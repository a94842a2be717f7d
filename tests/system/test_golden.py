"""Golden images: what the samplers, inpainting and the views of a job gave when it was recorded, they give.

All is asked for over HTTP, of a service as a user starts it. Kept in tests/data/golden are the pixels (golden.npz), and
their sha256 with what else is said of them (golden.json), so that a difference between two commits tells what changed.
Of views the decoded content is kept, since compressors change. Bits are up to a machine's kernels: where its arithmetic
is the recorded one all must be equal; elsewhere pixels must be near (MOST_OFF, MOST_PIXELS).

An image that changes is a change of what clients get for a seed. Where that is meant (a model that ships is another, a
sampler's equation was wrong), record anew, look at what `git diff` says of golden.json, and say why in the commit:

    pytest tests/system/test_golden.py --record-golden
"""

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageSequence

from tests.conftest import DATA
from tests.ports import free_port
from tests.system.arithmetic import fingerprint

GOLDEN = DATA / "golden"
MODELS = ("mnist", "fashion-mnist")
FAST = "mnist-fast"  # which follows one sampler
SAMPLERS: tuple[dict[str, Any], ...] = (
    {"name": "annealed_langevin", "levels": 6, "steps_per_level": 2},
    {"name": "langevin", "sigma": 0.4, "steps": 11},
    {"name": "follow_scores", "sigma": 0.4, "steps": 12},
    {"name": "consistent_annealed", "levels": 12},
    {"name": "ancestral", "levels": 12},
    {"name": "euler", "levels": 10},
    {"name": "adams_bashforth", "levels": 10},
    {"name": "heun", "levels": 7},
    {"name": "dpmpp_2m_sde", "levels": 10, "churn": 2, "churn_max": 2, "churn_min": 0.5},
)
VIEWED: dict[str, Any] = {"model": "mnist", "count": 3, "seed": 11, "frames": 4, "sampler": SAMPLERS[5]}
VIEWS = (
    "grid.png",
    "grid.png?columns=1&padding=5&scale=1",
    "grid.png?columns=3&background=ff8800",
    "grid.png?padding=4&scale=3&background=transparent",
    "images/0.png",
    "images/2.png?scale=3",
    "samples.npz",
    "images.zip",
    "animation.webp",
    "animation.webp?columns=1&scale=1&fps=25",
    "animation.gif",
    "animation.gif?columns=3&scale=1&fps=4",
    "filmstrip.png",
    "filmstrip.png?padding=0&scale=2",
)
# Elsewhere: of 255, how far a pixel may be off, and how many of an image's may be off at all. Between kernels for
# AVX-512, AVX2 and SSE4.1, in torch, oneDNN and MKL alike, a single pixel of all these was off, by 1.
MOST_OFF, MOST_PIXELS = 2, 0.01

Pixels = dict[str, np.ndarray]
Words = dict[str, Any]


@pytest.mark.parametrize("store", ["none", "directory", "bucket"])
def test_all_is_as_recorded(
    store: str,
    start: Callable,
    tmp_path: Path,
    until: Callable,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever the images lie: in Redis those of every sampler; elsewhere those of one, since bytes are bytes there."""
    whole = store == "none"
    if request.config.getoption("--record-golden") and not whole:
        pytest.skip("what is in Redis is recorded")
    url = "none" if store == "none" else request.getfixturevalue(f"{store}_url")
    monkeypatch.setenv("SCORESERVE_RESULTS_URL", url)
    monkeypatch.setenv("SCORESERVE_RESULTS_IN_REDIS_BYTES", "0")
    address = f"http://127.0.0.1:{free_port()}"
    up = start("up", "--port", address.rpartition(":")[2], "--data-dir", str(tmp_path / "q"), "--grace-seconds", "0")
    with httpx.Client(base_url=address, timeout=60) as http:
        until(lambda: up.poll() is None and _ready(http))
        pixels, words = _images(http, until, SAMPLERS if whole else SAMPLERS[:1])
        of_views, said = _views(http, until)
    pixels |= of_views
    words |= said

    here = fingerprint()
    if request.config.getoption("--record-golden"):
        _record(pixels, words, here)
        pytest.skip(f"recorded in {GOLDEN}")
    recorded = json.loads((GOLDEN / "golden.json").read_text())
    if whole:
        assert words.keys() == recorded["words"].keys()
        assert pixels.keys() == recorded["sha256"].keys()
    assert words == {name: recorded["words"][name] for name in words}
    with np.load(GOLDEN / "golden.npz") as archive:
        differing = [
            f"{name}: {fault}"
            for name, digest in _hashes(pixels).items()
            if digest != recorded["sha256"][name]
            and (fault := _fault(pixels[name], archive[name], exact=here == recorded["fingerprint"]))
        ]
    assert not differing, "\n".join(differing)


def test_what_is_near_and_what_is_not() -> None:
    images = np.full((2, 28, 28, 1), 100, np.uint8)
    one, far, many, elsewhere = images.copy(), images.copy(), images.copy(), images.copy()
    one[0, 0, 0] += MOST_OFF
    far[0, 0, 0] += MOST_OFF + 1
    many[1, :2] += 1
    assert _fault(one, images, exact=True) == f"1 of 1568 pixels differ, by up to {MOST_OFF}"
    assert _fault(one, images, exact=False) is None
    assert _fault(far, images, exact=False)
    assert _fault(many, images, exact=False)
    assert _fault(elsewhere[:1], images, exact=False) == "shape (1, 28, 28, 1), not (2, 28, 28, 1)"


def _images(http: httpx.Client, until: Callable, samplers: tuple[dict[str, Any], ...]) -> tuple[Pixels, Words]:
    """Two images of every sampler on every model that follows it, new ones and completions."""
    jobs: dict[str, Words] = {}
    files = {name: base64.b64encode(_png(pixels)).decode() for name, pixels in _given().items()}
    for model in MODELS:
        for number, sampler in enumerate(samplers):
            body = {"model": model, "count": 2, "seed": 100 + number, "sampler": sampler}
            jobs[f"{model} {sampler['name']}"] = _accepted(http.post("/samples", json=body))
            jobs[f"{model} {sampler['name']} inpainted"] = _accepted(http.post("/inpaint", json={**body, **files}))
    jobs[FAST] = _accepted(http.post("/samples", json={"model": FAST, "count": 2, "seed": 110}))
    pixels: Pixels = {}
    for name, job in jobs.items():
        until(lambda job=job: _finished(http, job))
        with np.load(io.BytesIO(http.get(job["links"]["samples"]).raise_for_status().content)) as archive:
            pixels[name] = archive["images"]
    return pixels, {name: job["progress"]["image_steps"] for name, job in jobs.items()}


def _given() -> Pixels:
    """A ring to complete, and a mask that repaints its right part."""
    y, x = np.ogrid[:28, :28]
    distance = (y - 14) ** 2 + (x - 14) ** 2
    image = np.where((distance > 36) & (distance < 90), 255, 0).astype(np.uint8)
    mask = np.where(x + y // 4 >= 16, 255, 0).astype(np.uint8)
    return {"image": image, "mask": mask}


def _views(http: httpx.Client, until: Callable) -> tuple[Pixels, Words]:
    """Every view of one job, and the same job's answers to who waits for it."""
    job = _accepted(http.post("/samples", json=VIEWED))
    until(lambda: _finished(http, job))
    ended = http.get(job["links"]["self"]).text.replace(job["id"], "ID")
    timeless = json.loads(ended, object_pairs_hook=_told)
    pixels: Pixels = {}
    words: Words = {"job": {k: v for k, v in timeless.items() if not k.endswith(("_at", "_seconds"))}}
    for view in VIEWS:
        response = http.get(f"/jobs/{job['id']}/{view}").raise_for_status()
        of_view, said = _decoded(response.content, response.headers["content-type"])
        pixels |= {f"{view} {part}".rstrip(): array for part, array in of_view.items()}
        words[view] = {"content-type": response.headers["content-type"], **said}
    for kind in ("image/png", "application/x-npz"):
        headers = {"Accept": kind, "Prefer": "wait=60"}
        response = http.post("/samples", json=VIEWED, headers=headers).raise_for_status()
        of_view, words[f"answer {kind}"] = _decoded(response.content, response.headers["content-type"])
        pixels |= {f"answer {kind} {part}".rstrip(): array for part, array in of_view.items()}
    return pixels, words


def _decoded(content: bytes, kind: str) -> tuple[Pixels, Words]:
    """What is in a file: its pixels, a name for each part that has one, and what else it says."""
    file = io.BytesIO(content)
    if kind == "application/x-npz":
        with np.load(file) as archive:
            said = {"seed": int(archive["seed"]), "parts": archive.files}
            request = json.loads(str(archive["request"]), object_pairs_hook=_told)
            return {"images": archive["images"]}, {**said, "request": request}
    if kind == "application/zip":
        with zipfile.ZipFile(file) as archive:
            found = {name: _decoded(archive.read(name), "image/png") for name in archive.namelist()}
        return {name: pixels[""] for name, (pixels, _) in found.items()}, {n: said for n, (_, said) in found.items()}
    with Image.open(file) as picture:
        if kind == "image/png":
            return {"": np.asarray(picture)}, {"mode": picture.mode}
        frames, durations = [], []
        for frame in ImageSequence.Iterator(picture):
            frames.append(np.asarray(frame.convert("RGB")))
            durations.append(frame.info["duration"])
        return {"": np.stack(frames)}, {"durations": durations, "loop": picture.info["loop"]}


def _told(pairs: list[tuple[str, Any]]) -> Words:
    """A JSON object without what is null: a setting that is new and not made use of changes nothing."""
    return {name: value for name, value in pairs if value is not None}


def _fault(found: np.ndarray, recorded: np.ndarray, exact: bool) -> str | None:
    """What is wrong with pixels uint8 that are not, or not near, those recorded."""
    if found.shape != recorded.shape:
        return f"shape {found.shape}, not {recorded.shape}"
    off = np.abs(found.astype(int) - recorded.astype(int))
    if not exact and off.max() <= MOST_OFF and np.count_nonzero(off) <= MOST_PIXELS * off.size:
        return None
    return f"{np.count_nonzero(off)} of {off.size} pixels differ, by up to {off.max()}" if off.any() else None


def _hashes(pixels: Pixels) -> dict[str, str]:
    return {name: hashlib.sha256(f"{a.shape}".encode() + a.tobytes()).hexdigest() for name, a in pixels.items()}


def _record(pixels: Pixels, words: Words, here: str) -> None:
    GOLDEN.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN / "golden.npz", **pixels)  # type: ignore[arg-type]
    content = {"fingerprint": here, "sha256": _hashes(pixels), "words": words}
    (GOLDEN / "golden.json").write_text(json.dumps(content, indent=1) + "\n")


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _accepted(response: httpx.Response) -> Words:
    assert response.status_code == 202, response.text
    job: Words = response.json()
    return job


def _finished(http: httpx.Client, job: Words) -> bool:
    state = http.get(job["links"]["self"]).raise_for_status().json()
    assert state["state"] in ("queued", "running", "finished"), state
    return bool(state["state"] == "finished")


def _ready(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
