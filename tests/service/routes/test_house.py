"""/workers and /samplers: who works, and in which ways images can be made."""

import os
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from models.samplers import NAMES
from worker.batching import BatchingWorker


def test_workers_tell_what_they_do(client, new_worker: Callable[[], BatchingWorker]) -> None:
    nobody = client.get("/workers").json()
    assert nobody == {"workers": [], "queue": {"jobs": 0, "image_steps": 0, "oldest_age_seconds": 0.0}}
    client.submit(count=3)
    worker = new_worker()
    worker.bootstrap("WARNING")
    worker._claim()
    worker._step()
    worker._beat()
    told = client.get("/workers").json()
    (status,) = told["workers"]
    assert status["name"] == worker.name
    assert (status["device"], status["slots"], status["slots_active"]) == ("cpu", 16, 3)
    assert status["models"] == ["tiny"]
    assert status["image_steps_per_second"] > 0
    seen = datetime.fromisoformat(status["last_seen"])
    assert abs(datetime.now(seen.tzinfo) - seen) < timedelta(seconds=60)
    assert told["queue"]["jobs"] == 1
    assert told["queue"]["image_steps"] == 3 * 12
    worker._hand_back()
    worker.teardown()
    assert client.get("/workers").json()["workers"] == []


def test_samplers_tell_what_they_can_be_told(client) -> None:
    samplers: dict[str, dict[str, Any]] = {sampler["name"]: sampler for sampler in client.get("/samplers").json()}
    assert set(samplers) == set(NAMES)
    for sampler in samplers.values():
        assert sampler["title"]
        assert sampler["description"]
        body: dict[str, Any] = {"name": sampler["name"]}
        for parameter in sampler["parameters"]:
            assert parameter["description"]
            if parameter["type"] != "array":  # which others exclude
                body[parameter["name"]] = {"boolean": True, "integer": 8, "number": 1.0}[parameter["type"]]
        body |= {"sigma_min": 0.1} if "sigma_min" in body else {}
        body.pop("step_size", None)
        answer = client.post("/samples", json={"count": 1, "sampler": body})
        refused = sampler["name"] == "multistep_consistency" or sampler["needs_known"]
        assert answer.status_code == (422 if refused else 202), body
    levels = next(p for p in samplers["heun"]["parameters"] if p["name"] == "levels")
    assert (levels["type"], levels["minimum"], levels["maximum"]) == ("integer", 1, 100_000)
    assert "2n - 1" in levels["description"]
    sigmas = next(p for p in samplers["heun"]["parameters"] if p["name"] == "sigmas")
    assert (sigmas["type"], sigmas["minimum"], sigmas["maximum"]) == ("array", 0, 10_000)
    body = {"count": 1, "sampler": {"name": "heun", "sigmas": [9.0, 0.5, 0.02]}}
    assert client.post("/samples", json=body).status_code == 202


def test_a_model_shows_the_picture_beside_its_weights(
    new_client, settings, models_dir: Path, tmp_path, problem
) -> None:
    shutil.copytree(models_dir, tmp_path / "models")
    client = new_client(settings.model_copy(update={"models_dir": tmp_path / "models"}))
    assert "no preview.png" in problem(client.get("/models/tiny/preview.png"), 404, "not-found")["detail"]
    assert "link" not in client.get("/models/tiny").headers
    content = os.urandom(100)
    (tmp_path / "models" / "tiny" / "1" / "preview.png").write_bytes(content)
    link = client.get("/models/tiny").headers["link"]
    assert link == '</models/tiny/preview.png?version=1>; rel="preview"'
    response = client.get("/models/tiny/preview.png")
    assert response.content == content
    assert response.headers["content-type"] == "image/png"
    tag = response.headers["etag"]
    assert client.get("/models/tiny/preview.png", headers={"If-None-Match": tag}).status_code == 304
    problem(client.get("/models/tiny/preview.png", params={"version": 2}), 404, "not-found")
    problem(client.get("/models/none/preview.png"), 404, "not-found")
