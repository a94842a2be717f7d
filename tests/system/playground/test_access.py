"""Who reaches the page: by the keyboard, with a key, and whoever sees or reads otherwise."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import STARTED
from tests.ports import free_port
from tests.system.playground.service import PATIENCE_MS, Service, ask, ended, holds, job_id, marked, pixels, ready, tiny

AXE = "axe-core@4.14.1"


def test_all_of_it_is_done_with_the_keyboard(page: Any, service: Service) -> None:
    press = page.keyboard.press
    page.wait_for_selector("#sample option[value=tiny]", state="attached")
    press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    tab_to(page, "document.activeElement.id === 'sample-model'")
    press("t")
    assert page.input_value("#sample-model") == "tiny"
    tab_to(page, "document.activeElement.id === 'sample-count'")
    press("Control+A")
    page.keyboard.type("4")
    press("Enter")
    ended(page, "sample")
    tab_to(page, "document.activeElement.closest('.grid')")
    press("ArrowRight")
    press("ArrowDown")
    assert page.evaluate("document.activeElement.ariaLabel") == "Image 4"
    press("Enter")
    assert page.inner_text("#viewer h2") == "Image 4 of 4"
    press("Escape")
    assert page.evaluate("document.activeElement.ariaLabel") == "Image 4"

    page.goto("/#inpaint")
    tiny(page, "inpaint")
    holds(page, "document.querySelector('#inpaint [data-part=picture]').width === 8")
    tab_to(page, "document.activeElement.dataset.part === 'surface'")
    press("ArrowLeft")
    press(" ")
    assert sum(marked(page)) > 0
    press("Control+z")
    assert sum(marked(page)) == 0


def tab_to(page: Any, condition: str) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate(f"Boolean({condition})"):
            return
    raise AssertionError(f"Tab never reaches {condition}")


def test_where_a_key_is_needed_the_page_asks_for_it_and_keeps_it_for_the_tab(
    browser: Any, start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, until: Callable[..., None]
) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    options = "--port", address.rpartition(":")[2], "--data-dir", str(tmp_path), "--grace-seconds", "0"
    with (tmp_path / "log").open("wb") as log:
        start("up", *options, log=log, SCORESERVE_REQUIRE_KEY="true")
    until(lambda: (tmp_path / "valkey.sock").exists() and ready(address), 120)
    create = [sys.executable, "-m", "cli.main", "keys", "create", "somebody", "--redis-url"]
    done = subprocess.run([*create, f"unix://{tmp_path}/valkey.sock"], capture_output=True, check=True, text=True)
    context = browser.new_context(base_url=address)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto("/")
    page.wait_for_selector("#key-dialog[open]")
    assert "needs a key" in page.inner_text("#key-dialog [data-part=why]")
    page.fill("#key-dialog [name=key]", "ssk_wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#key-dialog[open] .why:has-text('no such key')")
    page.fill("#key-dialog [name=key]", done.stdout.strip())
    page.keyboard.press("Enter")
    ask(page, steps="40")
    ended(page, "sample")
    page.reload()
    ended(page, "sample")
    assert len(pixels(page, "#sample [data-part=grid] canvas")) == 4
    assert page.locator("#key-dialog[open]").count() == 0
    other = browser.new_context(base_url=address).new_page()
    other.goto(f"/#sample/{job_id(page)}")
    other.wait_for_selector("#key-dialog[open]")
    for kept in (context, other.context):
        kept.close()


@pytest.fixture(scope="module")
def axe(request: pytest.FixtureRequest) -> str:
    """axe-core, which looks for what would keep people out; kept between runs."""
    kept = request.config.cache.mkdir("axe")
    script = kept / "package" / "axe.min.js"
    if not script.exists():
        if not shutil.which("npm"):
            pytest.skip("there is no npm to fetch axe-core with: apt-get install npm")
        command = ["npm", "pack", AXE]
        packed = subprocess.run(command, cwd=kept, env=STARTED, capture_output=True, text=True, check=False)
        if packed.returncode:
            pytest.skip(f"npm cannot fetch {AXE}: {packed.stderr.strip()[-200:]}")
        archive = kept / packed.stdout.strip().splitlines()[-1]
        subprocess.run(["tar", "xzf", archive, "package/axe.min.js"], cwd=kept, check=True)
    return script.read_text()


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["wide", "phone"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nobody_is_kept_out(browser: Any, service: Service, axe: str, theme: str, size: tuple[int, int]) -> None:
    width, height = size
    context = browser.new_context(
        base_url=service.address,
        color_scheme=theme,
        bypass_csp=True,
        reduced_motion="reduce",
        viewport={"width": width, "height": height},
    )
    page = context.new_page()
    page.goto("/")
    page.wait_for_selector("#sample .first :is(img, figcaption)")
    found = look(page, axe)
    ask(page)
    page.click("#sample button[data-look=both]")
    holds(page, "document.querySelector('#sample .job').dataset.previews >= 1")
    found += look(page, axe)
    page.goto("about:blank")
    page.goto("/")
    ask(page, steps="40")
    ended(page, "sample")
    page.wait_for_selector("#sample .scrubber:not([hidden])")
    page.wait_for_selector("#gallery canvas:not([hidden])")
    found += look(page, axe)
    page.click("#sample .grid button")
    found += look(page, axe)
    page.keyboard.press("Escape")
    for view in ("inpaint", "upscale", "compare", "plane", "queue"):
        page.goto(f"/#{view}")
        page.wait_for_selector(f"#{view} :is(.examples img, .side, .layers, tbody tr)")
        if view != "queue":
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view
        found += look(page, axe)
    page.click("#key")
    found += look(page, axe)
    context.close()
    assert found == []


def look(page: Any, axe: str) -> list[str]:
    page.evaluate(axe)
    violations = page.evaluate("axe.run().then(result => result.violations)")
    return [f"{page.url} {v['id']}: {v['help']}: {[n['html'] for n in v['nodes']]}" for v in violations]
