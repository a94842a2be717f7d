"""Keys: who may ask, and whose jobs are whose."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from service.access import auth
from service.access.keys import KEEP_SECONDS, KEYS, USED, Keys

Header = dict[str, str]
OF_A_JOB = (
    "",
    "/events",
    "/grid.png",
    "/images/0.png",
    "/samples.npz",
    "/images.zip",
    "/animation.webp",
    "/animation.gif",
    "/filmstrip.png",
    "/frames",
)


@pytest.fixture
def new_key(redis: Redis) -> Callable[..., Header]:
    """Makes a key, and returns the header that shows it."""

    def make(name: str = "alice", **may: Any) -> Header:
        _, secret = Keys(redis).create(name, **may)
        return {"Authorization": f"Bearer {secret}"}

    return make


def test_without_keys_nobody_needs_one(client) -> None:
    assert client.post("/samples", json={}).status_code == 202


@pytest.mark.usefixtures("work")
def test_another_client_sees_nothing(client, new_key: Callable[..., Header], work, problem) -> None:
    """Whatever is asked of another's job is answered as if there were none, to the letter."""
    alice, bob = new_key("alice"), new_key("bob")
    body = {"count": 2, "frames": 2}
    done = client.post("/samples", json=body, headers=alice).json()["id"]
    work()
    waiting = client.post("/samples", json=body, headers=alice).json()["id"]
    assert [client.get(f"/jobs/{done}{view}", headers=alice).status_code for view in OF_A_JOB] == [200] * len(OF_A_JOB)
    nobodys = 24 * "0"
    asked = [(method, view) for view in OF_A_JOB for method in ("GET", "HEAD")]
    for job in (done, waiting):
        for method, view in [("DELETE", ""), ("POST", "/cancel"), *asked]:
            answers = [client.begin(method, f"/jobs/{i}{view}", headers=bob).result(60) for i in (job, nobodys)]
            assert answers[0].headers.keys() == answers[1].headers.keys()
            assert answers[0].status_code == answers[1].status_code == 404, f"{method} {view}"
            if method == "HEAD":
                continue
            said = [
                {k: v for k, v in problem(answer, 404, "not-found").items() if k != "request_id"} for answer in answers
            ]
            assert str(said[0]).replace(job, nobodys) == str(said[1])
    assert client.get(f"/jobs/{waiting}", headers=alice).json()["state"] == "queued"
    assert client.get(f"/jobs/{waiting}", headers=bob | {"Client-Id": "alice"}).status_code == 404


def test_whatever_is_of_a_job_is_asked_for_above(client) -> None:
    routes = {
        path.replace("{index}", "0") for path, methods in client.app.openapi()["paths"].items() if "get" in methods
    }
    assert {f"/jobs/{{job_id}}{view}" for view in OF_A_JOB} == {r for r in routes if r.startswith("/jobs/{job_id}")}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: {},
        lambda key: {"Authorization": ""},
        lambda key: {"Authorization": "Bearer"},
        lambda key: {"Authorization": key.removeprefix("Bearer ")},
        lambda key: {"Authorization": key.replace("Bearer", "Basic")},
        lambda key: {"Authorization": key[:-1]},
        lambda key: {"Authorization": key + "A"},
        lambda key: {"Authorization": key[:-1] + ("A" if key[-1] != "A" else "B")},
        lambda key: {"Authorization": key.replace(key[11:23], "0" * 12)},
        lambda key: {"Authorization": "Bearer ssk_" + key[11:23] + "_"},
        lambda key: {"Authorization": "Bearer ssk_" + "é" * 12},
    ],
)
def test_who_has_no_key_may_nothing(client, new_key, redis: Redis, problem, spoil: Callable[[str], Header]) -> None:
    headers = {name: value.encode() for name, value in spoil(new_key()["Authorization"]).items()}
    for method, url in (("POST", "/samples"), ("GET", "/models"), ("GET", f"/jobs/{24 * '0'}"), ("GET", "/nowhere")):
        response = client.begin(method, url, headers=headers).result(60)
        problem(response, 401, "unauthorized")
        assert response.headers["www-authenticate"].startswith("Bearer")
    assert redis.keys("scoreserve:*") == []


def test_what_is_open_stays_open(client, new_key) -> None:
    new_key()
    for url in ("/healthz", "/metrics", "/problems", "/problems/unauthorized", "/docs", "/openapi.json"):
        assert client.get(url).status_code == 200, url
    assert client.get("/readyz").status_code == 503


def test_a_key_may_be_required_before_there_is_one(new_client, settings, problem, new_key) -> None:
    client = new_client(settings.model_copy(update={"require_key": True}))
    problem(client.get("/models"), 401, "unauthorized")
    assert client.get("/models", headers=new_key()).status_code == 200, "a new key opens at once"


def test_the_first_key_counts_at_once(client, new_key, redis: Redis) -> None:
    client.submit()
    alice = new_key("alice")
    client.post("/samples", json={}, headers=alice)
    assert {name.partition(b"/")[0] for name in redis.hkeys("scoreserve:load")} == {b"address", b"key", b"all"}


