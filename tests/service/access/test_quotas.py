"""Quotas: per client and for all, over two applications and many clients at once."""

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from tests.clocks import set_back

KEPT = "scoreserve:client:name/a:kept"
JOB = 13  # image-steps of one image of `tiny`


@pytest.fixture
def pace(redis: Redis) -> None:
    """A worker that makes 10 image-steps a second."""
    redis.sadd("rq:workers", "rq:worker:one")
    redis.hset("rq:worker:one", "pace", json.dumps({"tiny": [0.1, 10.0]}))


def test_requests_a_minute_hold_over_two_services(new_client, settings, problem: Callable[..., Any]) -> None:
    both = [new_client(settings.model_copy(update={"requests_per_minute": 20})) for _ in range(2)]
    pending = [both[i % 2].begin("GET", "/models", headers={"Client-Id": "a"}) for i in range(50)]
    answers = [answer.result(30) for answer in pending]
    assert Counter(answer.status_code for answer in answers) in (
        Counter({200: 20, 429: 30}),
        Counter({200: 21, 429: 29}),  # three seconds may have passed
    )
    left = [int(re.search(r"r=(\d+)", answer.headers["ratelimit"])[1]) for answer in answers]  # type: ignore[index]
    assert sorted(left)[-20:] == list(range(20))
    refused = next(answer for answer in answers if answer.status_code == 429)
    problem(refused, 429, "rate-limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 3
    assert refused.headers["ratelimit-policy"] == '"requests";q=20;w=60'
    assert both[0].get("/models", headers={"Client-Id": "b"}).status_code == 200
    assert both[0].get("/healthz").status_code == 200


def test_who_has_a_limit_of_requests_can_cancel_where_redis_is_full(new_client, settings, redis: Redis) -> None:
    client = new_client(settings.model_copy(update={"requests_per_minute": 60}))
    job = client.submit(count=1)
    redis.config_set("maxmemory", 1)
    try:
        assert client.post("/samples", json={}).status_code == 503
        assert client.delete(job["links"]["self"]).status_code == 200
    finally:
        redis.config_set("maxmemory", 0)


def test_the_bucket_fills_again(new_client, settings, redis: Redis, until: Callable[..., None]) -> None:
    client = new_client(settings.model_copy(update={"requests_per_minute": 60}))
    headers = {"Client-Id": "a"}
    key = "scoreserve:rate:name/a"
    now, micro = redis.time()
    redis.set(key, now + micro / 1e6 + 59.5)  # when it would be full
    refused = client.get("/models", headers=headers)
    assert refused.status_code == 429
    until(lambda: client.get("/models", headers=headers).status_code == 200, 2)
    assert 0 < redis.pttl(key) <= 60_000, "it is forgotten when it is full"


@pytest.mark.usefixtures("pace")
def test_image_steps_in_flight_hold_over_two_services(
    new_client, settings, redis: Redis, problem: Callable[..., Any]
) -> None:
    """However many ask at once: the last one that fits is accepted, and no more."""
    limited = settings.model_copy(update={"max_client_image_steps": 10 * 2 * JOB + 5})
    both = [new_client(limited) for _ in range(2)]
    pending = [
        both[i % 2].begin("POST", "/samples", json={"count": 2}, headers={"Client-Id": "ab"[i // 50]})
        for i in range(100)
    ]
    answers = [answer.result(30) for answer in pending]
    for fifty in (answers[:50], answers[50:]):
        assert Counter(answer.status_code for answer in fifty) == Counter({202: 10, 429: 40})
    assert redis.hgetall("scoreserve:load") == {b"name/a": b"260", b"name/b": b"260", b"all": b"520"}
    refused = next(answer for answer in answers if answer.status_code == 429)
    problem(refused, 429, "quota-exceeded")
    assert '"image-steps-in-flight";q=265' in refused.headers["ratelimit-policy"]


@pytest.mark.usefixtures("pace")
def test_retry_after_is_when_there_will_be_room(new_client, settings, problem: Callable[..., Any]) -> None:
    """10 image-steps a second; of the job's 130 only 104 are too much, and another client takes turns meanwhile."""
    client = new_client(settings.model_copy(update={"max_client_image_steps": 22 * JOB}))
    ask = {"json": {"count": 10}, "headers": {"Client-Id": "a"}}
    client.submit(count=1)
    for _ in range(2):
        assert client.post("/samples", **ask).status_code == 202
    client.app.state.context.queue.forecast._looked_at = 0.0
    refused = client.post("/samples", **ask)
    assert "260 of the client's 286" in problem(refused, 429, "quota-exceeded")["detail"]
    assert int(refused.headers["retry-after"]) == 12, "104 of its own and 13 of the other's"
    too_large = client.post("/samples", json={"count": 23}, headers={"Client-Id": "a"})
    assert "at most 286" in problem(too_large, 422, "invalid")["errors"][0]["allowed"]


@pytest.mark.usefixtures("pace")
def test_a_full_queue_is_busy_until_there_is_room(new_client, settings, problem: Callable[..., Any]) -> None:
    client = new_client(settings.model_copy(update={"max_queue_image_steps": 30 * JOB, "max_queue_jobs": 3}))
    job = client.submit(count=20)
    refused = client.post("/samples", json={"count": 20}, headers={"Client-Id": "b"})
    problem(refused, 503, "busy")
    assert int(refused.headers["retry-after"]) == 13, "130 image-steps too much"
    for _ in range(2):
        client.submit(count=2)
    refused = client.post("/samples", json={"count": 1})
    assert "3 jobs wait" in problem(refused, 503, "busy")["detail"]
    assert int(refused.headers["retry-after"]) == 11, "a mean job is 104 image-steps"
    client.delete(job["links"]["self"])
    assert client.post("/samples", json={"count": 1}).status_code == 202


def test_where_no_pace_is_known_retry_after_is_a_minute(new_client, settings) -> None:
    client = new_client(settings.model_copy(update={"max_queue_jobs": 1}))
    client.submit()
    assert client.post("/samples", json={}).headers["retry-after"] == "60"


def test_nobody_is_shut_out_by_a_clock_that_is_set_back(new_client, settings, redis: Redis) -> None:
    client = new_client(settings.model_copy(update={"requests_per_minute": 60}))
    for _ in range(3):
        assert client.get("/models", headers={"Client-Id": "a"}).status_code == 200
    set_back(redis, 3600)
    refused = client.get("/models", headers={"Client-Id": "a"})
    assert int(refused.headers.get("retry-after", "0")) <= 1


@pytest.mark.parametrize("results", ["none", "directory"])
def test_what_a_client_may_have_kept_has_a_limit(
    results: str, request: pytest.FixtureRequest, new_client, settings, redis: Redis, work, problem: Callable[..., Any]
) -> None:
    """Bytes of images: those that are being made, and those of jobs that have ended, until they are forgotten."""
    url = None if results == "none" else request.getfixturevalue("directory_url")
    options = {"max_client_bytes": 10 * 64, "results_url": url, "results_in_redis_bytes": 0, "result_ttl_seconds": 500}
    both = [new_client(settings.model_copy(update=options)) for _ in range(2)]

    def ask(client: int = 0, **body: Any) -> Any:
        return both[client].post("/samples", json=body, headers={"Client-Id": "a"})

    first, second = ask(count=4), ask(1, count=2, frames=2)
    assert (first.status_code, second.status_code) == (202, 202)
    refused = ask(count=3)
    assert "512 of the client's 640 bytes" in problem(refused, 429, "storage-exceeded")["detail"]
    assert refused.headers["retry-after"] == "500", "as long as they will be kept, once they are made"
    assert ask(count=2).status_code == 202
    assert both[0].post("/samples", json={"count": 10}, headers={"Client-Id": "b"}).status_code == 202
    too_large = both[0].post("/samples", json={"count": 6, "frames": 2}, headers={"Client-Id": "c"})
    assert "at most 640 bytes" in problem(too_large, 422, "invalid")["errors"][0]["allowed"]
    work()
    refused = ask(count=1)
    problem(refused, 429, "storage-exceeded")
    assert 490 <= int(refused.headers["retry-after"]) <= 500, "until what was made first is forgotten"
    at = redis.zscore(KEPT, f"{first.json()['id']} 256")
    assert at is not None
    redis.zadd(KEPT, {f"{first.json()['id']} 256": at - 501})
    assert ask(count=4).status_code == 202, "one is forgotten"
    assert ask(count=1).status_code == 429


def test_what_was_cancelled_is_not_kept_and_nothing_is_left_of_clients_who_are_gone(
    new_client, settings, redis: Redis, work
) -> None:
    client = new_client(settings.model_copy(update={"max_client_bytes": 10 * 64, "result_ttl_seconds": 500}))
    headers = {"Client-Id": "a"}
    for _ in range(5):
        job = client.post("/samples", json={"count": 10}, headers=headers)
        assert job.status_code == 202
        assert redis.ttl(KEPT) == redis.ttl(f"{KEPT[:-4]}bytes") == -1, "of what is being made nobody knows until when"
        assert client.post(f"{job.json()['links']['self']}/cancel", headers=headers).status_code == 200
    assert not redis.keys("scoreserve:client:name/a:[kb]*")
    for count in (6, 4):
        assert client.post("/samples", json={"count": count}, headers=headers).status_code == 202
        assert redis.ttl(KEPT) == redis.ttl(f"{KEPT[:-4]}bytes") == -1, "nor beside what has ended"
        work()
        for key in (KEPT, f"{KEPT[:-4]}bytes"):
            assert 490 <= redis.ttl(key) <= 501
    assert client.post("/samples", json={"count": 1}, headers=headers).status_code == 429


def test_a_service_without_the_limit_takes_all(new_client, settings) -> None:
    client = new_client(settings.model_copy(update={"max_client_bytes": None}))
    for _ in range(3):
        client.submit(count=1000)
