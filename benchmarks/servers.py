"""The systems that benchmarks.serving compares, each as its clients see it."""

import asyncio
import base64
import io
import json
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import numpy as np

from benchmarks import peers_environment
from benchmarks.arrivals import SAMPLERS, Arrival
from benchmarks.system import ROOT, Children, System, apart, free_port, wait_for
from models.images import Pixels
from models.store import ModelStore

CAPACITY_SECONDS = 4.0  # of full slots
SETTLE_SECONDS = 1.5  # in which a worker reports what it has computed
LOOK_SECONDS = 0.02  # between two looks for a report: to look all the time takes from the core that computes


class Server(ABC):
    """A system that is started, asked, and stopped. One process computes, on a core of its own.

    Args:
        store: where its model is.
        model: name.
        slots: images that are advanced together.
    """

    name: str

    def __init__(self, store: ModelStore, model: str, slots: int) -> None:
        self.store, self.model, self.slots = store, model, slots
        self._aside = tempfile.TemporaryDirectory()
        self.directory = Path(self._aside.name)

    @abstractmethod
    def __enter__(self) -> "Server": ...

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._aside.cleanup()

    @abstractmethod
    async def ask(self, http: httpx.AsyncClient, arrival: Arrival) -> Pixels:
        """The images of a grid, uint8 [count, h, w, c], once all are there."""

    @abstractmethod
    async def ask_in_vain(self, http: httpx.AsyncClient, arrival: Arrival, seconds: float) -> None:
        """Asks for a grid, and cancels it so many seconds later, as well as the system can."""

    @abstractmethod
    async def computed(self, http: httpx.AsyncClient) -> int:
        """Image-steps computed since the start, when nothing is in flight any more."""

    @abstractmethod
    async def capacity(self, http: httpx.AsyncClient) -> float:
        """Image-steps a second while all slots are in use."""


class Scoreserve(Server):
    """Our service, and one worker."""

    name = "scoreserve"

    def __enter__(self) -> "Scoreserve":
        core, others = apart()
        self.system = System(self.directory, self.store, self.model, others)
        self.system.__enter__()
        self.system.worker(core, self.slots)
        self.system.wait(workers=1)
        return self

    def __exit__(self, *_: Any) -> None:
        self.system.__exit__()
        super().__exit__()

    async def ask(self, http: httpx.AsyncClient, arrival: Arrival) -> Pixels:
        answer = await http.post(self._url, json=self._body(arrival), headers={"Accept": "application/x-npz"})
        images: Pixels = np.load(io.BytesIO(answer.raise_for_status().content))["images"]
        return images

    async def ask_in_vain(self, http: httpx.AsyncClient, arrival: Arrival, seconds: float) -> None:
        job = (await http.post(self._url, json=self._body(arrival))).raise_for_status().json()
        await asyncio.sleep(seconds)
        answer = await http.delete(f"{self.system.address}/jobs/{job['id']}")
        if answer.status_code != 409:  # it had ended
            answer.raise_for_status()

    async def computed(self, http: httpx.AsyncClient) -> int:  # noqa: ARG002
        await asyncio.sleep(SETTLE_SECONDS)
        return self.system.queue.totals()["image_steps_computed"]

    async def capacity(self, http: httpx.AsyncClient) -> float:
        """From one report of the worker to another, some seconds later; what is left of the work is cancelled."""
        longest = Arrival(0.0, self.slots, max(SAMPLERS), 0, None)
        bodies = [self._body(longest) | {"seed": seed} for seed in range(8)]
        jobs = [(await http.post(self._url, json=body)).raise_for_status().json() for body in bodies]
        await asyncio.sleep(1.0)
        (begun, before), (ended, after) = await self._report(), (0.0, 0)
        while ended < begun + CAPACITY_SECONDS:
            ended, after = await self._report()
        for job in jobs:
            await http.delete(f"{self.system.address}/jobs/{job['id']}")
        return (after - before) / (ended - begun)

    async def _report(self) -> tuple[float, int]:
        """The moment of the worker's next report, and the image-steps that it had computed then."""
        last = computed = self.system.queue.totals().get("image_steps_computed", 0)
        while computed == last:
            await asyncio.sleep(LOOK_SECONDS)
            computed = self.system.queue.totals().get("image_steps_computed", 0)
        return time.perf_counter(), computed

    @property
    def _url(self) -> str:
        return f"{self.system.address}/samples"

    def _body(self, arrival: Arrival) -> dict[str, Any]:
        return {"model": self.model, "count": arrival.count, "seed": arrival.seed, "sampler": arrival.sampler}


