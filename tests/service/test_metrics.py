"""/metrics: what Prometheus scrapes."""

import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from worker.batching import BatchingWorker


def scrape(client) -> dict[str, float]:
    """Samples by name and labels, such as `scoreserve_jobs_total status=finished`."""
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    samples = {}
    for family in text_string_to_metric_families(response.text):
        assert family.documentation, f"{family.name} has no help text"
        for sample in family.samples:
            labels = " ".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name} {labels}".strip()] = sample.value
    return samples


def test_metrics_may_have_a_port_of_their_own(new_client, settings, problem: Callable[..., Any]) -> None:
    client = new_client(settings.model_copy(update={"api_metrics_port": 1}))
    problem(client.get("/metrics"), 404, "not-found")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        metrics = client.app.state.context.metrics
        with pytest.raises(OSError, match="in use"):
            metrics.serve("127.0.0.1", port)
    server, thread = metrics.serve("127.0.0.1", port)
    try:
        assert "scoreserve_redis_up 1.0" in httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


TEXT, OPEN = "text/plain; version=1.0.0; charset=utf-8", "application/openmetrics-text; version=1.0.0; charset=utf-8"
OF_PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;"
    "q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (OF_PROMETHEUS, OPEN),
        ("application/openmetrics-text", OPEN),
        ("application/openmetrics-text; version=nonsense", OPEN),
        ("application/openmetrics-text;q=0.5, text/plain", TEXT),
        ("application/openmetrics-text;q=0, */*", TEXT),
        ("*/*", TEXT),
        ("", TEXT),
        ("image/png", TEXT),  # rather than nothing
    ],
)
def test_they_are_in_the_format_that_is_asked_for(client, accept: str, media_type: str) -> None:
    client.submit()
    response = client.get("/metrics", headers={"accept": accept})
    assert (response.status_code, response.headers["content-type"]) == (200, media_type)
    assert "accept" in response.headers["vary"].lower()
    read = read_openmetrics if media_type == OPEN else text_string_to_metric_families
    samples = [sample for family in read(response.text) for sample in family.samples]
    accepted = [one for one in samples if one.name == "scoreserve_jobs_total" and one.labels["status"] == "accepted"]
    assert [one.value for one in accepted] == [1]


def test_an_idle_service_has_all_its_metrics(client) -> None:
    found = scrape(client)
    assert found["scoreserve_redis_up"] == 1
    assert found["scoreserve_redis_memory_bytes"] > 0
    assert found["scoreserve_redis_memory_max_bytes"] == 0
    assert found["scoreserve_rejections_total reason=internal"] == 0, "or the first error would be no increase"
    assert found["scoreserve_model_info model=tiny version=1"] == 1
    for name in ("workers", "queue_jobs", "queue_image_steps", "queue_oldest_age_seconds"):
        assert found[f"scoreserve_{name}"] == 0
    for name in ("images_total", "image_steps_total"):
        assert found[f"scoreserve_{name}"] == 0
    for status in ("accepted", "finished", "failed", "cancelled"):
        assert found[f"scoreserve_jobs_total status={status}"] == 0


def test_the_queue_is_measured_in_image_steps(
    client, new_worker: Callable[[], BatchingWorker], work: Callable[[], None]
) -> None:
    client.submit(count=6)
    client.delete(client.submit(count=2)["links"]["self"])
    worker = new_worker()
    worker.register_birth()
    worker._claim()
    for _ in range(5):
        worker._step()
    worker._beat()
    found = scrape(client)
    assert found["scoreserve_workers"] == 1
    assert found["scoreserve_queue_jobs"] == 1
    assert found["scoreserve_queue_image_steps"] == 6 * (13 - 5)
    assert 0 < found["scoreserve_queue_oldest_age_seconds"] < 30
    assert found["scoreserve_jobs_total status=accepted"] == 2
    assert found["scoreserve_jobs_total status=cancelled"] == 1
    while worker._claims:
        worker._step()
    worker._beat()
    worker.register_death()
    found = scrape(client)
    assert found["scoreserve_queue_jobs"] == found["scoreserve_queue_image_steps"] == 0
    assert found["scoreserve_jobs_total status=finished"] == 1
    assert found["scoreserve_images_total"] == 6
    assert found["scoreserve_image_steps_total"] == found["scoreserve_image_steps_computed_total"] == 6 * 13


def test_requests_are_counted_by_route_and_never_by_id(client, redis: Any) -> None:
    for _ in range(2):
        client.submit()
    job = client.submit()
    client.get(job["links"]["self"])
    client.get("/jobs/" + 24 * "0")
    client.get("/no/such/page")
    client.begin("BREW", "/samples").result(60)
    client.post("/samples", json={"count": 0})
    found = scrape(client)
    assert found["scoreserve_http_requests_total method=POST route=/samples status=202"] == 3
    assert found["scoreserve_http_requests_total method=GET route=/jobs/{job_id} status=200"] == 1
    assert found["scoreserve_http_requests_total method=GET route=/jobs/{job_id} status=404"] == 1
    assert found["scoreserve_http_requests_total method=GET route=none status=404"] == 1
    assert found["scoreserve_rejections_total reason=invalid"] == 1
    assert found["scoreserve_rejections_total reason=not-found"] == 2
    assert not any(job["id"] in name or "/no/such" in name or "BREW" in name for name in found)


def test_what_breaks_is_counted(client, monkeypatch: Any, problem: Callable[..., Any]) -> None:
    monkeypatch.setattr("service.asking.intake.Intake.sample", lambda *_: 1 / 0)
    response = client.post("/samples", json={})
    assert "division" not in problem(response, 500, "internal")["detail"]
    found = scrape(client)
    assert found["scoreserve_http_requests_total method=POST route=/samples status=500"] == 1
    assert found["scoreserve_rejections_total reason=internal"] == 1
