"""Views of images that lie in a store: the same files as of images in Redis, and what is said when it is away."""

import io
import shutil
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis import Redis

from service.answering.views import samples_npz
from service.settings import ServiceSettings
from tests.service.conftest import Client, Work
from worker.batching import BatchingWorker
from worker.queue import keys, results, scripts, shards, stores
from worker.queue.job import Job, JobState
from worker.queue.jobs import JobQueue
from worker.queue.results import CACHE_BYTES, Results
from worker.queue.stores import Stores

ASKED: dict[str, Any] = {"count": 10, "seed": 5, "frames": 3, "sampler": {"name": "euler", "levels": 5}}
VIEWS = (
    "grid.png",
    "images/0.png",
    "images/7.png?scale=2",
    "samples.npz",
    "images.zip",
    "animation.webp",
    "animation.gif",
    "filmstrip.png",
)
Check = Callable[..., Any]
NewClient = Callable[[ServiceSettings], Client]


@pytest.fixture
def stored(settings: ServiceSettings, directory_url: str) -> ServiceSettings:
    """All images are in a directory."""
    return settings.model_copy(update={"results_url": directory_url, "results_in_redis_bytes": 0})


@pytest.fixture
def work(new_worker: Callable[[], BatchingWorker]) -> Work:
    """Fulfils everything that waits, in shards as small as jobs are cut into."""

    def run() -> None:
        worker = new_worker()
        worker.settings = worker.settings.model_copy(update={"shard_seconds": 0.0})
        worker.work(burst=True, logging_level="WARNING")

    return run


def test_views_are_the_same_wherever_the_images_lie(
    new_client: NewClient, settings: ServiceSettings, results_url: str, work: Work, redis: Redis
) -> None:
    in_redis, in_store = (
        new_client(settings.model_copy(update={"results_url": url, "results_in_redis_bytes": 0}))
        for url in (None, results_url)
    )
    jobs = [client.submit(**ASKED) for client in (in_redis, in_store)]
    work()
    assert redis.hstrlen(keys.of(jobs[0]["id"], "images"), "0") == 4 * 64
    assert redis.hstrlen(keys.of(jobs[1]["id"], "images"), "0") < 64
    for view in VIEWS:
        kept, there = (in_store.get(f"{job['links']['self']}/{view}") for job in jobs)
        assert kept.status_code == there.status_code == 200, there.text
        assert kept.content == there.content, view
        if kept.headers["accept-ranges"] == "bytes":
            part = in_store.get(f"{jobs[1]['links']['self']}/{view}", headers={"Range": "bytes=3-40"})
            assert (part.status_code, part.content) == (206, kept.content[3:41])
        again = in_store.get(f"{jobs[1]['links']['self']}/{view}", headers={"If-None-Match": there.headers["etag"]})
        assert again.status_code == 304


