"""Draws the pictures of the README and of the page anew, from a service that runs, so that they are never of another.

    make up
    python -m docs.pictures                                    # of http://127.0.0.1:8000, into docs/

Takes some minutes: the service samples for all of them. Needs Chromium, and playwright of the extra `dev`.
"""

import argparse
import io
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from scoreserve import Client

DOCS = Path(__file__).parent
WIDE, PHONE = (1280, 860), (390, 844)
PATIENCE_MS = 900_000  # of a machine that has much else to do
COLOURS = 128  # of a picture of the page: a third of the bytes, and nobody sees it
PIXEL = 2  # for each of a model's
GAP = 6  # pixels between the parts of a picture
SEED = 8  # of what the page shows
LONG = {"name": "annealed_langevin", "steps_per_level": 20}  # what a worker has in its slots when they are looked at


@dataclass(frozen=True)
class View:
    """A picture of the page.

    Args:
        show: brings a page there, of a model and so many images; returns where what goes on is cancelled, if anything.
        vivid: of the model of colours, whose picture keeps all of them.
        whole: the page to its end, not what is seen of it first.
        phone: as a phone has it, in dark colours.
    """

    show: Callable[[Any, str, int], Sequence[str] | None]
    vivid: bool = False
    whole: bool = False
    phone: bool = False


def main(arguments: list[str] | None = None) -> None:
    """Draws all pictures, and says which."""
    parser = argparse.ArgumentParser(prog="python -m docs.pictures", description=__doc__.partition("\n")[0])
    parser.add_argument("--server", default="http://127.0.0.1:8000", help="address of the service")
    parser.add_argument("--out", type=Path, default=DOCS, help="directory that the pictures are written to")
    parser.add_argument("--model", default="mnist", help="whose images they show")
    parser.add_argument("--vivid", default="cifar10", help="a model of colours, that a grey picture is shown with")
    parser.add_argument("--count", type=int, default=16, help="images of a grid on the page")
    asked = parser.parse_args(arguments)
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("There is no Chromium to see the page with: apt-get install chromium")
    with Client(asked.server) as client:
        for name, picture in of_images(client, asked.model, asked.count).items():
            _write(asked.out / name, picture)
    of_page(asked.server, asked.out / "page", asked.model, asked.vivid, asked.count, chromium)


def of_images(client: Client, model: str, count: int) -> dict[str, bytes]:
    """The pictures that clients draw: by file name, as the README has them."""
    grid = client.wait(client.sample(model=model, count=4 * count, seed=1))
    strip = client.wait(client.sample(model=model, count=4, seed=7, frames=8, sampler={"name": "heun"}))
    return {
        "grid.png": client.view(grid, "grid.png"),
        "filmstrip.png": client.view(strip, "filmstrip.png", scale=PIXEL),
        "completions.png": completions(client, model, count),
    }


