"""Sampling on the page, in a real browser."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.plan import plan
from models.sampling.chain import Chain, initial, quantize
from models.store import ModelStore
from tests.system.playground.service import PATIENCE_MS, Service, ask, ended, holds, job_id, pixels, tiny

SIGMA = "\N{GREEK SMALL LETTER SIGMA}"


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


def test_a_job_of_few_evaluations_is_asked_for_once(page: Any, service: Service) -> None:
    asked = []
    page.on("request", lambda request: request.method == "POST" and asked.append(request.url))
    ask(page, steps="5")
    ended(page, "sample")
    assert len(asked) == 1
    assert page.inner_text("#sample [data-part=what]").startswith("4 images of tiny, version 1, ")
    assert service.job(job_id(page))["frames"] == 5


def test_a_seed_that_is_drawn_is_short(page: Any, service: Service) -> None:
    seeds = []
    for _ in range(2):
        tiny(page, "sample")
        page.click("#sample .go")
        ended(page, "sample")
        seeds.append(service.job(job_id(page))["seed"])
        page.goto("about:blank")
        page.goto("/")
    assert len(set(seeds)) == 2
    assert max(seeds) < 1_000_000


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
    page.select_option("#sample-model", "led")
    assert page.input_value("#sample [data-part=guidance] [type=range]") == "3", "by its card"
    page.fill("#sample [name=guidance]", "1")
    page.fill("#sample [name=count]", "2")
    page.click("#sample .go")
    holds(page, f"!location.hash.includes('{job['id']}')")
    ended(page, "sample")
    assert service.job(job_id(page))["guidance"] == 1
    page.reload()
    ended(page, "sample")
    assert page.input_value("#sample [name=guidance]") == "1"
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
