"""POST /samples: what is refused, what is promised, and how it is answered."""

import io
import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from redis import Redis

from models.samplers.sampler import MAX_SEED
from service.settings import ServiceSettings

JSON = {"Content-Type": "application/json"}
TINY_STEPS = 13  # 6 levels of 2 steps, and the denoising


@pytest.mark.parametrize(
    ("body", "pointer", "said"),
    [
        ('{"model": "gone"}', "/model", ["no model 'gone'", "tiny"]),
        ('{"model": "../tiny"}', "/model", ["model is '../tiny'", "such as mnist"]),
        ('{"model": "tinny"}', "/model", ["no model 'tinny'; did you mean tiny?"]),
        ('{"version": 2}', "/version", ["no version 2", "one of: 1"]),
        ('{"version": 0}', "/version", ["at least 1"]),
        ('{"count": 0}', "/count", ["count is 0 | at least 1"]),
        ('{"frames": 65}', "/frames", ["frames is 65 | 0 to 64"]),
        ('{"count": -1}', "/count", ["at least 1"]),
        ('{"count": 1000000000}', "/count", ["1000000000 images", "1 to 100000"]),
        ('{"count": "many"}', "/count", ["count is 'many' | a whole number, at least 1"]),
        ('{"count": 1.5}', "/count", ["count is 1.5", "a whole number"]),
        ('{"count": true}', "/count", ["count is true | a whole number, at least 1"]),
        ('{"seed": false}', "/seed", ["seed is false", "a whole number"]),
        ('{"sampler": {"levels": true}}', "/sampler/levels", ["levels is true", "a whole number, 1 to 100000"]),
        ('{"sampler": {"sigma_max": "5"}}', "/sampler/sigma_max", ["sigma_max is '5'", "number"]),
        ('{"images": 4}', "/images", ["there is no field images", "model, version, count"]),
        ('{"cuont": 4}', "/cuont", ["there is no field cuont; did you mean count?"]),
        ('{"seed": -1}', "/seed", [f"seed is -1 | 0 to {MAX_SEED}"]),
        (f'{{"seed": {2**60}}}', "/seed", [f"0 to {MAX_SEED}"]),
        ('{"priority": "urgent"}', "/priority", ["there is no priority urgent | high or normal or low"]),
        ('{"priority": "hihg"}', "/priority", ["did you mean high?"]),
        ('{"deadline_seconds": 0}', "/deadline_seconds", ["above 0"]),
        ('{"deadline_seconds": true}', "/deadline_seconds", ["deadline_seconds is true", "number"]),
        ('{"deadline_seconds": "soon"}', "/deadline_seconds", ["number"]),
        ('{"sampler": "heun"}', "/sampler", ["object"]),
        ('{"sampler": {"name": "magic"}}', "/sampler", ["there is no sampler magic | annealed_langevin, ", "heun"]),
        (
            '{"sampler": {"name": "huen"}}',
            "/sampler",
            ["no sampler huen; did you mean heun? | annealed_langevin, "],
        ),
        ('{"sampler": {"name": "heun", "step_size": 1}}', "/sampler/step_size", ["no field step_size | name, levels"]),
        ('{"sampler": {"name": "heun", "level": 1}}', "/sampler/level", ["did you mean levels?"]),
        ('{"sampler": {"levels": 0}}', "/sampler/levels", ["levels is 0 | 1 to 100000"]),
        ('{"sampler": {"step_size": NaN}}', "/sampler/step_size", ["finite"]),
        ('{"sampler": {"step_size": Infinity}}', "/sampler/step_size", ["finite"]),
        ('{"sampler": {"step_size": 1e999}}', "/sampler/step_size", ["finite"]),
        ('{"sampler": {"step_size": 0}}', "/sampler/step_size", ["above 0"]),
        ('{"sampler": {"step_size": 0.5}}', "/sampler/step_size", ["diverge", "below", "0.0004"]),
        ('{"sampler": {"sigma_max": 11}}', "/sampler/sigma_max", ["11", "0.01 to 10"]),
        ('{"sampler": {"name": "langevin", "sigma": 0.001}}', "/sampler/sigma", ["0.001", "0.01 to 10"]),
        ('{"sampler": {"sigma_min": 1, "sigma_max": 1}}', "/sampler/sigma_min", ["below sigma_max"]),
        ('{"sampler": {"levels": 1}}', "/sampler/levels", ["at least 2"]),
        ('{"sampler": {"levels": 60000, "steps_per_level": 2}}', "/sampler/levels", ["120,001", "100,000"]),
        ('{"count": 10000, "sampler": {"name": "heun", "levels": 5000}}', "/count", ["99,990,000", "50,000,000"]),
    ],
)
def test_a_bad_field_is_named_and_nothing_is_accepted(
    client, redis: Redis, refusal: Callable[..., str], body: str, pointer: str, said: list[str]
) -> None:
    text = refusal(client.post("/samples", content=body, headers=JSON), pointer)
    assert [words for words in said if words not in text] == [], text
    assert redis.dbsize() == 0


