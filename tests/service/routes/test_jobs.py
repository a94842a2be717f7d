"""/jobs/{id}: states, views of the images, cancelling, and being forgotten."""

import io
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from redis import Redis

from models.samplers.follow_scores import FollowScores
from service.answering.views import samples_npz
from worker.batching import BatchingWorker
from worker.queue import scripts, shards
from worker.queue.jobs import JobQueue
from worker.queue.results import Results

Check = Callable[..., Any]
UNKNOWN = "/jobs/" + 24 * "0"


def pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def test_a_job_is_followed_from_the_queue_to_its_images(client, new_worker: Callable[[], BatchingWorker]) -> None:
    job = client.submit(count=6, seed=1)
    address = job["links"]["self"]
    worker = new_worker()
    worker._claim()
    for _ in range(5):
        worker._step()
    worker._beat()
    running = client.get(address).json()
    assert running["state"] == "running"
    assert running["progress"] == {"image_steps_done": 6 * 5, "image_steps": 6 * 13}
    assert running["started_at"] >= running["created_at"]
    assert running["ended_at"] is running["expires_at"] is None
    while worker._claims:
        worker._step()
    finished = client.get(address).json()
    assert finished["state"] == "finished"
    assert finished["progress"]["image_steps_done"] == 6 * 13
    assert finished["expires_at"] > finished["ended_at"] >= finished["started_at"]
    assert finished["error"] is None
    assert {k: finished[k] for k in ("seed", "sampler", "count")} == {k: job[k] for k in ("seed", "sampler", "count")}


@pytest.mark.parametrize(
    ("query", "across", "down", "padding", "scale"),
    [
        ({}, 3, 2, 2, 2),
        ({"columns": 2}, 2, 3, 2, 2),
        ({"columns": 99}, 5, 1, 2, 2),
        ({"columns": 1, "padding": 0, "scale": 1}, 1, 5, 0, 1),
        ({"padding": 7, "scale": 16}, 3, 2, 7, 16),
    ],
)
def test_a_grid_is_drawn_as_asked(
    client, work: Callable[[], None], query: dict[str, int], across: int, down: int, padding: int, scale: int
) -> None:
    job = client.submit(count=5)
    work()
    response = client.get(job["links"]["grid"], params=query)
    assert response.headers["content-type"] == "image/png"
    grid, cell = pixels(response.content), 8 * scale + padding
    assert grid.shape == (down * cell + padding, across * cell + padding)
    for i, image in enumerate(client.images(job)[..., 0]):
        top, left = i // across * cell + padding, i % across * cell + padding
        assert (grid[top : top + 8 * scale : scale, left : left + 8 * scale : scale] == image).all()


def test_a_grid_that_would_be_too_large_is_refused(
    new_client, settings, work: Callable[[], None], refusal: Check
) -> None:
    client = new_client(settings.model_copy(update={"max_grid_pixels": 10_000}))
    job = client.submit(count=4)
    work()
    assert "at most 10,000" in refusal(client.get(job["links"]["grid"], params={"scale": 16}), "scale")
    assert client.get(job["links"]["grid"], params={"scale": 1}).status_code == 200
    for name, value in (("columns", 0), ("padding", -1), ("scale", 17), ("scale", "big")):
        refusal(client.get(job["links"]["grid"], params={name: value}), name)


def test_every_image_has_an_address(client, work: Callable[[], None], problem: Check) -> None:
    job = client.submit(count=6)
    work()
    for i, image in enumerate(client.images(job)):
        response = client.get(job["links"]["image"].replace("{i}", str(i)))
        assert response.headers["content-type"] == "image/png"
        assert (pixels(response.content) == image[..., 0]).all()
    for i in (6, 7, 8, 10**9):  # 6 and 7 would be in the last shard if it were full
        body = problem(client.get(job["links"]["image"].replace("{i}", str(i))), 404, "not-found")
        assert "0 to 5" in body["detail"]


