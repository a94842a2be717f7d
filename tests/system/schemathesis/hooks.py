"""Loaded by schemathesis: what is valid by the document asks for what the tiny model makes in a moment, of real
pictures.

What is invalid stays as it is: a value is replaced only by another one of its kind.
"""

import base64
import io
import json
import math
import os
import re
from itertools import count
from typing import Any

import httpx
import schemathesis
from hypothesis import strategies as st
from PIL import Image

from models.samplers import USUAL
from service.answering.job_view import EXAMPLE_ID
from service.asking.schemas import MASK, PICTURE, SMALL

# name: (what it is at most here, what it may be at most)
_LARGEST = {
    "count": (4, math.inf),
    "frames": (3, 64),
    "levels": (6, 100_000),
    "steps": (9, 100_000),
    "steps_per_level": (2, 100_000),
    "version": (1, math.inf),
}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NOBODY = "http://127.0.0.1:9000/"  # who is called
_FORM = {"sampler": '{"name": "heun"}', "webhook": json.dumps({"url": _NOBODY})}
_JOB = os.environ["SCHEMATHESIS_JOB"]  # one that has finished, with frames
_CANCEL = ("DELETE /jobs/{job_id}", "POST /jobs/{job_id}/cancel")
_NUMBERS = count()


def _file(mode: str, kind: str, size: tuple[int, int], colour: Any) -> bytes:
    """A picture file that is white as a mask, and transparent if it has an alpha."""
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, kind)
    return file.getvalue()


_PICTURES = [
    _file("LA", "PNG", (8, 8), (255, 0)),
    _file("L", "PNG", (8, 8), 255),
    _file("RGBA", "WEBP", (8, 8), (255, 255, 255, 0)),
    _file("RGB", "JPEG", (8, 8), (255, 255, 255)),
    _file("P", "GIF", (8, 8), 255),
    _file("I;16", "TIFF", (8, 8), 65535),
    _file("1", "BMP", (8, 8), 1),
    _file("LA", "PNG", (12, 16), (255, 0)),  # to be fitted
    _file("L", "PNG", (4, 4), 255),  # to be enlarged
    _file("L", "BMP", (2, 2), 255),
]
_SMALL = [base64.b64encode(picture).decode() for picture in _PICTURES[-2:]]
_BASE64 = [base64.b64encode(picture).decode() for picture in _PICTURES]
# Of a form's files, and of the strings that are files in JSON; the others are what schemathesis would send.
schemathesis.openapi.format("binary", st.one_of(*map(st.just, _PICTURES), st.binary()))


@schemathesis.hook
def before_load_schema(context: Any, document: dict[str, Any]) -> None:
    """The examples of the document, made to be of what the service under test has: its model, and a finished job.

    The usual sampler's name may be null. The document says so in words alone: its schema is also that of answers, where
    the name tells generated clients which sampler it is.
    """
    text = json.dumps(document)
    for shown, here in (
        ('"mnist"', '"tiny"'),
        ("https://example.com/hooks/scoreserve", _NOBODY),
        (EXAMPLE_ID, _JOB),
        (PICTURE, _BASE64[0]),
        (MASK, _BASE64[0]),
        (SMALL, _SMALL[0]),
    ):
        text = text.replace(shown, here)
    document.update(json.loads(text))
    for schema in document["components"]["schemas"].values():
        name = schema.get("properties", {}).get("name", {})
        if name.get("const") == USUAL:
            schema["properties"]["name"] = {"anyOf": [dict(name), {"type": "null"}]}
    forms = [document["paths"]["/inpaint"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]]
    for schema in [*document["components"]["schemas"].values(), *forms]:
        for name in _LARGEST.keys() & schema.get("properties", {}).keys():
            schema["properties"][name]["examples"] = [_LARGEST[name][0]]


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Most Idempotency-Keys are of one request only, and what is cancelled has not ended: the document's examples are
    sent again and again."""
    number, key = next(_NUMBERS), case.headers.get("Idempotency-Key")
    if number % 8 and isinstance(key, str) and re.fullmatch(r"[\x21-\x7e]{1,200}", key):
        case.headers["Idempotency-Key"] = f"{key}-{os.getpid()}-{number}"
    if number % 4 and case.headers.get("Prefer") == "wait=60":
        case.headers["Prefer"] = "respond-async"
    if case.operation.label in _CANCEL and case.path_parameters.get("job_id") == _JOB:
        new = {"json": {"count": 200}, "headers": {"Client-Id": f"{os.getpid()}-{number}"}}  # whose quota is its own
        answer = httpx.post(f"{case.operation.base_url.rstrip('/')}/samples", **new)
        case.path_parameters["job_id"] = answer.raise_for_status().json()["id"]


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """No deadline that is refused with 503 while others wait; the cases of one phase pass no `map_body`. And where
    nothing may fit the document, no sampler whose name is null: that is wrong of one, and right of the usual one."""
    body = case.body if isinstance(case.body, dict) else {}
    sampler, wrong = body.get("sampler"), case.meta and case.meta.generation.mode.is_negative
    nameless = isinstance(sampler, dict) and sampler.get("name", "") is None
    return not (wrong and nameless) and not _soon(body.get("deadline_seconds"))


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """The body, made small if it asks for images."""
    if context.operation.path not in ("/samples", "/inpaint", "/upscale", "/colorize") or not isinstance(body, dict):
        return body
    body = _small(body)
    if isinstance(body.get("sampler"), dict):
        body["sampler"] = _small(body["sampler"])
    if isinstance(body.get("model"), str) and _NAME.fullmatch(body["model"]):
        body["model"] = "tiny"
    for name in ("image", "mask"):  # white as a mask, transparent as a picture
        if type(body.get(name)) is str and len(body[name]) % 4:
            fitting = _SMALL if context.operation.path == "/upscale" else _BASE64
            body[name] = fitting[len(body[name]) % len(fitting)]
    for name, value in _FORM.items():
        if isinstance(body.get(name), str):
            body[name] = value
    if _soon(body.get("deadline_seconds")):
        body["deadline_seconds"] = 600
    webhook = body.get("webhook")
    if isinstance(webhook, dict) and isinstance(webhook.get("url"), str) and len(webhook["url"]) <= 2048:
        body["webhook"] = {**webhook, "url": _NOBODY}
    return body


@schemathesis.hook
def map_headers(context: Any, headers: Any) -> Any:
    """Every other wish for the future is a wait, so that what follows finds a job that has ended; and every other Range
    is one, of bytes that the file has or has not."""
    for name, value in (("Prefer", "wait=5"), ("Range", "bytes={}-")):
        given = headers.get(name) if isinstance(headers, dict) else None
        if isinstance(given, str) and len(given) % 2 == 0:
            headers = {**headers, name: value.format(len(given) ** 3)}
    return headers


def _small(body: dict[str, Any]) -> dict[str, Any]:
    return {name: _bounded(value, *_LARGEST[name]) if name in _LARGEST else value for name, value in body.items()}


def _bounded(value: Any, most: int, valid: float) -> Any:
    return most if _number(value) and most < value <= valid and value % 1 == 0 else value


def _soon(seconds: Any) -> bool:
    return _number(seconds) and 0 < seconds < 60


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
