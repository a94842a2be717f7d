"""/healthz and /readyz, and what happens while Redis is away."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rq.suspension import resume, suspend

from worker.batching import BatchingWorker

JOB = "/jobs/" + 24 * "0"


@pytest.fixture(params=["gone", "silent"])
def away(request: pytest.FixtureRequest, new_client, settings, tmp_path: Path) -> Iterator[Any]:
    """A client of a service whose Redis is not there, or takes connections and never answers."""
    path = tmp_path / "redis"
    with socket.socket(socket.AF_UNIX) as server:
        if request.param == "silent":
            server.bind(str(path))
            server.listen()
        yield new_client(settings.model_copy(update={"redis_url": f"unix://{path}", "redis_timeout_seconds": 1.5}))


def test_a_worker_makes_it_ready(client, new_worker: Callable[[], BatchingWorker]) -> None:
    response = client.get("/readyz")
    assert response.status_code == 503
    assert "scoreserve worker" in response.json()["detail"]
    worker = new_worker()
    worker.register_birth()
    response = client.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"status": "ready", "workers": 1})
    worker.register_death()
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_workers_that_are_suspended_make_it_unready(client, new_worker: Callable[[], BatchingWorker], redis) -> None:
    worker = new_worker()
    worker.register_birth()
    suspend(redis)
    response = client.get("/readyz")
    assert response.status_code == 503
    assert "rq resume" in response.json()["detail"]
    resume(redis)
    assert client.get("/readyz").status_code == 200
    worker.register_death()


def test_a_worker_that_died_makes_it_unready(
    client, new_worker: Callable[[], BatchingWorker], redis, until: Callable[..., None]
) -> None:
    worker = new_worker()
    worker.register_birth()
    redis.pexpire(worker.key, 50)  # what its heartbeats put off
    until(lambda: client.get("/readyz").status_code == 503)


def test_without_redis_the_service_says_so_and_soon(away, problem: Callable[..., Any]) -> None:
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/samples", {"json": {}}),
        ("POST", "/samples", {"json": {}, "headers": {"Accept": "image/png"}}),
        ("GET", JOB, {}),
        ("GET", f"{JOB}/grid.png", {}),
        ("DELETE", JOB, {}),
    ]
    pending = [away.begin(method, url, **options) for method, url, options in requests]
    for answer in pending:
        response = answer.result(60)
        assert "Redis" in problem(response, 503, "unavailable")["detail"]
        assert int(response.headers["retry-after"]) >= 1


def test_without_redis_it_is_alive_and_not_ready(away) -> None:
    assert away.get("/healthz").status_code == 200
    response = away.get("/readyz")
    assert response.status_code == 503
    assert "Redis" in response.json()["detail"]
    metrics = away.get("/metrics")
    assert metrics.status_code == 200
    assert "scoreserve_redis_up 0.0" in metrics.text


def test_a_full_redis_is_a_problem(client, redis, problem: Callable[..., Any]) -> None:
    limit = redis.config_get("maxmemory")["maxmemory"]
    redis.config_set("maxmemory", 1)
    try:
        response = client.post("/samples", json={})
    finally:
        redis.config_set("maxmemory", limit)
    assert "full" in problem(response, 503, "unavailable")["detail"]
    assert int(response.headers["retry-after"]) >= 1
    assert client.post("/samples", json={}).status_code == 202