def test_what_is_not_ready_says_how_far_it_is(client, problem: Check, new_worker: Callable[[], BatchingWorker]) -> None:
    job = client.submit(count=3)
    for view in ("grid.png", "images/0.png", "samples.npz"):
        response = client.get(f"{job['links']['self']}/{view}")
        assert "queued" in problem(response, 409, "not-ready")["detail"]
        assert int(response.headers["retry-after"]) >= 1
    worker = new_worker()
    worker._claim()
    worker._step()
    worker._beat()
    response = client.get(job["links"]["grid"])
    assert "running, 3 of 39 image-steps" in problem(response, 409, "not-ready")["detail"]
    worker._hand_back()


def test_unknown_jobs_and_addresses_are_not_found(client, problem: Check, refusal: Check) -> None:
    for view in ("", "/grid.png", "/images/0.png", "/samples.npz"):
        assert 24 * "0" in problem(client.get(UNKNOWN + view), 404, "not-found")["detail"]
    problem(client.delete(UNKNOWN), 404, "not-found")
    problem(client.get("/nowhere"), 404, "not-found")
    problem(client.get(f"{UNKNOWN}/grid.jpeg"), 404, "not-found")
    response = client.post(UNKNOWN)
    problem(response, 405, "method-not-allowed")
    assert set(response.headers["allow"].split(", ")) >= {"GET"}
    refusal(client.get("/jobs/scoreserve:totals"), "job_id")


def test_cancelling_takes_a_job_off_the_queue(client, redis: Redis, problem: Check, work: Callable[[], None]) -> None:
    other, job = client.submit(count=1), client.submit(count=9)
    assert redis.llen("rq:queue:scoreserve") == 2
    response = client.delete(job["links"]["self"])
    assert response.status_code == 200
    assert response.json()["state"] == "cancelled"
    assert response.json()["error"]
    assert redis.lrange("rq:queue:scoreserve", 0, -1) == [f"{other['id']}-0".encode()]
    assert redis.keys(f"rq:job:{job['id']}*") == []
    assert "cancelled" in problem(client.delete(job["links"]["self"]), 409, "already-ended")["detail"]
    response = client.get(job["links"]["grid"])
    assert "cancelled" in problem(response, 409, "not-ready")["detail"]
    assert "retry-after" not in response.headers, "it will never be ready"
    work()
    assert client.get(job["links"]["self"]).json()["state"] == "cancelled"
    assert client.get(other["links"]["self"]).json()["state"] == "finished"
    assert "finished" in problem(client.delete(other["links"]["self"]), 409, "already-ended")["detail"]


def test_a_cancelled_job_leaves_its_worker(client, new_worker: Callable[[], BatchingWorker], redis: Redis) -> None:
    sampler = FollowScores(name="follow_scores", steps=500)
    job = client.submit(count=4, sampler=sampler.model_dump(exclude_none=True))
    worker = new_worker()
    worker._claim()
    worker._step()
    assert client.delete(job["links"]["self"]).json()["state"] == "cancelled"
    worker._beat()
    assert not worker._claims
    assert worker.batch.free == worker.batch.slots
    assert not redis.exists(f"scoreserve:job:{job['id']}:images")


