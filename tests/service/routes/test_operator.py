"""/operator: everybody's jobs, keys, and models that are drained; for who has an operator's key."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from service.access.keys import Key, Keys
from worker.queue.jobs import CANCELLED_BY_OPERATOR

Check = Callable[..., Any]
Header = dict[str, str]
NOBODY = 24 * "0"
ASKED = (
    ("GET", "/operator/jobs"),
    ("HEAD", "/operator/jobs"),
    ("POST", f"/operator/jobs/{NOBODY}/cancel"),
    ("GET", "/operator/keys"),
    ("POST", f"/operator/keys/{12 * '0'}/suspend"),
    ("POST", f"/operator/keys/{12 * '0'}/resume"),
    ("GET", "/operator/models"),
    ("POST", "/operator/models/tiny/drain"),
    ("POST", "/operator/models/tiny/resume"),
    ("GET", "/operator"),
    ("GET", "/operator/nothing"),
)


@pytest.fixture
def new_key(redis: Redis) -> Callable[..., tuple[Key, Header]]:
    """Makes a key; returns it, and the header that shows it."""

    def make(name: str, **may: Any) -> tuple[Key, Header]:
        key, secret = Keys(redis).create(name, **may)
        return key, {"Authorization": f"Bearer {secret}"}

    return make


@pytest.fixture
def operator(new_key) -> Header:  # type: ignore[no-untyped-def]
    header: Header = new_key("somebody", operator=True)[1]
    return header


@pytest.fixture
def alice(new_key) -> tuple[Key, Header]:  # type: ignore[no-untyped-def]
    found: tuple[Key, Header] = new_key("alice")
    return found


def submit(client: Any, headers: Header, **body: Any) -> str:
    response = client.post("/samples", json={"count": 1, **body}, headers=headers)
    assert response.status_code == 202, response.text
    job_id: str = response.json()["id"]
    return job_id


def test_whatever_is_for_operators_is_asked_for_here(client) -> None:
    paths = client.app.openapi()["paths"]
    routes = {(m.upper(), path) for path, methods in paths.items() if path.startswith("/operator") for m in methods}
    values = {"{job_id}": NOBODY, "{key_id}": 12 * "0", "{name}": "tiny"}
    for name, value in values.items():
        routes = {(method, path.replace(name, value)) for method, path in routes}
    assert routes <= set(ASKED)


def test_nobody_else_may_any_of_it(client, problem: Check, new_key, redis: Redis) -> None:
    """Nor does anybody in a service without keys, where whoever comes may all else."""
    for method, path in ASKED:
        assert client.begin(method, path).result(60).status_code == 401, f"{method} {path}"
    _, other = new_key("bob")
    for method, path in ASKED:
        answer = client.begin(method, path, headers=other).result(60)
        assert answer.status_code == 403, f"{method} {path}"
        if method != "HEAD":
            assert "--operator" in problem(answer, 403, "forbidden")["detail"]
    assert redis.exists("scoreserve:drained") == 0


def test_a_key_that_may_look_only_may_no_more_as_an_operator(client, new_key, problem: Check) -> None:
    _, headers = new_key("looks", operator=True, read_only=True)
    for method, path in ASKED[:-2]:
        answer = client.begin(method, path, headers=headers).result(60)
        assert answer.status_code == (403 if method == "POST" else 200), f"{method} {path}"


def test_jobs_of_all_are_listed_and_those_of_one_client_to_the_end(client, operator, alice, new_key, work) -> None:
    key, headers = alice
    other, others = new_key("bob")
    ended = submit(client, headers)
    work()
    waiting, theirs = submit(client, headers), submit(client, others)

    def listed(query: str = "") -> list[tuple[str, str]]:
        answer = client.get(f"/operator/jobs{query}", headers=operator).json()
        return [(entry["client"], entry["job"]["id"]) for entry in answer["jobs"]]

    assert listed() == [(other.client, theirs), (key.client, waiting)]
    assert listed(f"?client={key.client}") == [(key.client, waiting), (key.client, ended)]
    assert listed(f"?client={key.client}&state=finished") == [(key.client, ended)]
    assert listed("?model=another") == []
    first = client.get("/operator/jobs?limit=1", headers=operator)
    assert first.headers["link"].startswith("</operator/jobs?limit=1&cursor=")
    assert listed(f"?limit=1&cursor={first.json()['next']}") == [(key.client, waiting)]
    assert client.get(f"/jobs/{waiting}/grid.png", headers=operator).status_code == 404, "images are their client's"


def test_a_job_of_anybody_is_cancelled_and_its_client_is_told(client, operator, alice, problem: Check) -> None:
    key, headers = alice
    job = submit(client, headers)
    answer = client.post(f"/operator/jobs/{job}/cancel", headers=operator)
    assert (answer.json()["client"], answer.json()["job"]["state"]) == (key.client, "cancelled")
    assert client.get(f"/jobs/{job}", headers=headers).json()["error"] == CANCELLED_BY_OPERATOR
    problem(client.post(f"/operator/jobs/{job}/cancel", headers=operator), 409, "already-ended")
    problem(client.post(f"/operator/jobs/{NOBODY}/cancel", headers=operator), 404, "not-found")


def test_keys_are_listed_with_what_they_spent_and_without_a_secret(client, operator, alice) -> None:
    key, headers = alice
    submit(client, headers)
    client.call(client.app.state.context.usage.add())
    answer = client.get("/operator/keys", headers=operator)
    found = {entry["name"]: entry for entry in answer.json()}
    assert (found["somebody"]["operator"], found["alice"]["operator"]) == (True, False)
    assert found["alice"]["id"] == key.id
    assert (found["alice"]["spent"]["jobs"], found["alice"]["spent"]["requests"]) == (1, 1)
    assert found["alice"]["used_at"] is not None
    assert key.secret_sha256 not in answer.text
    assert headers["Authorization"][-43:] not in answer.text


@pytest.mark.parametrize("cancel_jobs", [False, True])
def test_a_key_is_suspended_and_resumed(client, operator, alice, problem: Check, cancel_jobs: bool) -> None:
    key, headers = alice
    job = submit(client, headers)
    answer = client.post(f"/operator/keys/{key.id}/suspend?cancel_jobs={cancel_jobs}", headers=operator).json()
    assert (answer["key"]["suspended"], answer["cancelled"]) == (True, int(cancel_jobs))
    time.sleep(1.1)
    assert "suspended" in problem(client.get("/models", headers=headers), 401, "unauthorized")["detail"]
    assert client.post(f"/operator/keys/{key.id}/resume", headers=operator).json()["key"]["suspended"] is False
    time.sleep(1.1)
    state = client.get(f"/jobs/{job}", headers=headers).json()["state"]
    assert state == ("cancelled" if cancel_jobs else "queued")
    problem(client.post(f"/operator/keys/{12 * '0'}/suspend", headers=operator), 404, "not-found")


def test_a_drained_model_takes_nothing_new_and_what_it_has_is_done(
    client, operator, alice, problem: Check, work
) -> None:
    _, headers = alice
    once = headers | {"Idempotency-Key": "before"}
    job = submit(client, once)
    drained = client.post("/operator/models/tiny/drain", headers=operator).json()
    assert (drained["name"], drained["jobs"]) == ("tiny", 1)
    again = client.post("/operator/models/tiny/drain", headers=operator).json()
    assert again["drained_at"] == drained["drained_at"] is not None
    refused = client.post("/samples", json={"count": 1}, headers=headers)
    assert "tiny" in problem(refused, 409, "drained")["detail"]
    assert submit(client, once) == job, "it was accepted before"
    work()
    assert client.get(f"/jobs/{job}", headers=headers).json()["state"] == "finished"
    states = {state["name"]: state for state in client.get("/operator/models", headers=operator).json()}
    assert states["tiny"] == {"name": "tiny", "drained_at": drained["drained_at"], "jobs": 0}
    resumed = client.post("/operator/models/tiny/resume", headers=operator).json()
    assert resumed == {"name": "tiny", "drained_at": None, "jobs": 0}
    submit(client, headers)
    for what in ("drain", "resume"):
        problem(client.post(f"/operator/models/none/{what}", headers=operator), 404, "not-found")
