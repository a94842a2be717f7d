"""The service behind a playground, and what a person does on its pages."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from redis import Redis

from tests.ports import free_port

PATIENCE_MS = 120_000  # of a machine that has much else to do
SLOW = "1000"  # steps: long enough to do something meanwhile, for a network that is tiny


class Service:
    """An API and a worker of the model `tiny`; the API can be stopped and started again.

    Args:
        models_dir: that has it.
        redis_url: of the queue, for who may do all; what others have left there goes, keys too.
        settings: of the environment, besides.
    """

    def __init__(self, models_dir: Path, redis_url: str, **settings: str) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.redis_url = redis_url
        self.environment = {
            **os.environ,
            "SCORESERVE_MODELS_DIR": str(models_dir),
            "SCORESERVE_DEFAULT_MODEL": "tiny",
            "SCORESERVE_SLOTS": "32",
            "SCORESERVE_GRACE_SECONDS": "0",
            "SCORESERVE_ALLOWED_HOSTS": ".test",  # by which proxies have it
            **settings,
        }
        with Redis.from_url(redis_url) as redis:
            redis.flushall()
        self.worker = self._start("worker")
        self.start_api()

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        user = "worker:CHANGE-ME-WORKER" if arguments[0] == "worker" else "service:CHANGE-ME-SERVICE"
        address = self.redis_url.replace("//", f"//{user}@")
        command = [sys.executable, "-m", "cli.main", *arguments]
        return subprocess.Popen(command, env={**self.environment, "SCORESERVE_REDIS_URL": address})

    def start_api(self) -> None:
        self.api = self._start("api", "--port", str(self.port))
        deadline = time.monotonic() + 120
        while not self.ready():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def ready(self) -> bool:
        return ready(self.address)

    def job(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = httpx.get(f"{self.address}/jobs/{job_id}").json()
        return job

    def stop(self) -> None:
        """The worker takes its leave, or the next service here would show its slots for as long as leases last."""
        self.api.kill()
        self.worker.terminate()
        for process in (self.api, self.worker):
            process.wait()


def ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def ask(page: Any, steps: str = SLOW, count: str = "4", seed: str = "7") -> None:
    """Asks for samples by following the scores, for so many steps."""
    tiny(page, "sample")
    page.select_option("#sample [data-part=sampler]", "follow_scores")
    page.click("#sample summary:has-text('Settings')")
    page.fill("#sample [name=steps]", steps)
    page.fill("#sample [name=count]", count)
    page.fill("#sample [name=seed]", seed)
    page.click("#sample .go")
    page.wait_for_selector("#sample :is(.job, form .trouble):not([hidden])")


def with_card(page: Any, view: str, **fields: Any) -> None:
    """Opens a view as if the card of `tiny` had these fields."""

    def answer(route: Any) -> None:
        cards = route.fetch().json()
        route.fulfill(json=[card | fields if card["name"] == "tiny" else card for card in cards])

    page.route("**/models", answer)
    page.goto(f"/#{view}")
    page.reload()
    tiny(page, view)


def tiny(page: Any, view: str) -> None:
    """Chooses the model that is fast."""
    page.wait_for_selector(f"#{view}-model option[value=tiny]", state="attached")
    page.select_option(f"#{view}-model", "tiny")


def ended(page: Any, view: str, state: str = "finished") -> None:
    page.wait_for_selector(f'#{view} .job[data-state="{state}"]', timeout=PATIENCE_MS)


def holds(page: Any, expression: str, seconds: float = PATIENCE_MS / 1000) -> None:
    """Waits until an expression is true; the page's policy lets nothing wait inside of it."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(f"Boolean({expression})"):
        assert time.monotonic() < deadline, f"not true within {seconds} s: {expression}"
        page.wait_for_timeout(30)


def pixels(page: Any, selector: str) -> list[list[int]]:
    """The first channel of each canvas, row by row."""
    found: list[list[int]] = page.eval_on_selector_all(
        selector,
        "all => all.map(c => [...c.getContext('2d', {willReadFrequently: true})"
        ".getImageData(0, 0, c.width, c.height).data]"
        ".filter((_, i) => i % 4 === 0))",
    )
    return found


def job_id(page: Any) -> str:
    return str(page.evaluate("location.hash")).split("/")[1]


def marked(page: Any) -> list[int]:
    """Which pixels of the picture are to be painted anew, row by row."""
    (red,) = pixels(page, "#inpaint [data-part=overlay]")
    return [int(value > 0) for value in red]