def test_a_grid_too_large_to_draw_is_refused_before_the_work(
    new_client: Callable[..., Any], settings: ServiceSettings, redis: Redis, refusal: Callable[..., str]
) -> None:
    client = new_client(settings.model_copy(update={"max_grid_pixels": 10_000}))
    text = refusal(client.post("/samples", json={"count": 100}, headers={"Accept": "image/png"}), "/count")
    assert "at most 10,000" in text
    assert redis.dbsize() == 0
    assert client.post("/samples", json={"count": 100}).status_code == 202


def test_more_images_than_may_be_kept_are_refused(new_client, settings, refusal: Callable[..., str]) -> None:
    client = new_client(settings.model_copy(update={"max_images_bytes": 1000}))
    said = refusal(client.post("/samples", json={"count": 16}), "/count")
    assert "16 images of 64 bytes are 1,024 bytes, more than one job may have" in said
    assert "at most 15" in said
    assert client.post("/samples", json={"count": 15}).status_code == 202


def test_what_is_not_allowed_always_says_what_is(client) -> None:
    """The limits of a sampler stand in `allowed`, where a program looks for them, like every other limit."""
    for sampler in ({"step_size": 0.5}, {"sigma_max": 11}, {"levels": 100_000}, {"levels": 1}):
        (error,) = client.post("/samples", json={"sampler": sampler}).json()["errors"]
        assert error["allowed"], error


def test_all_bad_fields_are_named_at_once(client, problem: Callable[..., Any]) -> None:
    body = problem(client.post("/samples", json={"count": 0, "seed": -1, "sampler": {"levels": 0}}), 422, "invalid")
    assert {error["pointer"] for error in body["errors"]} == {"/count", "/seed", "/sampler/levels"}


@pytest.mark.parametrize("body", ["{", "count=3", '{"count": 1,}', b'{"model": "\xff"}', "[" * 60_000])
def test_broken_json_is_a_problem(client, redis: Redis, problem: Callable[..., Any], body: str | bytes) -> None:
    problem(client.post("/samples", content=body, headers=JSON), 400, "malformed")
    assert redis.dbsize() == 0


@pytest.mark.parametrize("body", ["", "[]", "3", "null"])
def test_a_body_that_is_no_object_is_pointed_at_as_a_whole(client, refusal: Callable[..., str], body: str) -> None:
    refusal(client.post("/samples", content=body, headers=JSON), "")


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", None])
def test_another_content_type_is_a_problem(
    client, redis: Redis, problem: Callable[..., Any], media_type: str | None
) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    body = problem(client.post("/samples", content='{"count": 1}', headers=headers), 415, "unsupported-media-type")
    assert "application/json" in body["detail"]
    assert redis.dbsize() == 0


@pytest.mark.parametrize("preference", ["wait=abc", "wait", "wait=-1", "wait=1e3", "respond-async, wait="])
def test_a_preference_that_says_nothing_is_ignored(client, preference: str) -> None:
    """RFC 7240, section 2."""
    response = client.post("/samples", json={}, headers={"Prefer": preference})
    assert response.status_code == 202
    assert response.json()["state"] == "queued"


