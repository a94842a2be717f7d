"""Dashboards and alerts ask only for what the service and the workers have, and every alert is explained."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from prometheus_client import CollectorRegistry

from models.store import ModelStore
from service.metrics import Metrics
from worker.beside.writers import Writers
from worker.device.batch import Batch
from worker.metrics import WorkerMetrics
from worker.queue.jobs import Depth
from worker.queue.server import Memory
from worker.queue.stores import Stores

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "docker/grafana/dashboards/scoreserve.json"
RULES = ROOT / "docker/prometheus/rules.yml"
OF_PROMETHEUS = {"up": {"job", "instance"}, "ALERTS": {"alertstate"}}


@pytest.fixture(scope="module")
def metrics(models_dir: Path) -> dict[str, set[str]]:
    """Every metric that a service or a worker has -> its labels."""
    queue = Mock()
    queue.depth.return_value = Depth(jobs=0, image_steps=0, oldest_age_seconds=0)
    queue.memory.return_value = Memory(used=1, limit=2)
    queue.totals.return_value, queue.workers.return_value = {}, 1
    store = ModelStore(models_dir)
    service = Metrics(queue, store)
    service.http_requests.labels("/", "GET", "200").inc()
    service.rejections.labels("invalid").inc()
    batch = Batch(store, 1, "cpu")
    batch.warm_up("tiny")
    worker = WorkerMetrics(batch, Writers(Stores(), lambda: None))
    for metric in (worker.images, worker.job_seconds, worker.queue_seconds):
        metric.labels("tiny", "sample")
    worker.image_steps.labels("tiny")
    worker.step_seconds.labels("tiny")
    found: dict[str, set[str]] = dict(OF_PROMETHEUS)
    for registry in (service.registry, worker.registry):
        found |= _names(registry)
    return found


def expressions() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    annotations = [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
    return targets + annotations + [rule["expr"] for rule in rules()]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("expression", expressions())
def test_a_query_asks_for_what_there_is(expression: str, metrics: dict[str, set[str]]) -> None:
    asked = re.findall(r"\b(scoreserve_\w+|up|ALERTS)\b(?:\{(\w+)=)?", expression)
    assert asked
    for name, label in asked:
        assert name in metrics
        assert not label or label in metrics[name]
    for labels in re.findall(r"by \(([^)]*)\)", expression):
        there = set().union({"instance", "job"}, *(metrics[name] for name, _ in asked))
        assert {label.strip() for label in labels.split(",")} <= there


def test_what_operators_ask_for_is_on_the_dashboard() -> None:
    asked = " ".join(expressions())
    for name in (
        "queue_image_steps", "queue_oldest_age_seconds", "slots_active", "worker_image_steps_total",
        "step_duration_seconds_bucket", "job_duration_seconds_bucket", "rejections_total", "workers",
    ):  # fmt: skip
        assert f"scoreserve_{name}" in asked


def test_panels_are_drawn_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_alert_is_explained() -> None:
    said = (ROOT / "docs/operations.md").read_text()
    for rule in rules():
        assert f"### {rule['alert']}\n" in said
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"


def test_a_dashboard_finds_its_source() -> None:
    sources = yaml.safe_load((ROOT / "docker/grafana/provisioning/datasources/prometheus.yml").read_text())
    (source,) = sources["datasources"]
    text = DASHBOARD.read_text()
    assert set(re.findall(r'"uid": "(\w+)"', text)) == {source["uid"]}
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert source["url"] == "http://prometheus:9090"
    providers = yaml.safe_load((ROOT / "docker/grafana/provisioning/dashboards/scoreserve.yml").read_text())
    path = providers["providers"][0]["options"]["path"]
    assert f"./docker/grafana/dashboards:{path}:ro" in compose["grafana"]["volumes"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_finds_no_fault() -> None:
    for arguments in (["check", "config"], ["test", "rules"]):
        file = {"check": "docker/prometheus/prometheus.yml", "test": "tests/docker/alerts.yml"}[arguments[0]]
        done = subprocess.run(["promtool", *arguments, ROOT / file], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def _names(registry: CollectorRegistry) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for family in registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, {"instance", "job"}).update(sample.labels)
    return found