def test_a_revoked_key_is_worthless_within_a_second(client, new_key, redis: Redis) -> None:
    alice = new_key("alice")
    new_key("bob")
    assert client.get("/models", headers=alice).status_code == 200
    keys = Keys(redis)
    keys.revoke(keys.all()[0].id)
    time.sleep(KEEP_SECONDS + 0.05)
    assert client.get("/models", headers=alice).status_code == 401


@pytest.mark.parametrize("shown", [True, False])
def test_of_many_requests_at_once_none_is_let_in_by_what_was_known_before(
    client, new_key, redis: Redis, shown: bool
) -> None:
    """However long that was: of a key that was revoked meanwhile, and of a service that had none."""
    header = new_key() if shown else {}
    assert client.get("/models", headers=header).status_code == 200
    keys = Keys(redis)
    if shown:
        keys.revoke(keys.all()[0].id)
    else:
        new_key()
    time.sleep(KEEP_SECONDS + 0.05)
    before = redis.info("commandstats")["cmdstat_exists"]["calls"]

    async def ask() -> list[int]:
        asked = [client._http.get("/models", headers=header) for _ in range(10)]
        return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert client.call(ask()) == [401] * 10
    assert redis.info("commandstats")["cmdstat_exists"]["calls"] - before <= 2, "one reads for all"