def test_what_cannot_be_accepted_is_a_problem(client, redis: Redis, problem: Callable[..., Any]) -> None:
    for accept in ("text/html", "image/jpeg, text/*;q=0.5", "application/json;q=0"):
        body = problem(client.post("/samples", json={}, headers={"Accept": accept}), 406, "not-acceptable")
        assert "image/png" in body["detail"]
    assert redis.dbsize() == 0


def test_a_damaged_model_is_a_problem(new_client, settings, tmp_path, refusal: Callable[..., str]) -> None:
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "card.json").write_text("{}")
    client = new_client(settings.model_copy(update={"models_dir": tmp_path}))
    assert "damaged" in refusal(client.post("/samples", json={"model": "broken"}), "/model")


def test_a_job_is_accepted_with_its_address_and_its_settings(client, redis: Redis) -> None:
    response = client.post("/samples", json={})
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == job["links"]["self"] == f"/jobs/{job['id']}"
    assert (job["state"], job["kind"], job["model"], job["version"], job["count"]) == (
        "queued",
        "sample",
        "tiny",
        1,
        16,
    )
    assert 0 <= job["seed"] <= MAX_SEED
    sampler = job["sampler"]
    assert (sampler["name"], sampler["levels"], sampler["steps_per_level"]) == ("annealed_langevin", 6, 2)
    assert None not in sampler.values()
    assert job["progress"] == {"image_steps_done": 0, "image_steps": 16 * TINY_STEPS}
    assert client.get(response.headers["location"]).json() == job
    assert redis.llen("rq:queue:scoreserve") == 1, "a shard with all images, until some are taken of it"
    assert client.submit()["seed"] != job["seed"]


@pytest.mark.parametrize(
    ("asked", "steps"),
    [
        ({"steps_per_level": 1}, 7),
        ({"levels": 3}, 7),
        ({"denoise": False}, 12),
        ({"step_size": 2e-5}, 13),
        ({"name": "annealed_langevin", "levels": 4, "steps_per_level": 3, "step_size": 1e-5}, 13),
        ({"name": "heun", "levels": 5}, 9),
        ({"name": "langevin", "sigma": 0.5, "steps": 7}, 8),
        ({"name": "follow_scores", "steps": 7}, 7),
    ],
)
def test_settings_of_the_sampler_are_taken_over(client, asked: dict[str, Any], steps: int) -> None:
    job = client.submit(count=2, sampler=asked)
    assert job["sampler"].items() >= asked.items()
    assert job["progress"]["image_steps"] == 2 * steps
    assert None not in job["sampler"].values()


def test_the_same_seed_gives_the_same_images(client, work: Callable[[], None]) -> None:
    drawn = client.submit(count=6)
    work()
    again = client.submit(**{name: drawn[name] for name in ("model", "version", "count", "seed", "sampler")})
    fewer, other = client.submit(count=3, seed=drawn["seed"]), client.submit(count=6)
    work()
    images = client.images(drawn)
    assert images.shape == (6, 8, 8, 1)
    assert (client.images(again) == images).all()
    assert (client.images(fewer) == images[:3]).all()
    assert not (client.images(other) == images).all()
    assert len({image.tobytes() for image in images}) == 6
    grids = [client.get(job["links"]["grid"]).content for job in (drawn, again)]
    assert grids[0] == grids[1]


def test_settings_change_the_images(client, work: Callable[[], None]) -> None:
    samplers = [{}, {"step_size": 2e-5}, {"denoise": False}, {"levels": 5}, {"name": "heun", "levels": 5}]
    jobs = [client.submit(count=1, seed=5, sampler=sampler) for sampler in samplers]
    work()
    assert len({client.images(job).tobytes() for job in jobs}) == len(samplers)


def test_waiting_gives_the_finished_job(client, work_on: Callable[..., httpx.Response]) -> None:
    response = work_on(client.begin("POST", "/samples", json={"count": 2}, headers={"Prefer": "wait=20"}))
    assert response.status_code == 200
    assert response.headers["preference-applied"] == "wait=20"
    job = response.json()
    assert response.headers["location"] == job["links"]["self"]
    assert job["state"] == "finished"
    assert job["progress"] == {"image_steps_done": 2 * TINY_STEPS, "image_steps": 2 * TINY_STEPS}


