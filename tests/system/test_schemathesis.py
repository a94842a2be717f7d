"""The OpenAPI document held against a live service, with a worker and a real Valkey, by schemathesis with all checks.

Requests that fit the document and requests that do not, and chains of them along its links: nothing may be answered
with a 5xx, or in a way that the document does not tell. `--schemathesis-cases N` goes on, seed after seed, until there
were so many; `-s` shows the figures.
"""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.ports import free_port

ROOT = Path(__file__).parents[2]
CONFIGURATION = "tests/system/schemathesis/schemathesis.toml"
LIMITS = {
    "SCORESERVE_MAX_CLIENT_IMAGE_STEPS": "3000",
    "SCORESERVE_MAX_WAIT_SECONDS": "1",
    "SCORESERVE_WEBHOOK_SECRET": "whsec_" + 43 * "A" + "=",
    "SCORESERVE_WEBHOOK_NETWORKS": "127.0.0.0/8",
}
FEW, MANY = 1, 40  # examples of each operation
AT_ONCE = 4  # runs
# Runs of a seed beside each other, which share its time about evenly: each operation is in one, and links are followed
# over all of them.
_ALONE = "--phases", "examples,coverage,fuzzing"
_TWO = "^/(inpaint|samples)$"
PARTS = (
    (*_ALONE, "--include-path-regex", _TWO),
    (*_ALONE, "--exclude-path-regex", _TWO),
    ("--phases", "stateful"),
)


def test_the_service_does_what_its_document_says(
    request: pytest.FixtureRequest,
    start: Callable[..., Any],
    service_url: str,
    worker_url: str,
    until: Callable[..., None],
) -> None:
    wanted = request.config.getoption("--schemathesis-cases")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    service = start("api", "--port", str(port), SCORESERVE_REDIS_URL=service_url, **LIMITS)
    start("worker", SCORESERVE_REDIS_URL=worker_url)
    until(lambda: _ready(url), 180)
    asked = {"count": 4, "frames": 3, "seed": 1}
    job = httpx.post(f"{url}/samples", json=asked, headers={"Prefer": "wait=1"}).json()["id"]
    until(lambda: httpx.get(f"{url}/jobs/{job}").json()["state"] == "finished")
    begun, cases, seeds = time.monotonic(), 0, 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while seeds == 0 or cases < wanted:
            further = range(seeds, seeds + (AT_ONCE if wanted else 1))
            asked = [(seed, part) for seed in further for part in PARTS]
            cases += sum(pool.map(lambda one: _run(url, job, *one, MANY if wanted else FEW), asked))
            seeds = further.stop
    statuses = _statuses(url)
    print(f"{cases} cases of {seeds} seeds in {time.monotonic() - begun:.0f} s, no failure; {dict(statuses)}")
    assert service.poll() is None
    assert max(statuses) < 500
    assert statuses[422] > 0
    for route, methods in httpx.get(f"{url}/openapi.json").json()["paths"].items():
        for method in methods:
            taken = _statuses(url, method.upper(), route)
            if route in ("/colorize", "/models/{name}/scores"):  # the model here is grey, and none of the plane
                assert taken[422] > 0
                continue
            if route.startswith("/operator/"):
                assert set(taken) <= {401, 405}, f"{method} {route} was open: {dict(taken)}"
                continue
            assert taken[200] + taken[202] > 0, f"{method} {route} refused all: {dict(taken)}"


def _run(url: str, job: str, seed: int, part: tuple[str, ...], examples: int) -> int:
    """How many cases passed, of one run of a part; in it, the job of the document's examples is one that is there."""
    options = ("--no-color", "--no-shrink", "--seed", str(seed), "--max-examples", str(examples), *part)
    asked = [sys.executable, "-m", "schemathesis.cli", "--config-file", CONFIGURATION, "run", *options]
    asked.append(f"{url}/openapi.json")
    environment = {**os.environ, "SCHEMATHESIS_JOB": job, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(asked, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = re.search(r"^\s*(\d+) generated, (\d+) passed", ran.stdout, re.MULTILINE)
    assert found is not None, ran.stdout
    return int(found[2])


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _statuses(url: str, method: str | None = None, route: str | None = None) -> Counter[int]:
    """How many requests were answered with each status: of an operation, or of all but /readyz, asked before there was
    a worker."""
    counts: Counter[int] = Counter()
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics").text):
        for sample in family.samples:
            if sample.name == "scoreserve_http_requests_total":
                asked = sample.labels["method"], sample.labels["route"]
                if asked == (method, route) or (route is None and asked[1] != "/readyz"):
                    counts[int(sample.labels["status"])] += int(sample.value)
    return counts