class LitServe(Server):
    """LitServe with dynamic batching, each batch as wide as it began: see benchmarks/litserve_server.py."""

    name = "LitServe"
    batches = "padded"

    health = "/health"
    predict = "/predict"

    def command(self, port: int, core: int) -> tuple[list[str], dict[str, str]]:
        """What is started, and more of its environment."""
        return self._by_peer("litserve_server.py", port, core, self.batches), {}

    def _by_peer(self, script: str, port: int, core: int, *more: str) -> list[str]:
        python = peers_environment.python(peers_environment.default_place())
        arguments = [str(port), str(self.store.directories[0]), self.model, str(self.slots), str(core), *more]
        return [str(python), str(ROOT / "benchmarks" / script), *arguments]

    def __enter__(self) -> "LitServe":
        core, others = apart()
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        self.children, self._probed = Children(self.directory), 0
        self.children.start(*self.command(port, core), others)
        wait_for(self._ready, self.name)
        return self

    def __exit__(self, *_: Any) -> None:
        self.children.stop()
        super().__exit__()

    async def ask(self, http: httpx.AsyncClient, arrival: Arrival) -> Pixels:
        async with asyncio.TaskGroup() as group:
            images = [group.create_task(self._image(http, arrival, index)) for index in range(arrival.count)]
        return np.stack([image.result()[0] for image in images])

    async def ask_in_vain(self, http: httpx.AsyncClient, arrival: Arrival, seconds: float) -> None:
        """LitServe's batched loop does not know that a client went away: there is no more to do than to go."""
        try:
            await asyncio.wait_for(self.ask(http, arrival), seconds)
        except TimeoutError:
            return

    async def computed(self, http: httpx.AsyncClient) -> int:
        """Batches are made in order of arrival, so what comes last knows of all. Without these questions themselves."""
        probe = Arrival(0.0, 1, 35, 0, None)
        _, image_steps = await self._image(http, probe, 0)
        self._probed += probe.image_steps
        return image_steps - self._probed

    async def capacity(self, http: httpx.AsyncClient) -> float:
        """Of some full batches of the longest sampler."""
        longest, batches = Arrival(0.0, self.slots, max(SAMPLERS), 0, None), 4
        await self.ask(http, longest)  # the first of its kind
        begun = time.perf_counter()
        await asyncio.gather(*(self.ask(http, longest) for _ in range(batches)))
        self._probed += (1 + batches) * longest.image_steps
        return batches * longest.image_steps / (time.perf_counter() - begun)

    async def _image(self, http: httpx.AsyncClient, arrival: Arrival, index: int) -> tuple[Pixels, int]:
        body = {"seed": arrival.seed, "index": index, "sampler": arrival.sampler}
        answer = (await http.post(f"{self.address}{self.predict}", json=body)).raise_for_status().json()
        image = np.frombuffer(base64.b64decode(answer["pixels"]), np.uint8)
        card = self.store.card(self.model)
        return image.reshape(card.image.height, card.image.width, card.image.channels), answer["image_steps"]

    def _ready(self) -> bool:
        self.children.check()
        try:
            return httpx.get(f"{self.address}{self.health}").status_code == 200
        except httpx.TransportError:
            return False


class CompactingLitServe(LitServe):
    """LitServe with batches that what is finished leaves."""

    name = "LitServe, compacting"
    batches = "compacting"


