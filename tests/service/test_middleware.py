"""What happens to every request: its id, the limit on its body, and bodies that come in pieces."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pydantic import ValidationError
from redis import Redis

from service.access.keys import Keys
from service.settings import ServiceSettings

LIMIT = 2**16  # of JSON


@pytest.mark.parametrize(("url", "limit"), [("/samples", LIMIT), ("/inpaint", 8 * 2**20)])
def test_a_large_body_is_refused(client, redis, problem: Callable[..., Any], url: str, limit: int) -> None:
    response = client.post(url, content=bytes(limit + 1), headers={"Content-Type": "application/json"})
    assert str(limit) in problem(response, 413, "too-large")["detail"]
    assert response.headers["connection"] == "close"
    assert redis.dbsize() == 0


def test_a_body_at_the_limit_is_read(client, problem: Callable[..., Any]) -> None:
    body = b'{"count": 1}'.ljust(LIMIT)
    assert client.post("/samples", content=body, headers={"Content-Type": "application/json"}).status_code == 202


@pytest.mark.parametrize("path", ["/healthz", "/", "/jobs", "/jobs/x", "/models"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_where_no_body_is_taken_none_is_read(client, method: str, path: str) -> None:
    messages = _call(client, _unread, [(b"content-length", b"2")], method, path)
    assert messages[0]["status"] == 413
    assert (b"connection", b"close") in messages[0]["headers"]
    assert method == "HEAD" or f"{method} takes no body here: send none".encode() in messages[1]["body"]


@pytest.mark.parametrize(
    ("path", "status"), [("/healthz", 405), ("/nowhere", 404), ("/jobs/0123456789abcdef01234567/cancel", 404)]
)
@pytest.mark.parametrize("header", [(b"content-length", b"9000000000"), (b"transfer-encoding", b"chunked")])
def test_what_needs_no_body_is_answered_without(client, path: str, status: int, header: tuple[bytes, bytes]) -> None:
    messages = _call(client, _unread, [header], "POST", path)
    assert messages[0]["status"] == status
    assert (b"connection", b"close") in messages[0]["headers"]


async def _unread() -> dict[str, Any]:
    raise AssertionError("it reads")


def test_bodies_have_room_in_all_and_of_each_client(
    new_client, settings, problem: Callable[..., Any], until: Callable[..., None]
) -> None:
    """What is taken is given back when the body is of no use any more: before the wait for the job."""
    few = {"max_bodies_bytes": 300_000, "max_client_bodies_bytes": 200_000, "max_client_waits": 1000}
    client = new_client(settings.model_copy(update=few))
    room = client.app.state.context.room
    gone = asyncio.Event()

    async def begun() -> AsyncIterator[bytes]:
        yield b"{"
        await gone.wait()
        yield b"}"

    def send(length: int, **headers: str) -> Any:
        json = {"Content-Type": "application/json", "Content-Length": str(length)}
        return client.begin("POST", "/inpaint", content=begun(), headers=json | headers)

    pending = [send(90_000) for _ in range(2)]
    until(lambda: room.taken == 180_000)
    refused = send(90_000).result(60)
    told = problem(refused, 429, "quota-exceeded")["detail"]
    assert told.startswith("of yours there are 180,000 bytes in bodies, and this is 90,000 more: at most 200,000")
    assert (refused.headers["retry-after"], refused.headers["connection"]) == ("5", "close")
    other = {"X-Forwarded-For": "10.9.8.7"}
    pending.append(send(90_000, **other))
    until(lambda: room.taken == 270_000)
    told = problem(send(90_000, **other).result(60), 503, "busy")["detail"]
    assert "270,000 bytes in bodies, and this is 90,000 more: at most 300,000 at once are allowed here" in told
    assert client.post("/samples", json={"count": 1}).status_code == 202
    client.loop.call_soon_threadsafe(gone.set)
    for answer in pending:
        assert answer.result(60).status_code == 422
    assert room.taken == 0
    waiting = [client.begin("POST", "/samples", json={"count": 1}, headers={"Prefer": "wait=20"}) for _ in range(9)]
    until(lambda: client.app.state.context.waits.taken == 9)
    until(lambda: room.taken == 0)
    client.call(_stop(client))
    assert {answer.result(60).status_code for answer in waiting} == {202}


async def _stop(client) -> None:
    client.app.state.context.stop()


def test_a_body_of_no_length_takes_room_as_it_comes(new_client, settings) -> None:
    client = new_client(settings.model_copy(update={"max_client_bodies_bytes": 100_000}))
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 2**14
        return {"type": "http.request", "body": bytes(2**14), "more_body": True}

    messages = _call(client, receive, [(b"content-type", b"application/json")], "POST", "/inpaint")
    assert messages[0]["status"] == 429
    assert read <= 100_000 + 2**14
    assert client.app.state.context.room.taken == 0


def test_a_body_without_a_length_is_refused_as_soon_as_it_is_too_large(client, problem: Callable[..., Any]) -> None:
    """A client that streams for ever is not listened to for ever."""
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 2**12
        assert read < 2 * LIMIT, "it reads on"
        return {"type": "http.request", "body": bytes(2**12), "more_body": True}

    messages = _call(client, receive, [(b"content-type", b"application/json")])
    assert messages[0]["status"] == 413
    assert b"too-large" in messages[1]["body"]
    assert read <= LIMIT + 2**12


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


def _call(
    client,
    receive: Callable[..., Any],
    headers: list[tuple[bytes, bytes]],
    method: str = "POST",
    path: str = "/samples",
) -> list[dict[str, Any]]:
    """The messages that a bare request is answered with."""
    messages: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
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
