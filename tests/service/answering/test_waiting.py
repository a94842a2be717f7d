"""`Prefer` and `Accept`: when an answer comes, and in which form."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError
from starlette.requests import Request

from service.access.keys import Keys
from service.answering import views
from service.answering.problems import Problem
from service.answering.waiting import wanted
from worker.queue.keys import ACTIVE


@pytest.mark.parametrize(
    ("headers", "media_type", "seconds", "applied"),
    [
        ({}, "application/json", 0, None),
        ({"accept": "*/*"}, "application/json", 0, None),
        ({"accept": ""}, "application/json", 0, None),
        ({"accept": "text/html,application/xml;q=0.9,*/*;q=0.8"}, "application/json", 0, None),
        ({"accept": "image/png"}, "image/png", 60, None),
        ({"accept": "IMAGE/PNG"}, "image/png", 60, None),
        ({"accept": "application/x-npz;q=0.5, image/png;q=0.4"}, "application/x-npz", 60, None),
        ({"accept": "image/png;q=nonsense, application/json"}, "application/json", 0, None),
        ({"prefer": "wait=5"}, "application/json", 5, "wait=5"),
        ({"prefer": 'wait="5"'}, "application/json", 5, "wait=5"),
        ({"prefer": "WAIT = 5"}, "application/json", 5, "wait=5"),
        ({"prefer": "wait=999999999"}, "application/json", 60, "wait=60"),
        ({"prefer": "respond-async, wait=5"}, "application/json", 5, "wait=5"),
        ({"prefer": "respond-async", "accept": "image/png"}, "image/png", 0, "respond-async"),
        ({"prefer": "return=minimal"}, "application/json", 0, None),
        ({"prefer": "wait=1.5"}, "application/json", 2, "wait=2"),
        ({"prefer": 'wait="0.2"'}, "application/json", 0, "wait=0"),
        ({"prefer": "wait=5; cancel-on-disconnect"}, "application/json", 5, "wait=5, cancel-on-disconnect"),
        ({"prefer": "Cancel-On-Disconnect, wait=5"}, "application/json", 5, "wait=5, cancel-on-disconnect"),
        ({"prefer": "cancel-on-disconnect", "accept": "image/png"}, "image/png", 60, "cancel-on-disconnect"),
        ({"prefer": "cancel-on-disconnect"}, "application/json", 0, None),
        ({"prefer": "wait=5, wait=9"}, "application/json", 5, "wait=5"),
        ({"prefer": "wait=5; foo=bar"}, "application/json", 5, "wait=5"),
        *(
            ({"prefer": preference}, "application/json", 0, None)
            for preference in ("wait=soon", "wait=-1", "wait=", "wait", "wait=1e3", 'wait="5', "=", ",;")
        ),
        ({"prefer": "wait=soon", "accept": "image/png"}, "image/png", 60, None),
        ({"prefer": "wait=soon, respond-async", "accept": "image/png"}, "image/png", 0, "respond-async"),
        ({"prefer": "wait=0", "accept": "image/png"}, "image/png", 0, "wait=0"),
    ],
)
def test_headers_are_understood(headers: dict[str, str], media_type: str, seconds: float, applied: str | None) -> None:
    how = wanted(_request(headers), most_seconds=60)
    assert (how.media_type, how.wait_seconds, how.applied) == (media_type, seconds, applied)


def test_what_cannot_be_met_is_refused() -> None:
    with pytest.raises(Problem, match="cannot be met"):
        wanted(_request({"accept": "video/mp4"}), most_seconds=60)


@pytest.mark.parametrize("accept", ["application/json", "image/png"])
def test_a_wait_that_is_over_gives_the_job_as_it_is(client, accept: str) -> None:
    begun = time.monotonic()
    response = client.post("/samples", json={}, headers={"Prefer": "wait=1", "Accept": accept})
    assert 1 <= time.monotonic() - begun < 100
    assert response.status_code == 202
    assert response.headers["preference-applied"] == "wait=1"
    assert response.json()["state"] == "queued"
    assert response.headers["location"] == response.json()["links"]["self"]


def test_who_wants_no_wait_is_answered_at_once(client) -> None:
    headers = {"Prefer": "respond-async", "Accept": "image/png"}
    begun = time.monotonic()
    response = client.post("/samples", json={}, headers=headers)
    assert time.monotonic() - begun < 100
    assert response.status_code == 202
    assert response.headers["preference-applied"] == "respond-async"
    assert response.headers["content-type"] == "application/json"


def test_a_job_cancelled_meanwhile_has_no_images(
    client, redis: Redis, problem: Callable[..., Any], until: Callable[..., None]
) -> None:
    pending = client.begin("POST", "/samples", json={}, headers={"Accept": "image/png"})
    until(lambda: redis.zcard(ACTIVE) == 1)
    ((job_id, _),) = redis.zrange(ACTIVE, 0, -1, withscores=True)
    assert client.delete(f"/jobs/{job_id.decode()}").status_code == 200
    body = problem(pending.result(60), 409, "not-ready")
    assert "cancelled" in body["detail"]
    assert pending.result().headers["location"] == f"/jobs/{job_id.decode()}"


def test_when_redis_goes_away_who_waits_is_told_that_the_job_is_kept(
    client, redis: Redis, problem: Callable[..., Any], until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise ConnectionError

    pending = client.begin("POST", "/samples", json={}, headers={"Prefer": "wait=60"})
    until(lambda: redis.zcard(ACTIVE) == 1)
    ((job_id, _),) = redis.zrange(ACTIVE, 0, -1, withscores=True)
    with monkeypatch.context() as patch:
        patch.setattr(client.app.state.context.jobs, "ended", away)
        body = problem(pending.result(60), 503, "unavailable")
    assert job_id.decode() in body["detail"]
    assert pending.result().headers["location"] == f"/jobs/{job_id.decode()}"


@pytest.mark.parametrize("preference", ["wait=60; cancel-on-disconnect", "wait=60, cancel-on-disconnect", "wait=60"])
def test_the_job_of_a_client_that_hangs_up_is_cancelled_if_it_says_so(
    client, redis: Redis, until: Callable[..., None], preference: str
) -> None:
    gone = asyncio.Event()
    body = [{"type": "http.request", "body": b'{"count": 2}', "more_body": False}]

    async def receive() -> dict[str, Any]:
        if body:
            return body.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        pass

    headers = [(b"content-type", b"application/json"), (b"prefer", preference.encode())]
    scope = {"type": "http", "method": "POST", "path": "/samples", "query_string": b"", "headers": headers}
    asked = asyncio.run_coroutine_threadsafe(client.app(scope, receive, send), client.loop)
    until(lambda: redis.zcard(ACTIVE) == 1)
    ((job_id, _),) = redis.zrange(ACTIVE, 0, -1, withscores=True)
    client.loop.call_soon_threadsafe(gone.set)
    asked.result(60)
    state = client.get(f"/jobs/{job_id.decode()}").json()["state"]
    assert state == ("cancelled" if "cancel" in preference else "queued")


def test_those_who_wait_hold_up_nobody(client, redis: Redis, until: Callable[..., None]) -> None:
    """More of them than the service has threads."""
    pending = [client.begin("POST", "/samples", json={}, headers={"Prefer": "wait=150"}) for _ in range(45)]
    until(lambda: redis.zcard(ACTIVE) == 45)
    assert client.get("/healthz").status_code == 200
    client.submit()
    client.get("/readyz")
    assert not any(answer.done() for answer in pending)
    for job_id, _ in redis.zrange(ACTIVE, 0, -1, withscores=True):
        assert client.delete(f"/jobs/{job_id.decode()}").status_code == 200
    assert {answer.result(60).json()["state"] for answer in pending} == {"cancelled"}


def _request(headers: dict[str, str]) -> Request:
    return Request({"type": "http", "headers": [(k.encode(), v.encode()) for k, v in headers.items()]})


@pytest.mark.parametrize("with_key", [False, True])
def test_an_archive_that_was_waited_for_counts_for_who_asked_whatever_it_calls_itself(
    client, redis: Redis, problem: Callable[..., Any], work_on, monkeypatch: pytest.MonkeyPatch, with_key: bool
) -> None:
    """For its key, or else for its address, as the archive of a finished job does."""
    monkeypatch.setattr(views, "LIGHT_BYTES", 0)
    archives, payer, headers = client.app.state.context.archives, "address/127.0.0.1", {"Accept": views.NPZ}
    if with_key:
        key, secret = Keys(redis).create("alice")
        payer, headers = key.client, {**headers, "Authorization": f"Bearer {secret}"}
    counted: list[str] = []
    rest = archives.pace.rest

    async def resting(who: str, seconds: float) -> None:
        assert archives.downloads == {who: 1}
        counted.append(who)
        await rest(who, seconds)

    monkeypatch.setattr(archives.pace, "rest", resting)
    sent = work_on(client.begin("POST", "/samples", json={"count": 2}, headers={**headers, "Client-Id": "alice"}))
    assert sent.status_code == 200, sent.text
    assert set(counted) == {payer}
    archives.downloads[payer] = archives.most_downloads  # as many as are being sent
    asked = client.begin("POST", "/samples", json={"count": 2}, headers={**headers, "Client-Id": "bob"})
    refused = work_on(asked)
    assert "archives of yours are being sent" in problem(refused, 429, "quota-exceeded")["detail"]
    job = client.get(refused.headers["location"], headers=headers | {"Client-Id": "bob", "Accept": "*/*"})
    assert job.json()["state"] == "finished", "and the images are there later"
    assert archives.downloads == {payer: archives.most_downloads}


def test_many_who_wait_cost_redis_no_connections(
    new_client, settings, redis: Redis, until: Callable[..., None]
) -> None:
    """Of one client only so many may wait, and who may not has nothing accepted."""
    client = new_client(settings.model_copy(update={"max_client_waits": 200}))
    context = client.app.state.context
    pending = [client.begin("POST", "/samples", json={}, headers={"Prefer": "wait=60"}) for _ in range(200)]
    until(lambda: redis.zcard(ACTIVE) == 200)
    refused = client.post("/samples", json={}, headers={"Accept": "image/png"})
    assert refused.status_code == 429
    told = "of yours there are 200 requests that wait, and this is 1 more: at most 200 at once are allowed"
    assert refused.json()["detail"] == told
    assert redis.zcard(ACTIVE) == 200
    assert client.post("/samples", json={}).status_code == 202, "who does not wait is none of them"
    time.sleep(1)
    assert not any(answer.done() for answer in pending)
    assert len(redis.client_list()) < 40

    async def stop() -> None:
        context.stop()

    client.call(stop())
    assert {answer.result(60).status_code for answer in pending} == {202}
    assert context.waits.taken == 0
