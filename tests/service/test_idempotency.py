"""`Idempotency-Key`: what is sent again is accepted once."""

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from redis import Redis

from worker.queue.keys import ACTIVE

KEY = {"Idempotency-Key": "order-1"}


def replayed(response: httpx.Response) -> bool:
    return response.headers.get("idempotent-replayed") == "true"


def test_the_same_request_gives_the_same_job(client, redis: Redis, work: Callable[[], None]) -> None:
    first = client.post("/samples", json={"count": 2}, headers=KEY)
    again = client.post("/samples", json={"count": 2, "priority": "normal"}, headers=KEY)
    assert first.status_code == again.status_code == 202
    assert first.json()["id"] == again.json()["id"]
    assert first.json()["seed"] == again.json()["seed"]
    assert (replayed(first), replayed(again)) == (False, True)
    assert redis.zcard(ACTIVE) == 1
    work()
    ended = client.post("/samples", json={"count": 2}, headers=KEY)
    assert ended.status_code == 200
    assert ended.json()["state"] == "finished"
    images = client.post("/samples", json={"count": 2}, headers={**KEY, "Accept": "image/png"})
    assert images.headers["content-type"] == "image/png"
    assert replayed(images)
    assert client.post("/samples", json={"count": 2}).json()["id"] != first.json()["id"]


def test_another_request_under_the_same_key_is_refused(
    client, redis: Redis, inpaint: Callable[..., httpx.Response], problem: Callable[..., Any]
) -> None:
    job = client.post("/samples", json={"count": 2}, headers=KEY).json()
    for body in ({"count": 3}, {"count": 2, "seed": 1}, {"count": 2, "sampler": {"name": "heun"}}):
        said = problem(client.post("/samples", json=body, headers=KEY), 422, "idempotency-mismatch")
        assert job["id"] in said["detail"]
    assert redis.zcard(ACTIVE) == 1


def test_files_belong_to_the_request(
    client, redis: Redis, problem: Callable[..., Any], png: Callable[[np.ndarray], bytes], picture, half_mask
) -> None:
    def ask(image: np.ndarray, mask: np.ndarray, **fields: Any) -> httpx.Response:
        return client.post("/inpaint", files={"image": png(image), "mask": png(mask)}, data=fields, headers=KEY)

    first = ask(picture, half_mask, count=2)
    again = ask(picture, half_mask, count=2)
    assert (replayed(first), replayed(again)) == (False, True)
    assert first.json()["id"] == again.json()["id"]
    for other in (ask(255 - picture, half_mask, count=2), ask(picture, 255 - half_mask, count=2)):
        problem(other, 422, "idempotency-mismatch")
    problem(ask(picture, half_mask, count=2, fit="crop"), 422, "idempotency-mismatch")
    problem(client.post("/samples", json={"count": 2}, headers=KEY), 422, "idempotency-mismatch")
    assert redis.zcard(ACTIVE) == 1


def test_many_at_once_make_one_job(client, redis: Redis) -> None:
    pending = [client.begin("POST", "/samples", json={"count": 9}, headers=KEY) for _ in range(30)]
    answers = [answer.result(60) for answer in pending]
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum(not replayed(answer) for answer in answers) == 1
    assert redis.zcard(ACTIVE) == 1
    assert redis.hget("scoreserve:totals", "jobs_accepted") == b"1"
    assert redis.llen("rq:queue:scoreserve") == 1, "the shard of one job"


def test_of_many_different_ones_one_is_accepted(client, redis: Redis) -> None:
    pending = [client.begin("POST", "/samples", json={"seed": seed}, headers=KEY) for seed in range(20)]
    statuses = [answer.result(60).status_code for answer in pending]
    assert sorted(statuses) == [202] + [422] * 19
    assert redis.zcard(ACTIVE) == 1


def test_clients_do_not_share_keys(client, redis: Redis) -> None:
    answers = [
        client.post("/samples", json={}, headers={**KEY, "Client-Id": name}) for name in ("alice", "bob", "alice")
    ]
    assert [replayed(answer) for answer in answers] == [False, False, True]
    assert len({answer.json()["id"] for answer in answers}) == 2


def test_a_refused_request_leaves_its_key_free(client, redis: Redis, refusal: Callable[..., str]) -> None:
    refusal(client.post("/samples", json={"count": 0}, headers=KEY), "/count")
    refusal(client.post("/samples", json={"model": "gone"}, headers=KEY), "/model")
    assert redis.dbsize() == 0
    response = client.post("/samples", json={}, headers=KEY)
    assert (response.status_code, replayed(response)) == (202, False)


def test_a_key_is_known_to_every_service_and_after_a_restart(client, new_client, settings) -> None:
    first = client.post("/samples", json={}, headers=KEY)
    client.app.state.context.queue.connection.close()
    again = new_client(settings).post("/samples", json={}, headers=KEY)
    assert replayed(again)
    assert again.json()["id"] == first.json()["id"]


@pytest.mark.parametrize("end", ["finish", "cancel"])
def test_a_key_is_kept_as_long_as_its_job(client, redis: Redis, work: Callable[[], None], end: str) -> None:
    job = client.post("/samples", json={"count": 1}, headers=KEY).json()
    (key,) = redis.keys("scoreserve:once:*")
    assert redis.ttl(key) == -1
    client.delete(f"/jobs/{job['id']}") if end == "cancel" else work()
    assert redis.pexpiretime(key) == redis.pexpiretime(f"scoreserve:job:{job['id']}") > 0
    assert replayed(client.post("/samples", json={"count": 1}, headers=KEY))
    redis.delete(f"scoreserve:job:{job['id']}")
    assert not replayed(client.post("/samples", json={"count": 7}, headers=KEY))


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "é".encode()])
def test_what_is_no_key_is_refused(client, redis: Redis, refusal: Callable[..., str], key: str | bytes) -> None:
    response = client.post("/samples", json={}, headers={"Idempotency-Key": key})
    assert "1 to 255 visible" in refusal(response, "Idempotency-Key")
    assert redis.dbsize() == 0
