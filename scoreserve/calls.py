"""Every request of the API, as a pure function of what is asked."""

import base64
import json
import math
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, Union
from urllib.parse import quote

from scoreserve.errors import WrongArgument
from scoreserve.pictures import encode

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

Picture: TypeAlias = Union["Image", "np.ndarray", os.PathLike[str], str, bytes]
Urgency: TypeAlias = Literal["high", "normal", "low"]
Fit: TypeAlias = Literal["error", "resize", "crop"]


class Ask(TypedDict, total=False):
    """What images to ask for. What is left out comes from the model's card.

    Args:
        model: its name.
        version: of the model; the newest by default.
        count: how many images.
        seed: drawn at random by default.
        sampler: a sampler's name, or its settings such as {"name": "heun", "levels": 10}.
        label: the class of all images, an index or a name, where the model has classes.
        labels: those of images 0, 1 and so on, repeated.
        guidance: how far images are led towards their class; 1 is not at all, more costs twice the image-steps. By
            default as the card has it.
        guidance_interval: the lowest and the highest noise level that is guided; all by default.
        priority: high, normal or low.
        deadline_seconds: from now; a job that cannot make it is refused, one that does not is stopped.
        frames: how many snapshots of the annealing to keep, for the animation and the filmstrip; one of each network
            evaluation if these are fewer.
        webhook: https address that is called once when the job has ended; or {"url": ..., "secret": ...}, where it is
            signed with a secret of yours.
        idempotency_key: asked again with the same key, the same request gives the same job; made by the client unless
            given.
    """

    model: str | None
    version: int | None
    count: int | None
    seed: int | None
    sampler: str | Mapping[str, Any] | None
    label: int | str | None
    labels: Sequence[int | str] | None
    guidance: float | None
    guidance_interval: Sequence[float] | None
    priority: Urgency | None
    deadline_seconds: float | None
    frames: int | None
    webhook: str | Mapping[str, Any] | None
    idempotency_key: str | None


class InpaintAsk(Ask, total=False):
    """The same for completions of a picture.

    Args:
        fit: what to do with a picture of another size than the model's: error (default), resize or crop.
    """

    fit: Fit | None


@dataclass(frozen=True)
class Call:
    """A request.

    Args:
        method: of HTTP.
        path: relative to the service's address.
        parameters: of the query.
        body: JSON, if there is one.
        headers: besides those of every request.
        repeatable: whether it may be sent again when its answer was lost.
    """

    method: str
    path: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True


def sample(ask: Ask) -> Call:
    """POST /samples."""
    return _asking("samples", ask, {})


def inpaint(image: Picture, mask: Picture | None, ask: InpaintAsk) -> Call:
    """POST /inpaint, as JSON: a form's boundary would make another body of it when it is sent again."""
    files = {"image": image} | ({} if mask is None else {"mask": mask})
    return _asking("inpaint", ask, {name: base64.b64encode(encode(file)).decode() for name, file in files.items()})


def upscale(image: Picture, ask: Ask) -> Call:
    """POST /upscale, as JSON."""
    return _asking("upscale", ask, {"image": base64.b64encode(encode(image)).decode()})


def colorize(image: Picture, ask: InpaintAsk) -> Call:
    """POST /colorize, as JSON."""
    return _asking("colorize", ask, {"image": base64.b64encode(encode(image)).decode()})


def job(job_id: str) -> Call:
    """GET /jobs/{id}."""
    return Call("GET", _address(job_id))


def jobs(states: Sequence[str], models: Sequence[str], limit: int, cursor: str | None) -> Call:
    """GET /jobs: one page."""
    filters = {"state": list(states), "model": list(models), "cursor": cursor}
    return Call("GET", "jobs", {"limit": limit} | {name: value for name, value in filters.items() if value})


def cancel(job_id: str) -> Call:
    """DELETE /jobs/{id}. Sent again after a lost answer it would find the job ended, so it is not."""
    return Call("DELETE", _address(job_id), repeatable=False)


def view(job_id: str, name: str, parameters: Mapping[str, Any]) -> Call:
    """GET /jobs/{id}/{name}: its images in some form."""
    return Call(
        "GET", f"{_address(job_id)}/{_text('name', name)}", {k: v for k, v in parameters.items() if v is not None}
    )


def events(job_id: str, previews: bool, last_id: str | None) -> Call:
    """GET /jobs/{id}/events, from after the event `last_id`."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id is not None else {})
    return Call("GET", f"{_address(job_id)}/events", {"previews": "true"} if previews else {}, headers=headers)


def get(path: str) -> Call:
    """Any other reading request."""
    return Call("GET", path)


def model(name: str, version: int | None) -> Call:
    """GET /models/{name}."""
    return Call("GET", f"models/{_part('model', name)}", {} if version is None else {"version": version})


def seconds(name: str, value: Any) -> float | None:
    """A span of time, or None, of the argument of that name.

    Raises:
        WrongArgument: it is neither.
    """
    plain = _plain(name, value)
    if plain is None:
        return None
    if isinstance(plain, bool) or not isinstance(plain, int | float) or not 0 <= plain < math.inf:
        raise WrongArgument(f"{name} is {value!r}; a number of seconds from 0 on is allowed, or None")
    return float(plain)


def _asking(path: str, ask: Ask | InpaintAsk, files: Mapping[str, str]) -> Call:
    body = {name: _plain(name, value) for name, value in ask.items() if value is not None}
    key = _text("idempotency_key", body.pop("idempotency_key", None) or secrets.token_hex(16))
    if isinstance(body.get("sampler"), str):
        body["sampler"] = {"name": body["sampler"]}
    if isinstance(body.get("webhook"), str):
        body["webhook"] = {"url": body["webhook"]}
    return Call("POST", path, body={**body, **files}, headers={"Idempotency-Key": key})


def _address(job_id: str) -> str:
    return f"jobs/{_part('job', job_id)}"


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise WrongArgument(f"{name} is {value!r}; text that is not empty is allowed")
    return value


def _part(name: str, value: Any) -> str:
    """The value as one part of a path."""
    return quote(_text(name, value), safe="", errors="replace")


def _plain(name: str, value: Any) -> Any:
    """The value as JSON has it: numbers and arrays of numpy, and mappings of all kinds, as those of Python."""
    try:
        text = json.dumps(value, default=_builtin, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise WrongArgument(f"{name} is {value!r}, which JSON has no word for ({error})") from error
    return json.loads(text)


def _builtin(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):  # of numpy and torch
        return value.tolist()
    raise TypeError(type(value).__name__)