def test_when_a_key_was_used_last_is_written_down_once_a_minute(
    client, new_key, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, keys = new_key("alice"), Keys(redis)
    (key,) = keys.all()
    client.get("/models", headers={"Authorization": alice["Authorization"][:-1] + "."})
    assert keys.used() == {}, "by whom does not know it"
    client.get("/models", headers=alice)
    assert keys.used()[key.id] == pytest.approx(time.time(), abs=60)
    redis.hset(USED, key.id, 1)
    client.get("/models", headers=alice)
    assert keys.used() == {key.id: 1.0}
    monkeypatch.setattr(auth, "NOTE_SECONDS", 0.0)
    client.get("/models", headers=alice)
    assert keys.used()[key.id] > 1
    keys.revoke(key.id)
    client.get("/models", headers=alice)  # which the service may know for a moment yet
    assert keys.used() == {}


def test_a_service_that_had_keys_stays_closed(client, new_client, settings, new_key, redis: Redis, problem) -> None:
    """Though they are gone: revoked, or with the Redis that had them."""
    client.submit()
    alice = new_key()
    assert client.get("/models", headers=alice).status_code == 200
    keys = Keys(redis)
    keys.revoke(keys.all()[0].id)
    time.sleep(KEEP_SECONDS + 0.05)
    problem(client.get("/models"), 401, "unauthorized")
    problem(new_client(settings).get("/models"), 401, "unauthorized")
    redis.flushall()
    time.sleep(KEEP_SECONDS + 0.05)
    problem(client.get("/models"), 401, "unauthorized")
    problem(client.get("/models", headers=alice), 401, "unauthorized")
    assert keys.open()
    time.sleep(KEEP_SECONDS + 0.05)
    assert client.get("/models").status_code == 200


def test_a_wrong_key_costs_no_reading_of_all(client, new_key, redis: Redis, problem) -> None:
    alice = new_key()
    assert client.get("/models", headers=alice).status_code == 200
    before = redis.info("commandstats")
    for number in range(20):
        wrong = {"Authorization": f"Bearer ssk_{number:012x}_{43 * 'A'}"}
        problem(client.get("/models", headers=wrong), 401, "unauthorized")
    after = redis.info("commandstats")
    assert after.get("cmdstat_hgetall") == before.get("cmdstat_hgetall")
    assert after["cmdstat_hget"]["calls"] - before["cmdstat_hget"]["calls"] <= 20
    wrong = {"Authorization": alice["Authorization"][:-4] + "AAAA"}
    before = redis.info("commandstats")["cmdstat_hget"]["calls"]
    for _ in range(20):
        problem(client.get("/models", headers=wrong), 401, "unauthorized")
    assert redis.info("commandstats")["cmdstat_hget"]["calls"] - before <= 20 / 2, "its id is known"


@pytest.mark.parametrize("record", ["", "{", "null", "{}", "[]", '{"id": "another"}', "\udcff"])
def test_a_record_that_cannot_be_read_harms_itself_only(client, new_key, redis: Redis, problem, record: str) -> None:
    alice, bob = new_key("alice"), new_key("bob")
    redis.hset(KEYS, alice["Authorization"][11:23], record.encode(errors="surrogateescape"))
    problem(client.get("/models", headers=alice), 401, "unauthorized")
    assert client.get("/models", headers=bob).status_code == 200
    problem(client.get("/models"), 401, "unauthorized")
    assert [key.name for key in Keys(redis).all()] == ["bob"]


def test_a_key_is_no_other_by_its_place(client, new_key, redis: Redis, problem) -> None:
    alice = new_key()
    (record,) = redis.hvals(KEYS)
    redis.hset(KEYS, "0" * 12, record)
    moved = {"Authorization": alice["Authorization"].replace(alice["Authorization"][11:23], "0" * 12)}
    problem(client.get("/models", headers=moved), 401, "unauthorized")


def test_a_suspended_and_an_expired_key_open_nothing(client, new_key, redis: Redis, problem) -> None:
    expired, alice = new_key("old", expires_at=time.time() - 1), new_key("alice")
    assert "expired" in problem(client.get("/models", headers=expired), 401, "unauthorized")["detail"]
    keys, key_id = Keys(redis), alice["Authorization"][11:23]
    for suspended, status in ((True, 401), (False, 200)):
        keys.change(key_id, suspended=suspended)
        time.sleep(KEEP_SECONDS + 0.05)
        assert client.get("/models", headers=alice).status_code == status
    wrong = {"Authorization": expired["Authorization"][:-4] + "AAAA"}
    assert "expired" not in client.get("/models", headers=wrong).text, "who has not the secret is told nothing"


def test_a_key_that_may_only_look(client, new_key, problem) -> None:
    alice, looker = new_key("alice"), new_key("looker", read_only=True)
    job = client.post("/samples", json={}, headers=alice).json()["id"]
    for url in ("/models", "/jobs", "/workers"):
        assert client.get(url, headers=looker).status_code == 200
    for method, url in (("POST", "/samples"), ("POST", f"/jobs/{job}/cancel"), ("DELETE", f"/jobs/{job}")):
        problem(client.begin(method, url, headers=looker).result(60), 403, "forbidden")


@pytest.mark.parametrize(
    ("may", "asked", "pointer", "allowed"),
    [
        ({}, {"priority": "high"}, "/priority", "normal, low"),
        ({"priority": "low"}, {}, "/priority", "low"),
        ({"models": ["other"]}, {}, "/model", "other"),
        ({"models": []}, {"model": "tiny"}, "/model", "none at all"),
    ],
)
def test_a_key_reaches_no_further(client, new_key, problem, may, asked, pointer: str, allowed: str) -> None:
    refused = problem(client.post("/samples", json=asked, headers=new_key(**may)), 403, "forbidden")
    assert refused["errors"] == [
        {"pointer": pointer, "reason": refused["detail"].partition(": ")[2], "allowed": allowed}
    ]
    reaches = new_key(priority="high", models=["tiny"])
    assert client.post("/samples", json=asked, headers=reaches).status_code == 202


def test_a_completion_reaches_no_further_either(client, new_key, problem, picture, half_mask, png) -> None:
    files = {"image": png(picture), "mask": png(half_mask)}
    answer = client.post("/inpaint", files=files, data={"priority": "high"}, headers=new_key())
    problem(answer, 403, "forbidden")


def test_who_waits_with_a_key_that_ends_is_told(client, new_key, redis: Redis, until, problem) -> None:
    alice = new_key()
    waits = client.begin("POST", "/samples", json={}, headers=alice | {"Prefer": "wait=60"})
    until(lambda: redis.exists("scoreserve:active"))
    Keys(redis).revoke(alice["Authorization"][11:23])
    problem(waits.result(10), 401, "unauthorized")


def test_a_stream_ends_with_the_key(client, new_key, redis: Redis, until) -> None:
    alice, bob = new_key("alice"), new_key("bob")
    streams = {}
    for name, key in (("alice", alice), ("bob", bob)):
        job = client.post("/samples", json={}, headers=key).json()["id"]
        streams[name] = client.begin("GET", f"/jobs/{job}/events", headers=key)
    until(lambda: len(client.app.state.context.events._streams) == 2)
    Keys(redis).revoke(alice["Authorization"][11:23])
    assert "this key opens nothing any more" in streams["alice"].result(20).text
    assert not streams["bob"].done()
    client.app.state.context.events.stop()
    assert "the service stops" in streams["bob"].result(20).text


def test_redis_does_not_hold_the_secret(new_key, redis: Redis) -> None:
    secret = new_key()["Authorization"].rpartition("_")[2]
    for value in (*redis.hgetall(KEYS), *redis.hvals(KEYS)):
        assert secret.encode() not in value


def test_a_worker_cannot_read_keys(worker_url: str) -> None:
    with Redis.from_url(worker_url) as worker, pytest.raises(NoPermissionError):
        worker.hgetall(KEYS)


def test_while_redis_is_away_a_known_key_is_told_the_truth(
    client, new_key, redis: Redis, problem: Callable[..., Any]
) -> None:
    alice = new_key()
    assert client.get("/models", headers=alice).status_code == 200
    client.app.state.context.pulse.stop()
    time.sleep(0.1)
    client.app.state.context.pulse.beats = False
    time.sleep(KEEP_SECONDS)
    assert client.get("/models", headers=alice).status_code == 200
    problem(client.get("/models"), 401, "unauthorized")
    problem(client.post("/samples", json={}, headers=alice), 503, "unavailable")
