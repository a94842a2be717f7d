"""What happens to every request: its id, the limit on its body, and bodies that come in pieces."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pydantic import ValidationError
from redis import Redis

from service.access.keys import Keys
from service.settings import ServiceSettings

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


def test_a_body_that_does_not_arrive_is_not_waited_for(new_client, settings) -> None:
    client = new_client(settings.model_copy(update={"body_timeout_seconds": 0.2}))

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.15)
        return {"type": "http.request", "body": b" ", "more_body": True}

    messages = _call(client, receive, [(b"content-type", b"application/json"), (b"content-length", b"100")])
    assert messages[0]["status"] == 408
    assert (b"connection", b"close") in messages[0]["headers"]
    assert b"0.2 s" in messages[1]["body"]


def test_head_is_counted_by_its_route(client) -> None:
    assert client.begin("HEAD", "/models/none").result(60).status_code == 404
    text = client.get("/metrics").text
    assert 'scoreserve_http_requests_total{method="HEAD",route="/models/{name}",status="404"} 1.0' in text
    assert 'scoreserve_rejections_total{reason="not-found"} 1.0' in text


def test_every_answer_has_headers_for_browsers(client) -> None:
    for url in ("/healthz", "/nowhere", "/models", "/problems"):
        headers = client.get(url).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]


def test_other_web_sites_may_ask_only_if_they_are_named(client, new_client, settings) -> None:
    friend, stranger = {"Origin": "https://friend.example"}, {"Origin": "https://stranger.example"}
    assert not any(name.startswith("access-control") for name in client.get("/models", headers=friend).headers)
    origins = "https://friend.example, http://localhost:3000"
    client = new_client(settings.model_copy(update={"cors_origins": origins, "require_key": True}))
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,prefer,if-none-match",
    }
    allowed = client.begin("OPTIONS", "/samples", headers=friend | asked).result(60)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://friend.example"
    answer = client.get("/healthz", headers=friend)
    assert answer.headers["access-control-allow-origin"] == "https://friend.example"
    assert "Retry-After" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in client.get("/healthz", headers=stranger).headers


@pytest.mark.parametrize("origins", ["https://a.example/", "https://a.example, b.example", "https://a.example/page"])
def test_an_origin_that_is_none_is_told_at_the_start(origins: str) -> None:
    with pytest.raises(ValidationError, match="is no origin: https://example"):
        ServiceSettings(cors_origins=origins)
    ServiceSettings(cors_origins="http://localhost:3000, https://[::1]:8443,")


def test_the_access_log_tells_of_every_request_but_probes_if_asked(
    client, new_client, settings: ServiceSettings, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "scoreserve.access")
    client.get("/models")
    assert [record for record in caplog.records if record.name == "scoreserve.access"] == [], "it has to be asked for"
    logging_client = new_client(settings.model_copy(update={"access_log": True}))
    key, secret = Keys(redis).create("alice")
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    accepted = logging_client.post("/samples?token=x", content=b'{"count": 1}', headers=headers)
    refused = logging_client.get(f"/jobs/{24 * '0'}")
    for probe in ("/healthz", "/readyz", "/metrics"):
        logging_client.get(probe)
    logging_client.get("/" + 5000 * "x", headers=headers)
    lines: list[dict[str, Any]] = [record.access for record in caplog.records if record.name == "scoreserve.access"]
    first, second, third = lines
    assert 0 <= first.pop("seconds") < 60
    assert first == {
        "request": accepted.headers["x-request-id"],
        "key": key.id,
        "client": key.client,
        "method": "POST",
        "route": "/samples",
        "path": "/samples",
        "status": 202,
        "bytes_received": 12,
        "bytes_sent": len(accepted.content),
    }
    assert (second["key"], second["client"], second["status"]) == (None, None, 401)
    assert second["bytes_sent"] == len(refused.content)
    assert (third["route"], third["status"], len(third["path"]) < 200) == ("none", 404, True)
    assert secret[17:] not in caplog.text