def completions(client: Client, model: str, count: int) -> bytes:
    """What is kept of an image, and completions: by Euler's method, which does not go back, and by default."""
    whole = client.image(client.wait(client.sample(model=model, count=3, seed=1)), 2)  # which may become several things
    width, height = whole.size
    mask = Image.new("L", whole.size)
    mask.paste(255, (width // 2, 0, width, height))  # white is repainted
    kept = whole.copy()
    kept.paste(96, (width // 2, 0, width, height)) if whole.mode == "L" else kept.paste((96,) * 3, mask=mask)
    parts = [kept.resize((PIXEL * width, PIXEL * height), Image.Resampling.NEAREST)]
    for options in ({"sampler": {"name": "euler"}}, {}):
        job = client.wait(client.inpaint(whole, mask, model=model, count=count, seed=1, **options))
        parts.append(client.grid(job, scale=PIXEL))
    return _png(side_by_side(parts))


def side_by_side(parts: list[Image.Image]) -> Image.Image:
    """Pictures in a row, each in the middle of its height, on white."""
    size = sum(part.width for part in parts) + GAP * (len(parts) - 1), max(part.height for part in parts)
    row, left = Image.new(parts[0].mode, size, "white"), 0
    for part in parts:
        row.paste(part, (left, (row.height - part.height) // 2))
        left += part.width + GAP
    return row


def of_page(server: str, out: Path, model: str, vivid: str, count: int, chromium: str) -> None:
    """The page in a browser, a picture for each of VIEWS; of a model, and of one of colours."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 (of the extra `dev`)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        try:
            pages = {False: _opened(browser, server, WIDE, "light"), True: _opened(browser, server, PHONE, "dark")}
            for name, view in VIEWS.items():
                page = pages[view.phone]
                going = view.show(page, vivid if view.vivid else model, count) or ()
                page.evaluate("scrollTo(0, 0)")
                shown = page.screenshot(full_page=view.whole)
                for cancel in going:
                    page.request.post(cancel)
                _write(out / f"{name}.png", shown if view.vivid else _light(shown))
        finally:
            browser.close()


def _opened(browser: Any, server: str, size: tuple[int, int], theme: str) -> Any:
    viewport = {"width": size[0], "height": size[1]}
    # Nothing moves by itself, or a picture would depend on when it was taken.
    context = browser.new_context(base_url=server, viewport=viewport, color_scheme=theme, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_MS)
    return context.new_page()


def _asked(page: Any, view: str, model: str, count: int) -> None:
    """A view with its form filled in."""
    page.goto(f"/#{view}")
    page.wait_for_selector(f"#{view}-model option[value='{model}']", state="attached")
    page.select_option(f"#{view}-model", model)
    page.fill(f"#{view} [name=count]", str(count))
    page.fill(f"#{view} [name=seed]", str(SEED))


def _finished(page: Any, view: str, jobs: int = 1) -> None:
    _until(page, lambda: page.locator(f"#{view} .job[data-state=finished] .grid.ready").count() == jobs)


def _until(page: Any, true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not true():
        if time.monotonic() > deadline:
            sys.exit(f"Nothing came for {PATIENCE_MS / 60_000:.0f} minutes; the page says:\n{page.inner_text('main')}")
        page.wait_for_timeout(50)


def _on_its_way(page: Any, model: str, count: int) -> None:
    """Noise and estimate, when the first shapes are seen."""
    _asked(page, "sample", model, count)
    page.select_option("#sample [data-part=sampler]", "annealed_langevin")
    page.click("#sample .go")
    # Not page.click, which waits until the button is seen: it is hidden once all is done, which may be by now.
    page.dispatch_event("#sample button[data-look=both]", "click")
    job = page.locator("#sample .job")
    bar = page.locator("#sample .job progress")
    _until(
        page,
        lambda: job.get_attribute("data-state") == "finished" or bar.evaluate("bar => bar.value / bar.max") >= 0.45,
    )


def _result(page: Any, model: str, count: int) -> None:
    page.goto("about:blank")
    _asked(page, "sample", model, count)
    page.click("#sample .go")
    _finished(page, "sample")


def _inpainted(page: Any, model: str, count: int) -> None:
    _asked(page, "inpaint", model, count)
    page.click("#inpaint button:has-text('Rectangle')")
    box = page.locator("#inpaint .surface").bounding_box()
    x, y, side = box["x"], box["y"], box["width"]
    page.mouse.move(x + 0.52 * side, y + 2)
    page.mouse.down()
    page.mouse.move(x + side - 2, y + box["height"] - 2, steps=4)
    page.mouse.up()
    page.click("#inpaint .go")
    _finished(page, "inpaint")


def _upscaled(page: Any, model: str, count: int) -> None:
    _asked(page, "upscale", model, count)
    page.click("#upscale .go")
    _finished(page, "upscale")


def _coloured(page: Any, model: str, count: int) -> None:
    page.goto("about:blank")
    _asked(page, "upscale", model, count)
    page.select_option("#upscale [name=factor]", "grey")
    page.click("#upscale .go")
    _finished(page, "upscale")


def _compared(page: Any, model: str, count: int) -> None:
    _asked(page, "compare", model, count)
    page.click("#compare .go")
    _finished(page, "compare", 3)
    page.wait_for_selector("#compare > .scrubber:not([hidden])")


def _plane(page: Any, _model: str, _count: int) -> None:
    page.goto("/#plane")
    page.wait_for_selector("#plane .layers")
    page.click("#plane button:has-text('Play')")
    annealed = page.locator("#plane .level").last
    first = page.locator("#plane .level").first
    told = lambda place: place.inner_text().partition("·")[0]  # noqa: E731 (the noise level)
    _until(page, lambda: told(annealed) == told(first))
    page.click("#plane button:has-text('Pause')")


def _queue(page: Any, model: str, count: int) -> Sequence[str]:
    """While one job is on its way and others wait."""
    asked = [{"model": model, "count": wanted, "sampler": LONG} for wanted in (4 * count, count, 2 * count)]
    jobs = [page.request.post("/samples", data=one).json()["links"]["cancel"] for one in asked]
    page.goto("/#queue")
    page.wait_for_selector("#queue tbody tr")
    slots = page.locator("#queue .slots .on")
    unended = page.locator("#queue tr[data-state=queued], #queue tr[data-state=running]")
    _until(page, lambda: slots.count() > 0 or unended.count() == 0)  # as where all is done sooner than seen
    return jobs


def _light(screenshot: bytes) -> bytes:
    with Image.open(io.BytesIO(screenshot)) as picture:
        return _png(picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    print(f"{path}: {len(content):,} bytes")


# Each beside what it shows: the test of this file holds them to docs/page.md.
VIEWS = {
    "sample": View(_on_its_way),
    "result": View(_result),
    "inpaint": View(_inpainted),
    "upscale": View(_upscaled),
    "colour": View(_coloured, vivid=True),
    "compare": View(_compared, whole=True),
    "plane": View(_plane),
    "queue": View(_queue),
    "phone": View(_result, phone=True),
}


if __name__ == "__main__":
    main()