class GridServer(LitServe):
    """A server that is asked for whole grids, and answers with lines of JSON, of which the last tells all."""

    async def ask(self, http: httpx.AsyncClient, arrival: Arrival) -> Pixels:
        return (await self._grid(http, arrival, 0, arrival.count))[0]

    async def computed(self, http: httpx.AsyncClient) -> int:
        """Asks for small ones until nothing else is there."""
        probe, active = Arrival(0.0, 1, 35, 0, None), 1
        while active:
            _, said = await self._grid(http, probe, 0, 1)
            self._probed += probe.image_steps
            active = said["active"]
        return int(said["image_steps"]) - self._probed

    async def _grid(
        self, http: httpx.AsyncClient, arrival: Arrival, first: int, count: int
    ) -> tuple[Pixels, dict[str, Any]]:
        body = {"seed": arrival.seed, "first": first, "count": count, "sampler": arrival.sampler}
        answer = (await http.post(f"{self.address}{self.predict}", json=body)).raise_for_status()
        said = json.loads(answer.text.strip().rpartition("\n")[2])
        images = np.frombuffer(base64.b64decode(said["pixels"]), np.uint8)
        image = self.store.card(self.model).image
        return images.reshape(count, image.height, image.width, image.channels), said


class ContinuousLitServe(GridServer):
    """LitServe's continuous batching as fast as it can be made: see benchmarks/litserve_continuous.py."""

    name = "LitServe, continuous"
    way = "queueing"

    def command(self, port: int, core: int) -> tuple[list[str], dict[str, str]]:
        # Its steps move between threads, each of which torch would give threads of its own.
        return self._by_peer("litserve_continuous.py", port, core, self.way), {"OMP_NUM_THREADS": "1"}

    async def ask_in_vain(self, http: httpx.AsyncClient, arrival: Arrival, seconds: float) -> None:
        asked = asyncio.ensure_future(self._post(http, self._body(arrival)))
        await asyncio.sleep(seconds)
        await self._post(http, {"cancel": arrival.seed})
        await asked

    async def _post(self, http: httpx.AsyncClient, body: dict[str, Any]) -> None:
        (await http.post(f"{self.address}{self.predict}", json=body)).raise_for_status()

    def _body(self, arrival: Arrival) -> dict[str, Any]:
        return {"seed": arrival.seed, "first": 0, "count": arrival.count, "sampler": arrival.sampler}


class PlainContinuousLitServe(ContinuousLitServe):
    """LitServe's continuous batching as it is written at first: an image a request, and no cancelling."""

    name = "LitServe, continuous, plain"
    way = "plain"

    async def ask(self, http: httpx.AsyncClient, arrival: Arrival) -> Pixels:
        async with asyncio.TaskGroup() as group:
            images = [group.create_task(self._grid(http, arrival, index, 1)) for index in range(arrival.count)]
        return np.concatenate([image.result()[0] for image in images])

    async def ask_in_vain(self, http: httpx.AsyncClient, arrival: Arrival, seconds: float) -> None:
        await LitServe.ask_in_vain(self, http, arrival, seconds)


class FastApiWithLock(GridServer):
    """FastAPI, a lock and a plain loop: see benchmarks/plain_server.py."""

    name = "FastAPI and a lock"

    def command(self, port: int, core: int) -> tuple[list[str], dict[str, str]]:
        arguments = [str(port), str(self.store.directories[0]), self.model, str(self.slots), str(core)]
        return [sys.executable, "-m", "benchmarks.plain_server", *arguments], {}


class Mosec(LitServe):
    """mosec's dynamic batching with compacting batches: see benchmarks/mosec_server.py."""

    name = "mosec, compacting"
    health, predict = "/metrics", "/inference"

    def command(self, port: int, core: int) -> tuple[list[str], dict[str, str]]:
        python, script = self._by_peer("mosec_server.py", port, core)[:2]
        options = ["--port", str(port), "--address", "127.0.0.1", "--path", str(self.directory / "mosec")]
        options += ["--timeout", "3600000", "--capacity", "16384", "--log-level", "warning"]
        baseline = f"{self.store.directories[0]} {self.model} {self.slots} {core}"
        return [python, script, *options], {"BASELINE": baseline}
