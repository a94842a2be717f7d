"""GET /jobs: a client's own jobs in pages; where a job stands in the queue, and what it took."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from redis import Redis

from worker.batching import BatchingWorker
from worker.queue.forecast import PACE

Check = Callable[..., Any]


def ids(page: dict[str, Any]) -> list[str]:
    return [job["id"] for job in page["jobs"]]


@pytest.fixture
def submit(client) -> Callable[..., str]:  # type: ignore[no-untyped-def]
    def make(name: str = "alice", **body: Any) -> str:
        response = client.post("/samples", json={"count": 1, **body}, headers={"Client-Id": name})
        assert response.status_code == 202, response.text
        id_: str = response.json()["id"]
        return id_

    return make


@pytest.fixture
def listed(client) -> Callable[..., dict[str, Any]]:  # type: ignore[no-untyped-def]
    def get(url: str = "/jobs", name: str = "alice", **query: Any) -> dict[str, Any]:
        response = client.get(url, params=query or None, headers={"Client-Id": name})
        assert response.status_code == 200, response.text
        page: dict[str, Any] = response.json()
        assert ("link" in response.headers) == (page["next"] is not None)
        return page

    return get


def test_a_client_sees_its_own_jobs_newest_first(submit, listed, client, work: Callable[[], None]) -> None:
    first, second = submit(), submit()
    other = submit("bob")
    work()
    third = submit()
    assert ids(listed()) == [third, second, first]
    assert ids(listed(name="bob")) == [other]
    assert listed(name="carol") == {"jobs": [], "next": None}
    assert listed()["jobs"][1] == client.get(f"/jobs/{second}").json()


@pytest.mark.parametrize("limit", [1, 3, 7])
def test_pages_lead_through_all_jobs_and_nothing_twice(submit, listed, client, work, limit: int) -> None:
    made = [submit() for _ in range(4)]
    work()
    made += [submit() for _ in range(3)]
    found, url, pages = [], f"/jobs?limit={limit}", 0
    while url:
        response = client.get(url, headers={"Client-Id": "alice"})
        page = response.json()
        assert len(page["jobs"]) <= limit
        found += ids(page)
        pages += 1
        link = response.headers.get("link", "")
        url = link.partition("<")[2].partition(">")[0]
        assert (f"cursor={page['next']}" in url) == bool(url)
        if pages == 1:
            submit()  # what is new does not disturb who is on the way
    assert found == made[::-1]
    assert pages == -(-7 // limit)


def test_jobs_of_one_moment_are_not_lost_between_pages(submit, listed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.queue.jobs.time.time", lambda: 1_800_000_000.25)
    made = {submit() for _ in range(5)}
    page = listed(limit=2)
    found = ids(page)
    while page["next"]:
        page = listed(limit=2, cursor=page["next"])
        found += ids(page)
    assert len(found) == 5
    assert set(found) == made


def test_jobs_are_chosen_by_state_and_model(
    submit, listed, client, work: Callable[[], None], new_worker: Callable[[], BatchingWorker]
) -> None:
    finished = submit()
    work()
    cancelled = submit()
    client.post(f"/jobs/{cancelled}/cancel")
    running = submit()
    worker = new_worker()
    worker._claim()
    worker._beat()
    queued = submit()
    late = submit(deadline_seconds=0.000001)
    expected = {"finished": finished, "cancelled": cancelled, "running": running, "queued": queued, "failed": late}
    for state, job in expected.items():
        assert ids(listed(state=state)) == [job]
    assert ids(listed(state=["queued", "cancelled"])) == [queued, cancelled]
    assert len(ids(listed(model=["tiny", "other"]))) == 5
    assert ids(listed(model="other")) == []
    worker._hand_back()


def test_the_next_page_is_of_what_was_asked_for(submit, listed, client) -> None:
    """`Link` has the whole question: state, model and limit, each as often as it was there."""
    made = [submit() for _ in range(5)]
    client.post(f"/jobs/{made[1]}/cancel")
    client.post(f"/jobs/{made[3]}/cancel")
    query = [("state", "queued"), ("state", "running"), ("model", "tiny"), ("model", "other"), ("limit", "2")]
    response = client.get("/jobs", params=query, headers={"Client-Id": "alice"})
    assert ids(response.json()) == [made[4], made[2]]
    assert response.links["next"]["url"].startswith("/jobs?")
    assert list(httpx.URL(response.links["next"]["url"]).params.multi_items()) == [
        *query,
        ("cursor", response.json()["next"]),
    ]
    assert ids(listed(response.links["next"]["url"])) == [made[0]]


def test_few_of_many_are_found_over_empty_pages(submit, listed, client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.queue.jobs.MOST_LOOKED_AT", 20)
    oldest = submit()
    client.post(f"/jobs/{oldest}/cancel")
    for _ in range(25):
        submit()
    page = listed(state="cancelled", limit=5)
    assert page["jobs"] == []
    assert ids(listed(state="cancelled", limit=5, cursor=page["next"])) == [oldest]


def test_what_is_no_cursor_is_refused(client, refusal: Check) -> None:
    for cursor in ("x", "AAAA", "W10", "WzEsMl0", "W05hTiwieCJd", "é"):
        refusal(client.get("/jobs", params={"cursor": cursor}), "cursor")
    for name, value in (("limit", 0), ("limit", 101), ("state", "done"), ("model", "Ünknown")):
        problem = client.get("/jobs", params={name: value})
        assert problem.status_code == 422
        assert problem.json()["errors"][0]["pointer"].startswith(name)


def test_nothing_is_left_of_the_list_once_its_jobs_are_forgotten(
    new_client, settings, redis: Redis, work: Callable[[], None], until: Callable[..., None]
) -> None:
    client = new_client(settings.model_copy(update={"result_ttl_seconds": 1}))
    short = [client.submit(count=1)["id"] for _ in range(3)]
    work()
    until(lambda: not redis.keys("scoreserve:client:*"))
    with redis.pipeline() as pipeline:  # as if others had come meanwhile
        pipeline.zadd("scoreserve:client:address/127.0.0.1:ended", {id_: 1 for id_ in short})
        pipeline.execute()
    client = new_client(settings)
    last = client.submit(count=1)
    assert [job["id"] for job in client.get("/jobs").json()["jobs"]] == [last["id"]], "the forgotten are not listed"
    work()
    key = "scoreserve:client:address/127.0.0.1:ended"
    assert redis.zrange(key, 0, -1) == [last["id"].encode()], "nor kept"
    assert 0 < redis.ttl(key) <= 3600


def test_a_grid_goes_before_the_many_images_that_its_client_asked_for_first(
    client, submit, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.queue.forecast.KEEP_SECONDS", 0)
    monkeypatch.setattr("worker.queue.forecast.KEEP_FACTOR", 0)
    redis.sadd("rq:workers", "rq:worker:w")
    redis.hset("rq:worker:w", PACE, json.dumps({"tiny": (0.01, 100.0)}))
    many, grid = submit(count=1000), submit()
    assert [client.get(f"/jobs/{job}").json()["queue_position"] for job in (grid, many)] == [0, 1]


def test_a_queued_job_knows_how_many_go_before_it(
    submit, client, new_worker: Callable[[], BatchingWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.queue.forecast.KEEP_SECONDS", 0)
    monkeypatch.setattr("worker.queue.forecast.KEEP_FACTOR", 0)

    def positions(*jobs: str) -> list[int | None]:
        return [client.get(f"/jobs/{job}").json()["queue_position"] for job in jobs]

    large, second, third = submit(count=100), submit(), submit()
    other, urgent = submit("bob"), submit(priority="high")
    assert positions(urgent, other, large, second, third) == [1, 0, 2, 3, 4]
    worker = new_worker()
    worker._claim()
    worker._beat()
    waiting = [p for p in positions(urgent, other, large, second, third) if p is not None]
    assert sorted(waiting) == list(range(len(waiting)))
    assert len(waiting) < 5
    client.delete(f"/jobs/{second}")
    assert positions(second) == [None]
    worker._hand_back()


def test_a_job_just_accepted_has_a_place_before_the_queue_is_looked_at_again(submit, client) -> None:
    first = submit()
    assert client.get(f"/jobs/{first}").json()["queue_position"] == 0
    second, other = submit(), submit("bob")
    assert client.get(f"/jobs/{second}").json()["queue_position"] == 1
    assert client.get(f"/jobs/{other}").json()["queue_position"] in (0, 1)


def test_an_ended_job_tells_what_it_took(submit, client, work: Callable[[], None]) -> None:
    job, cancelled = submit(), submit()
    before = client.get(f"/jobs/{job}").json()
    assert before["queue_seconds"] is before["run_seconds"] is None
    assert client.post(f"/jobs/{cancelled}/cancel").json()["state"] == "cancelled"
    work()
    after = client.get(f"/jobs/{job}").json()
    assert 0 <= after["queue_seconds"] < 60
    assert 0 <= after["run_seconds"] < 60
    never = client.get(f"/jobs/{cancelled}").json()
    assert never["queue_seconds"] is never["run_seconds"] is None


def test_a_job_is_cancelled_by_its_link(submit, client, problem: Check) -> None:
    job = client.get(f"/jobs/{submit()}").json()
    assert client.post(job["links"]["cancel"]).json()["state"] == "cancelled"
    problem(client.post(job["links"]["cancel"]), 409, "already-ended")
    problem(client.post(f"/jobs/{24 * '0'}/cancel"), 404, "not-found")
