"""A record in Redis that is damaged harms itself: no list, stream or measurement of others fails for it."""

from collections.abc import Callable

import pytest
from redis import Redis

from tests.worker.test_damage import RECORDS

Damage = Callable[[Redis, str], object]


@pytest.mark.parametrize("name", RECORDS)
def test_others_are_listed_and_what_is_damaged_is_not_there(client, redis: Redis, name: str) -> None:
    damaged, other = client.submit(count=2)["id"], client.submit(count=2)["id"]
    RECORDS[name](redis, damaged)
    listed = client.get("/jobs")
    assert listed.status_code == 200
    assert other in [job["id"] for job in listed.json()["jobs"]]
    assert client.get(f"/jobs/{other}").status_code == 200
    for method, url in (
        ("GET", f"/jobs/{damaged}"),
        ("GET", f"/jobs/{damaged}/grid.png"),
        ("GET", f"/jobs/{damaged}/events"),
        ("DELETE", f"/jobs/{damaged}"),
    ):
        if name.startswith(("without", "weight")):
            continue  # what the service does not read it does not miss
        assert client.begin(method, url).result(60).status_code == 404, f"{method} {url}"
    for url in ("/workers", "/metrics", "/readyz", "/models"):
        assert client.get(url).status_code in (200, 503), url
    assert client.post("/samples", json={"count": 1}).status_code == 202


def test_an_event_that_is_damaged_is_left_out(client, redis: Redis, work: Callable[[], None]) -> None:
    job = client.submit(count=2)["id"]
    key = f"scoreserve:job:{job}:events"
    for entry in (
        {"event": "progress"},
        {"event": "odd"},
        {"x": "y"},
        {"event": "progress", "state": "z", "done": "1"},
    ):
        redis.xadd(key, entry)
    redis.xadd(key, {b"event": b"\xff"})
    pending = client.begin("GET", f"/jobs/{job}/events", headers={"Last-Event-ID": "0-1"})
    work()
    stream = pending.result(60)
    assert stream.status_code == 200
    assert stream.text.count("event: done") == 1
    assert "odd" not in stream.text


def test_a_state_of_a_key_that_is_none_leaves_the_service_as_it_was(client, redis: Redis) -> None:
    redis.set("scoreserve-keys:state", b"\xff")
    assert client.get("/models").status_code == 200
    redis.delete("scoreserve-keys")
    redis.set("scoreserve-keys", "x")
    assert client.get("/models").status_code in (200, 401, 503)
