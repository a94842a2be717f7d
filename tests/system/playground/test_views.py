"""Views beside the sampling: pictures that are changed, samplers compared, the plane and the queue."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from tests.system.playground.service import Service, ask, ended, holds, job_id, marked, pixels, tiny, with_card


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


def test_a_model_that_completes_badly_is_told_of_where_it_is_chosen(page: Any) -> None:
    with_card(page, "inpaint", sampler={"name": "multistep_consistency", "levels": 4})
    for view in ("inpaint", "upscale"):
        page.goto(f"/#{view}")
        tiny(page, view)
        told = f"#{page.get_attribute(f'#{view}-model', 'aria-describedby')}"
        page.wait_for_selector(f"{told}:has-text('another model does better')")
        page.select_option(f"#{view}-model", "vivid")
        page.wait_for_selector(told, state="hidden")


def test_the_seed_of_a_last_job_is_on_one_line(page: Any) -> None:
    ask(page, steps="20", seed="1234567890123456")
    ended(page, "sample")
    seed = page.locator("#gallery li:first-child .seed")
    assert seed.inner_text() == "1234567890123456"
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        tall, line, wide, room = seed.evaluate(
            "e => [e.offsetHeight, parseFloat(getComputedStyle(e).lineHeight), e.scrollWidth, "
            "e.parentElement.clientWidth]"
        )
        assert tall < 1.5 * line, width
        assert wide <= room, width
        assert page.evaluate("document.documentElement.scrollWidth") <= width


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


def test_a_picture_is_made_grey_and_coloured(page: Any) -> None:
    page.goto("/#upscale")
    tiny(page, "upscale")
    holds(page, "document.querySelector('#upscale [name=factor]').options.length === 3")
    assert page.locator("#upscale [name=factor] option[value=grey]").count() == 0, "tiny has no colours"
    assert page.locator("#upscale .examples button").first.get_attribute("aria-label") == "Handwritten two"
    page.select_option("#upscale-model", "vivid")
    page.select_option("#upscale [name=factor]", "grey")
    assert page.inner_text("#upscale .go") == "Colour"
    assert page.locator("#upscale .examples button").first.get_attribute("aria-label") == "A red car"
    page.fill("#upscale [name=count]", "2")
    page.click("#upscale .go")
    ended(page, "upscale")
    (grey,) = colours(page, "#upscale [data-part=picture]")
    assert (np.ptp(grey, axis=1) == 0).all()
    assert np.ptp(grey) > 50, "an example, not an empty picture"
    first, second = colours(page, "#upscale [data-part=grid] canvas")
    for coloured in (first, second):
        assert np.abs(coloured.mean(1) - grey[:, 0]).max() <= 0.51
        assert np.ptp(coloured, axis=1).max() > 0
    assert (first != second).any()
    page.reload()
    ended(page, "upscale")
    assert page.input_value("#upscale-model") == "vivid"
    assert page.input_value("#upscale [name=factor]") == "grey"


@pytest.mark.parametrize("view", ["inpaint", "upscale"])
def test_nothing_is_asked_before_the_example_of_another_model_is_there(page: Any, view: str) -> None:
    page.goto(f"/#{view}")
    tiny(page, view)
    if view == "inpaint":
        drag(page, (0.30, 0.30), (0.70, 0.30))
    page.wait_for_selector(f"#{view} .go:enabled")
    late: list[Any] = []

    def hold(route: Any) -> None:
        late.append(route)

    page.route("**/examples/automobile.webp", hold)
    with page.expect_request("**/examples/automobile.webp"):
        page.select_option(f"#{view}-model", "vivid")
    page.wait_for_selector(f"#{view} .go:disabled")
    if view == "upscale":
        page.select_option("#upscale [name=factor]", "grey")
        page.wait_for_selector("#upscale .go:disabled")
    for route in late:
        route.continue_()
    page.unroute("**/examples/automobile.webp")
    if view == "inpaint":
        holds(page, "document.querySelector('#inpaint [data-part=overlay]').width")
        drag(page, (0.30, 0.30), (0.70, 0.30))
    page.wait_for_selector(f"#{view} .go:enabled")


def colours(page: Any, selector: str) -> list[np.ndarray]:
    """Red, green and blue of each canvas, int [pixels, 3]."""
    found = page.eval_on_selector_all(
        selector,
        "all => all.map(c => [...c.getContext('2d', {willReadFrequently: true})"
        ".getImageData(0, 0, c.width, c.height).data])",
    )
    return [np.array(data).reshape(-1, 4)[:, :3] for data in found]


def drag(page: Any, begin: tuple[float, float], end: tuple[float, float]) -> None:
    """Draws on the picture, from and to shares of its width and height."""
    page.locator("#inpaint .surface").scroll_into_view_if_needed()
    box = page.locator("#inpaint .surface").bounding_box()
    for x, y in (begin, end):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        if (x, y) == begin:
            page.mouse.down()
    page.mouse.up()


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
