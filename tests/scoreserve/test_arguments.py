"""What a program may pass: numbers of numpy as those of Python, and whatever cannot be sent ends in ScoreserveError."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from scoreserve import AsyncClient, Client, Preview, ScoreserveError, UnexpectedAnswer, Unreachable, WrongArgument

JOB = "5f0c9d7b1e2a4c6d8e9f0a1b"
SURROGATE = "\ud800"


@pytest.fixture
def asked() -> list[httpx.Request]:
    return []


@pytest.fixture
def client(connect: Callable[..., Any], view: Callable[..., Any], asked: list[httpx.Request]) -> Any:
    """A client of a service that takes every job."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(202, json=view())

    return connect(answer)


def test_numbers_and_mappings_of_all_kinds_are_sent(client: Any, asked: list[httpx.Request]) -> None:
    sampler = MappingProxyType({"name": "heun", "levels": np.int32(4), "sigmas": np.array([2.0, 0.5], np.float32)})
    client.sample(count=np.int64(3), seed=np.uint8(7), deadline_seconds=np.float32(1.5), sampler=sampler)
    sampler_sent = {"name": "heun", "levels": 4, "sigmas": [2.0, 0.5]}
    assert json.loads(asked[0].content) == {"count": 3, "seed": 7, "deadline_seconds": 1.5, "sampler": sampler_sent}


def test_a_webhook_with_a_secret(client: Any, asked: list[httpx.Request]) -> None:
    webhook = {"url": "https://example.org/done", "secret": "whsec_AAAA"}
    client.sample(webhook=webhook)
    client.sample(webhook=webhook["url"])
    assert [json.loads(one.content)["webhook"] for one in asked] == [webhook, {"url": webhook["url"]}]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        ({"count": math.nan}, "count is nan"),
        ({"deadline_seconds": math.inf}, "deadline_seconds is inf"),
        ({"sampler": {"name": "heun", "sigma_max": np.float64("nan")}}, "sampler is "),
        ({"count": {1, 2}}, "count is {1, 2}"),
        ({"count": 1j}, "count is 1j"),
        ({"model": Path("mnist")}, "model is "),
        ({"model": SURROGATE}, "model is "),
        ({"idempotency_key": "schl\u00fcssel"}, "Idempotency-Key is 'schl\u00fcssel'; printable ASCII"),
        ({"idempotency_key": "a\nb"}, "printable ASCII"),
        ({"idempotency_key": 5}, "idempotency_key is 5; text"),
        ({"idempotency_key": ["a"]}, "idempotency_key is"),
    ],
)
def test_what_cannot_be_sent(client: Any, asked: list[httpx.Request], ask: dict[str, Any], said: str) -> None:
    with pytest.raises(WrongArgument) as raised:
        client.sample(**ask)
    assert said in str(raised.value)
    assert asked == []


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.job(None),
        lambda client: client.job(""),
        lambda client: client.cancel(5),
        lambda client: client.wait(JOB, timeout="5"),
        lambda client: client.wait(JOB, timeout=math.nan),
        lambda client: client.wait(JOB, timeout=-1),
        lambda client: client.view(JOB, None),
        lambda client: client.view(JOB, "a\0b"),
        lambda client: client.view(JOB, SURROGATE),
        lambda client: client.view(JOB, "grid.png", **{SURROGATE: 1}),
        lambda client: client.model(None),
        lambda client: list(client.events(JOB, last_id="\u00fc")),
        lambda client: list(client.events(JOB, last_id="a\r\nHost: b")),
        lambda client: list(client.jobs(model=SURROGATE)),
        lambda client: client.inpaint(None),
        lambda client: client.inpaint("no such file"),
        lambda client: client.inpaint("a\0b"),
        lambda client: client.inpaint(Path("/")),
        lambda client: client.inpaint([[0, 1], [1, 0]]),
        lambda client: client.inpaint(np.zeros((8, 8))),
        lambda client: client.inpaint(np.zeros((0, 8), np.uint8)),
        lambda client: client.inpaint(b"", Image.new("L", (0, 3))),
        lambda client: client.inpaint(b"", object()),
    ],
)
def test_whatever_else_cannot_be(client: Any, asked: list[httpx.Request], call: Callable[[Any], Any]) -> None:
    with pytest.raises(WrongArgument):
        call(client)
    assert asked == []


def test_what_names_nothing_else_is_asked_for(client: Any, asked: list[httpx.Request]) -> None:
    with pytest.raises(UnexpectedAnswer):
        list(client.jobs(state="running", model="tiny"))
    assert asked[0].url.query == b"limit=20&state=running&model=tiny"
    client.job(f"{SURROGATE}/../x")
    assert asked[1].url.raw_path == b"/jobs/%3F%2F..%2Fx"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    "options",
    [
        {"api_key": "schl\u00fcssel"},
        {"api_key": "ssk_a\n"},
        {"api_key": 5},
        {"client_id": "\u00fc"},
        {"timeout": "5"},
        {"timeout": math.nan},
        {"timeout": -1},
    ],
)
def test_a_client_that_cannot_be(kind: type, options: dict[str, Any]) -> None:
    with pytest.raises(WrongArgument) as raised:
        kind(**options)
    assert "ssk_" not in str(raised.value), "what is meant for a key is not shown"


@pytest.mark.parametrize(
    "server", [None, 5, b"http://a", "http://a\n", "http://" + "a" * 70_000, f"http://{SURROGATE}"]
)
def test_a_server_that_cannot_be(server: Any) -> None:
    with pytest.raises(Unreachable, match="no service at"):
        Client(server)


def test_a_client_without_a_limit_of_silence() -> None:
    assert Client(timeout=None)._http.timeout.read is None


def test_a_client_that_is_closed() -> None:
    client = Client()
    client.close()
    with pytest.raises(ScoreserveError, match="closed"):
        client.models()


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({"content-encoding": "gzip"}, b"no gzip"),
        ({"content-type": "image/png"}, b"\x89PNG\r\n\x1a\n" + bytes(64)),
        ({"content-type": "application/x-npz"}, b"PK\x03\x04" + bytes(64)),
        ({"content-type": "application/json"}, b"[" * 100_000),
        ({"location": "http://elsewhere/"}, b""),
    ],
)
def test_an_answer_that_cannot_be_read(connect: Callable[..., Any], headers: dict[str, str], content: bytes) -> None:
    status = 307 if "location" in headers else 200
    client = connect(lambda _: httpx.Response(status, headers=headers, stream=httpx.ByteStream(content)))
    for call in (lambda: client.grid(JOB), lambda: client.arrays(JOB), lambda: client.job(JOB), client.models):
        with pytest.raises(ScoreserveError):
            call()
    with pytest.raises(ScoreserveError):
        list(client.events(JOB))


def test_a_preview_that_cannot_be_read() -> None:
    with pytest.raises(ScoreserveError, match="no picture"):
        Preview(b"x", 1, 1, None).image()