@pytest.mark.parametrize(
    ("accept", "preference"),
    [("image/png", None), ("image/*", "wait=20"), ("application/json;q=0.1, image/png", None)],
)
def test_the_grid_itself_is_answered(
    client, work_on: Callable[..., httpx.Response], accept: str, preference: str | None
) -> None:
    headers = {"Accept": accept} | ({"Prefer": preference} if preference else {})
    response = work_on(client.begin("POST", "/samples", json={"count": 5}, headers=headers))
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(response.content)) as grid:
        assert grid.size == (3 * 18 + 2, 2 * 18 + 2)
    assert response.content == client.get(f"{response.headers['location']}/grid.png").content


def test_the_arrays_themselves_are_answered(client, work_on: Callable[..., httpx.Response]) -> None:
    headers = {"Accept": "application/x-npz"}
    response = work_on(client.begin("POST", "/samples", json={"count": 5, "seed": 11}, headers=headers))
    assert response.headers["content-type"] == "application/x-npz"
    with np.load(io.BytesIO(response.content)) as archive:
        assert archive["images"].shape == (5, 8, 8, 1)
        assert archive["images"].dtype == np.uint8
        assert archive["seed"] == 11
        assert '"model":"tiny"' in str(archive["request"])


def test_clients_take_turns_by_name_or_by_address(client, redis: Redis, refusal: Callable[..., str]) -> None:
    client.submit()
    for name in ("alice", "bob@example.org", "127.0.0.1"):
        response = client.post("/samples", json={}, headers={"Client-Id": name})
        assert response.status_code == 202
    lines = {key.decode() for key in redis.keys("scoreserve:line:*")}
    clients = ("address/127.0.0.1", "name/alice", "name/bob@example.org", "name/127.0.0.1")
    assert lines == {f"scoreserve:line:tiny:{name}" for name in clients}
    for name in ("", "a b", "x" * 65, "a/b"):
        response = client.post("/samples", json={}, headers={"Client-Id": name})
        assert "letters" in refusal(response, "Client-Id")


@pytest.fixture
def pace(redis: Redis) -> None:
    """A worker that makes 100 image-steps a second."""
    redis.sadd("rq:workers", "rq:worker:one")
    redis.hset("rq:worker:one", "pace", json.dumps({"tiny": [0.01, 100.0]}))


@pytest.mark.usefixtures("pace")
def test_a_deadline_that_the_work_cannot_make_is_refused_at_once(
    client,
    redis: Redis,
    refusal: Callable[..., str],
    problem: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.queue.forecast.KEEP_SECONDS", 0)  # each looks at the queue itself
    monkeypatch.setattr("worker.queue.forecast.KEEP_FACTOR", 0)
    text = refusal(client.post("/samples", json={"count": 100, "deadline_seconds": 12}), "/deadline_seconds")
    assert "1,300 image-steps take 13.0 s, even with all of 1 worker" in text
    assert "at least 13" in text
    assert redis.zcard("scoreserve:active") == 0
    job = client.submit(count=100, deadline_seconds=20, priority="high")
    assert job["priority"] == "high"
    assert job["eta_seconds"] == 13
    created, deadline = (datetime.fromisoformat(job[name]) for name in ("created_at", "deadline_at"))
    assert (deadline - created).total_seconds() == pytest.approx(20)
    response = client.post("/samples", json={"count": 100, "deadline_seconds": 20, "priority": "high"})
    body = problem(response, 503, "busy")
    assert "26.0 s" in body["detail"]
    assert response.headers["retry-after"] == "6"
    other = {"count": 10, "deadline_seconds": 3}
    assert client.post("/samples", json=other).status_code == 503
    assert client.post("/samples", json=other, headers={"Client-Id": "other"}).status_code == 503
    other = {"count": 10, "deadline_seconds": 3, "priority": "high"}
    assert client.post("/samples", json=other, headers={"Client-Id": "other"}).status_code == 202


def test_without_workers_a_deadline_is_taken_on_trust_and_kept(client) -> None:
    job = client.submit(count=100, deadline_seconds=0.3)
    assert job["eta_seconds"] is None
    time.sleep(0.35)
    late = client.get(job["links"]["self"]).json()
    assert late["state"] == "failed"
    assert "deadline of 0.3 s passed" in late["error"]
