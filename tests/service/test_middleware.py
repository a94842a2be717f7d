"""What happens to every request: its id, the limit on its body, and bodies that come in pieces."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

LIMIT = 8 * 2**20


@pytest.mark.parametrize("url", ["/samples", "/inpaint", "/nowhere"])
def test_a_large_body_is_refused(client, redis, problem: Callable[..., Any], url: str) -> None:
    response = client.post(url, content=bytes(LIMIT + 1), headers={"Content-Type": "application/json"})
    assert str(LIMIT) in problem(response, 413, "too-large")["detail"]
    assert response.headers["connection"] == "close"
    assert redis.dbsize() == 0


def test_a_body_at_the_limit_is_read(client, problem: Callable[..., Any]) -> None:
    body = b'{"count": 1}'.ljust(LIMIT)
    assert client.post("/samples", content=body, headers={"Content-Type": "application/json"}).status_code == 202


def test_a_body_without_a_length_is_refused_as_soon_as_it_is_too_large(client, problem: Callable[..., Any]) -> None:
    """A client that streams for ever is not listened to for ever."""
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 2**16
        assert read < 2 * LIMIT, "it reads on"
        return {"type": "http.request", "body": bytes(2**16), "more_body": True}

    messages = _call(client, receive, [(b"content-type", b"application/json")])
    assert messages[0]["status"] == 413
    assert b"too-large" in messages[1]["body"]
    assert read <= LIMIT + 2**16


def test_a_body_in_pieces_is_put_together(client) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for byte in b'{"count": 3}':
            yield bytes([byte])

    response = client.post("/samples", content=pieces(), headers={"Content-Type": "application/json"})
    assert response.json()["count"] == 3


def test_what_a_client_did_not_finish_is_not_done(client, redis) -> None:
    """A connection that breaks off after what happens to be a whole request."""
    messages = iter([{"type": "http.request", "body": b'{"count": 1}', "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> dict[str, Any]:
        return next(messages, {"type": "http.disconnect"})

    _call(client, receive, [(b"content-type", b"application/json"), (b"content-length", b"999")])
    assert redis.dbsize() == 0


def test_every_answer_has_an_id_of_its_own(client) -> None:
    urls = ["/healthz", "/readyz", "/metrics", "/models", "/nowhere", "/docs", "/openapi.json", "/jobs/x"] * 2
    ids = [client.get(url).headers["x-request-id"] for url in urls]
    assert len(set(ids)) == len(urls)


def _call(client, receive: Callable[..., Any], headers: list[tuple[bytes, bytes]]) -> list[dict[str, Any]]:
    """The messages that a bare POST /samples is answered with."""
    messages: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/samples",
        "raw_path": b"/samples",
        "query_string": b"",
        "headers": headers,
        "http_version": "1.1",
        "scheme": "http",
        "server": ("test", 80),
        "root_path": "",
    }
    client.call(asyncio.wait_for(client.app(scope, receive, send), 10))
    return messages