def test_a_store_that_is_away_is_said_to_be_and_what_is_kept_is_there_later(
    new_client: NewClient, stored: ServiceSettings, work: Work, problem: Check, directory: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(stores, "READ_PAUSES", ())
    client = new_client(stored)
    job = client.submit(**ASKED)
    work()
    aside = directory.with_name("aside")
    directory.rename(aside)
    for view in VIEWS:
        response = client.get(f"{job['links']['self']}/{view}")
        problem(response, 503, "images-unavailable")
        assert int(response.headers["retry-after"]) > 0
        assert client.get(job["links"]["self"]).json()["state"] == "finished"
    aside.rename(directory)
    for view in VIEWS:
        assert client.get(f"{job['links']['self']}/{view}").status_code == 200


def test_who_waited_for_images_is_told_where_they_are_while_the_store_is_away(
    new_client: NewClient, stored: ServiceSettings, work_on: Check, problem: Check, monkeypatch: Any
) -> None:
    def away(*_: Any) -> bytes:
        raise stores.StoreAway("away")

    monkeypatch.setattr(stores, "READ_PAUSES", ())
    monkeypatch.setattr(stores.Directory, "read", away)
    client = new_client(stored)
    for accepted in ("image/png", "application/x-npz"):
        response = work_on(client.begin("POST", "/samples", json={"count": 5}, headers={"Accept": accepted}))
        body = problem(response, 503, "images-unavailable")
        location = response.headers["location"]
        assert location.rpartition("/")[2] in body["detail"]
        assert client.get(location).json()["state"] == "finished"


def test_what_is_damaged_is_not_shown(
    new_client: NewClient, stored: ServiceSettings, work: Work, problem: Check, directory: Path
) -> None:
    client = new_client(stored)
    job = client.submit(count=5)
    work()
    one = next((directory / job["id"]).glob("1-*"))
    one.write_bytes(bytes(len(one.read_bytes())))
    for view in ("grid.png", "images/4.png"):
        problem(client.get(f"{job['links']['self']}/{view}"), 500, "images-damaged")
    assert client.get(f"{job['links']['self']}/images/3.png").status_code == 200, "of another shard"


def test_what_a_bucket_has_forgotten_is_not_found(
    new_client: NewClient, stored: ServiceSettings, work: Work, problem: Check, directory: Path
) -> None:
    client = new_client(stored)
    job = client.submit(count=5)
    work()
    shutil.rmtree(directory / job["id"])
    for view in ("grid.png", "images/0.png", "samples.npz", "images.zip"):
        problem(client.get(f"{job['links']['self']}/{view}"), 404, "not-found")


def test_a_preview_shows_what_there_is_while_the_store_is_away(
    new_client: NewClient, stored: ServiceSettings, work: Work, redis: Redis, monkeypatch: Any
) -> None:
    client = new_client(stored)
    job = client.submit(count=6)
    work()
    queue = JobQueue(redis, stored)
    for shown in Results(redis).previews(queue.get(job["id"])):
        assert np.array_equal(shown, client.images(job))
    grey = np.full((4, 8, 8, 1), 7, np.uint8)
    redis.hset(keys.of(job["id"], "previews"), "0", grey.tobytes())

    def away(*_: Any) -> bytes:
        raise stores.StoreAway("away")

    monkeypatch.setattr(stores, "READ_PAUSES", ())
    monkeypatch.setattr(stores.Directory, "read", away)
    shown, _ = Results(redis).previews(queue.get(job["id"]))
    assert np.array_equal(shown, np.concatenate([grey, np.zeros((2, 8, 8, 1), np.uint8)]))


def test_images_one_by_one_read_each_object_once(
    new_client: NewClient, stored: ServiceSettings, work: Work, redis: Redis, monkeypatch: Any
) -> None:
    client = new_client(stored)
    job = client.submit(count=8)
    work()
    read, reads = stores.Directory.read, []
    monkeypatch.setattr(stores.Directory, "read", lambda store, name: reads.append(name) or read(store, name))
    for index in range(8):
        assert client.get(f"{job['links']['self']}/images/{index}.png").status_code == 200
    assert len(reads) == 2


def test_what_is_remembered_of_objects_is_bounded(redis: Redis) -> None:
    results = Results(redis)
    large = [stores.reference(bytes([number])) for number in range(5)]
    results.stores.get = lambda *_: bytes(CACHE_BYTES // 3)  # type: ignore[method-assign]
    job: Any = type("Job", (), {"id": "a" * 24, "store": "file:///there"})
    for number, kept in enumerate(large):
        results._cached(job, number, kept)
    assert sum(map(len, results._cache.values())) <= CACHE_BYTES
    assert [number for _, number, _ in results._cache] == [2, 3, 4], "those used last"


def test_an_npz_of_a_store_is_streamed_object_by_object(
    new_client: NewClient, settings: ServiceSettings, results_url: str, redis: Redis
) -> None:
    """A job of 6 MB, its images put there instead of made; they are never in memory together, and none is in Redis."""
    options = {"results_url": results_url, "shard_size": 1000}
    client = new_client(settings.model_copy(update=options))
    job = client.submit(count=100_000, seed=3, sampler={"name": "heun", "levels": 2})
    made = np.random.default_rng(0).integers(0, 256, (100, 1000, 8, 8, 1), dtype=np.uint8)
    queue, there = JobQueue(redis, client.settings), Stores()
    assert len(shards.take(queue.rq, None, free=100_000)) == 100
    for number, images in enumerate(made):
        kept = there.put(results_url, job["id"], number, images.tobytes())
        redis.eval(scripts.STORE, 0, job["id"], "finished", 1, 60, "", number, kept, 3000, 1000)
    finished = queue.get(job["id"])
    assert finished.state == JobState.FINISHED
    assert redis.memory_usage(keys.of(job["id"], "images")) < 20_000
    results = Results(redis)
    next(results.pieces(finished))  # what is loaded once is no matter here
    tracemalloc.start()
    sizes = [len(piece) for piece in samples_npz(finished, results.pieces(finished))]
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(sizes) >= 100
    assert sum(sizes) > 6_000_000
    assert most < 4_000_000
    response = client.get(job["links"]["samples"])
    with np.load(io.BytesIO(response.content)) as archive:
        assert (archive["images"] == made.reshape(-1, 8, 8, 1)).all()


def test_few_large_objects_are_on_their_way_at_once(
    new_client: NewClient, settings: ServiceSettings, directory_url: str, redis: Redis, monkeypatch: Any
) -> None:
    """Of shards of 32 kB, with room for two of them, no third is asked for before one is taken."""
    client = new_client(settings.model_copy(update={"results_url": directory_url, "shard_size": 500}))
    monkeypatch.setattr(results, "AHEAD_BYTES", 2 * 32_000)
    job = client.submit(count=20_000, sampler={"name": "heun", "levels": 2})
    queue, there = JobQueue(redis, client.settings), Stores()
    assert len(shards.take(queue.rq, None, free=20_000)) == 40
    for number in range(40):
        kept = there.put(directory_url, job["id"], number, bytes(32_000))
        redis.eval(scripts.STORE, 0, job["id"], "finished", 1, 60, "", number, kept, 1500, 500)
    found = Results(redis)
    asked: list[int] = []
    monkeypatch.setattr(found, "_found", lambda job, number, value: asked.append(number) or bytes(32_000))
    for taken, _ in enumerate(found.pieces(queue.get(job["id"]))):
        assert len(asked) <= taken + 2
    assert sorted(asked) == list(range(40))


def test_one_client_has_few_objects_on_their_way_whatever_it_reads(
    new_client: NewClient, settings: ServiceSettings, directory_url: str, redis: Redis, until: Check, monkeypatch: Any
) -> None:
    """So that where a store is slow there are readers left for others."""
    client = new_client(settings.model_copy(update={"results_url": directory_url, "shard_size": 500}))
    queue, there, found = JobQueue(redis, client.settings), Stores(), Results(redis)
    job = client.submit(count=10_000, sampler={"name": "heun", "levels": 2})
    assert len(shards.take(queue.rq, None, free=10_000)) == 20
    for number in range(20):
        kept = there.put(directory_url, job["id"], number, bytes(32_000))
        redis.eval(scripts.STORE, 0, job["id"], "finished", 1, 60, "", number, kept, 1500, 500)
    finished, gate = queue.get(job["id"]), threading.Event()
    other = finished.model_copy(update={"client": "another"})
    asked: list[str] = []

    def slow(job: Job, number: int, value: bytes) -> bytes:
        asked.append(job.client)
        assert job.client == "another" or gate.wait(60)
        return bytes(32_000)

    monkeypatch.setattr(found, "_found", slow)
    with ThreadPoolExecutor(3 * results.AHEAD) as threads:
        reading = [threads.submit(lambda: list(found.pieces(finished))) for _ in range(3 * results.AHEAD)]
        try:
            until(lambda: len(asked) >= 3 * results.AHEAD)
            assert len(list(found.pieces(other))) == 20, "while the others wait"
            assert asked.count(finished.client) < 4 * results.AHEAD
        finally:
            gate.set()
        assert {len(one.result()) for one in reading} == {20}
    until(lambda: not found._on_their_way)
