"""Loaded by schemathesis: requests that are valid by the document ask for what the tiny model makes in a moment.

What is invalid stays as it is: a value is replaced only by another one of its kind.
"""

import base64
import io
import math
import re
from typing import Any

import schemathesis
from PIL import Image

_PICTURE = Image.new("LA", (8, 8), (255, 0))
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
_FILE = io.BytesIO()
_PICTURE.save(_FILE, "PNG")


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """The body, made small if it asks for images."""
    if context.operation.path not in ("/samples", "/inpaint") or not isinstance(body, dict):
        return body
    body = _small(body)
    if isinstance(body.get("sampler"), dict):
        body["sampler"] = _small(body["sampler"])
    if isinstance(body.get("model"), str) and _NAME.fullmatch(body["model"]):
        body["model"] = "tiny"
    for name in ("image", "mask"):  # white as a mask, transparent as a picture
        if isinstance(body.get(name), bytes | str):
            as_text = isinstance(body[name], str)
            body[name] = base64.b64encode(_FILE.getvalue()).decode() if as_text else _FILE.getvalue()
    for name, value in (("sampler", '{"name": "heun"}'), ("webhook", '{"url": "http://127.0.0.1:9000/"}')):
        if isinstance(body.get(name), str):  # a form's
            body[name] = value
    if _number(body.get("deadline_seconds")) and 0 < body["deadline_seconds"] < 600:
        body["deadline_seconds"] = 600  # one that cannot be kept is refused with 503
    webhook = body.get("webhook")
    if isinstance(webhook, dict) and isinstance(webhook.get("url"), str) and len(webhook["url"]) <= 2048:
        body["webhook"] = {**webhook, "url": "http://127.0.0.1:9000/"}  # nobody is called
    return body


@schemathesis.hook
def map_headers(context: Any, headers: Any) -> Any:
    """Every other wish for the future is a wait, so that what follows finds a job that has ended."""
    if isinstance(headers, dict) and isinstance(headers.get("Prefer"), str) and len(headers["Prefer"]) % 2 == 0:
        return {**headers, "Prefer": "wait=5"}
    return headers


def _small(body: dict[str, Any]) -> dict[str, Any]:
    return {name: _bounded(value, *_LARGEST[name]) if name in _LARGEST else value for name, value in body.items()}


def _bounded(value: Any, most: int, valid: float) -> Any:
    return most if _number(value) and most < value <= valid and value % 1 == 0 else value


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