def test_why_a_job_failed_is_told(
    client, work: Callable[[], None], problem: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.device.batch.torch.isfinite", lambda x: x > float("inf"))
    job = client.submit(count=1)
    work()
    failed = client.get(job["links"]["self"]).json()
    assert failed["state"] == "failed"
    assert "NaN" in failed["error"]
    assert failed["expires_at"]
    assert "NaN" in problem(client.get(job["links"]["samples"]), 409, "not-ready")["detail"]


def test_an_ended_job_is_forgotten_altogether(
    new_client, settings, redis: Redis, work: Callable[[], None], problem: Check, until: Callable[..., None]
) -> None:
    client = new_client(settings.model_copy(update={"result_ttl_seconds": 3}))
    jobs = [client.submit(count=6), client.submit(count=6)]
    client.delete(jobs[1]["links"]["self"])
    work()
    assert client.images(jobs[0]).shape == (6, 8, 8, 1)
    ids = [job["id"].encode() for job in jobs]
    until(lambda: not any(id_ in key for key in redis.scan_iter() for id_ in ids))
    for job in jobs:
        assert "forgotten" in problem(client.get(job["links"]["self"]), 404, "not-found")["detail"]
        problem(client.get(job["links"]["grid"]), 404, "not-found")
    assert redis.zcard("scoreserve:active") == 0


def test_images_that_vanish_meanwhile_are_not_found(
    client, redis: Redis, work: Callable[[], None], problem: Check
) -> None:
    """The time to live may end between the look at the job and the look at its images."""
    job = client.submit(count=2)
    work()
    redis.delete(f"scoreserve:job:{job['id']}:images")
    for view in ("grid.png", "images/0.png", "samples.npz"):
        problem(client.get(f"{job['links']['self']}/{view}"), 404, "not-found")


def test_a_hundred_thousand_images_are_streamed(client, redis: Redis, settings, tiny_card) -> None:
    """A job as large as may be, its images put there instead of made; they are never in memory together."""
    job = client.submit(count=100_000, seed=3, sampler={"name": "heun", "levels": 2})
    assert client.get(job["links"]["self"]).json()["state"] == "queued"
    made = np.random.default_rng(0).integers(0, 256, (10_000, 10, 8, 8, 1), dtype=np.uint8)
    queue = JobQueue(redis, settings)
    taken = 0
    while some := shards.take(queue.rq, None, free=10_000):
        taken += len(some)
    assert taken == 10_000
    with redis.pipeline() as pipeline:
        for number, images in enumerate(made):
            values = ("finished", 1, 60, "", number, images.tobytes(), 30, 10)
            pipeline.eval(scripts.STORE, 0, job["id"], *values)
        answers = pipeline.execute()
    assert answers == [1] * 9999 + [2], "the last shard, and no other, ends the job"
    finished = queue.get(job["id"])
    assert finished.state == "finished"
    assert finished.image_steps_done == finished.image_steps == 300_000
    tracemalloc.start()
    sizes = [len(piece) for piece in samples_npz(finished, Results(redis).pieces(finished))]
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sizes) > 6_000_000
    assert most < 3_000_000
    response = client.get(job["links"]["samples"])
    with np.load(io.BytesIO(response.content)) as archive:
        assert (archive["images"] == made.reshape(-1, 8, 8, 1)).all()
    assert client.get(job["links"]["samples"]).content == response.content


def test_a_grid_that_is_too_large_says_what_is_not(new_client, settings, work, refusal: Check) -> None:
    client = new_client(settings.model_copy(update={"max_grid_pixels": 2000}))
    job = client.submit(count=9)
    work()
    assert "samples.npz" in refusal(client.get(job["links"]["grid"]), "scale")
    assert client.images(job).shape == (9, 8, 8, 1)


def test_frames_say_what_they_show(client, problem: Check) -> None:
    plain, some = client.submit(count=2), client.submit(count=2, frames=3, sampler={"name": "euler", "levels": 6})
    told = client.get(f"/jobs/{some['id']}/frames").json()
    assert told["evaluations"] == 6
    assert [frame["evaluations"] for frame in told["frames"]] == [2, 4, 6]
    first, second, last = (frame["sigma"] for frame in told["frames"])
    assert first > second > 0
    assert last is None, "the result"
    assert told["start"]["sigma"] == told["start"]["std"] > first
    uniform = client.submit(count=2, frames=2, sampler={"name": "langevin", "steps": 6})
    assert client.get(f"/jobs/{uniform['id']}/frames").json()["start"]["std"] is None
    assert "has no frames" in problem(client.get(f"/jobs/{plain['id']}/frames"), 404, "not-found")["detail"]
    problem(client.get(f"{UNKNOWN}/frames"), 404, "not-found")


def test_frames_of_a_model_that_is_gone_are_not_described(
    new_client, settings, models_dir: Path, tmp_path: Path, problem: Check
) -> None:
    shutil.copytree(models_dir, tmp_path / "models")
    client = new_client(settings.model_copy(update={"models_dir": tmp_path / "models"}))
    job = client.submit(count=1, frames=2)
    shutil.rmtree(tmp_path / "models" / "tiny")
    told = problem(client.get(f"/jobs/{job['id']}/frames"), 404, "not-found")
    assert "not served any more" in told["detail"]
