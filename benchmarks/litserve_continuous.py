"""Another baseline of benchmarks.serving: the same network behind LitServe's ContinuousBatchingLoop.

Run by the Python of an environment that has LitServe:
`benchmarks/litserve_continuous.py PORT STORE MODEL SLOTS CORE queueing|plain`.

What is finished leaves and what waits joins at every step, as in our own worker. The step is that of our own engine, so
that the serving is all that differs. It is written twice:

- queueing: as fast as this loop can be made. A request is a grid, which waits in a queue of the API's own, so the loop
  is told that there is always room: otherwise freed slots stay empty until the next request comes. `step` goes on until
  a grid is done and takes new grids on between any two steps of the engine, since the loop adds requests from another
  thread meanwhile; it never returns an empty list, after which the loop would sleep. Grids can be cancelled by another
  request, for which LitServe has no word.
- plain: as it is written at first, by the loop's own words. A request is one image, `has_capacity` says whether a slot
  is free, `step` is one step; one that finishes nothing says so to the client of the oldest image, since an empty
  answer is taken for an error.
"""

import base64
import os
import sys
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain as chained
from pathlib import Path
from typing import Any

import litserve
import torch
from litserve.loops.continuous_batching_loop import ContinuousBatchingLoop, Output
from litserve.utils import LitAPIStatus
from pydantic import TypeAdapter

from benchmarks.as_worker import engine_of
from models.plan import plan
from models.samplers.settings import SamplerSettings
from models.samplers.table import Table
from models.sampling.chain import Chain
from models.sampling.sample import to_pixels
from models.store import ModelStore

SETTINGS: TypeAdapter[SamplerSettings] = TypeAdapter(SamplerSettings)


@dataclass(eq=False)
class Grid:
    """What one request asked for.

    Args:
        uid: LitServe's.
        key: the client's own, for cancelling it.
        chains: its images.
        left: how many of them are not done.
    """

    uid: str
    key: int
    chains: list[Chain]
    left: int


class Continuous(litserve.LitAPI):
    """What both ways have in common."""

    def __init__(self, store: Path, model: str, slots: int, core: int) -> None:
        super().__init__(stream=True, max_batch_size=slots, loop=ContinuousBatchingLoop())
        self.place, self.name, self.slots, self.core = store, model, slots, core

    def setup(self, device: str) -> None:  # noqa: ARG002 (it is the CPU)
        """In the process that computes; the threads that it starts later are on the same core."""
        os.sched_setaffinity(0, [self.core])
        torch.set_num_threads(1)
        store = ModelStore(self.place)
        card = store.card(self.name)
        self.engine = engine_of(store, card, self.slots)
        self.inbox: deque[tuple[str, dict[str, Any]]] = deque()  # the loop's thread appends, that of `step` takes

        @lru_cache
        def table(sampler: SamplerSettings) -> Table:
            return plan(sampler, card)[1]

        self.table = table
        self.waiting: deque[Chain] = deque()
        self.grids: dict[Chain, Grid] = {}

    def add_request(self, uid: str, request: dict[str, Any]) -> None:
        self.inbox.append((uid, request))

    def has_active_requests(self) -> bool:
        return bool(self.inbox or self.grids)

    def grid(self, uid: str, request: dict[str, Any]) -> None:
        """Puts a grid's images last in the queue."""
        table, seed, first = self.table(SETTINGS.validate_python(request["sampler"])), request["seed"], request["first"]
        chains = [Chain(table, seed, index) for index in range(first, first + request["count"])]
        self.waiting.extend(chains)
        self.grids |= dict.fromkeys(chains, Grid(uid, seed, chains, len(chains)))

    def advance(self) -> list[Grid]:
        """One step of the engine, in which those take part that waited for a free slot; returns what is done."""
        self.engine.admit([self.waiting.popleft() for _ in range(min(self.engine.free, len(self.waiting)))])
        done = []
        for chain in self.engine.step():
            grid = self.grids.pop(chain)
            grid.left -= 1
            if not grid.left:
                done.append(grid)
        return done

    def answer(self, uid: str, grid: Grid | None) -> list[Output]:
        """All that is said to a request, and its end: LitServe sends no data with that."""
        chains = grid.chains if grid else []
        pixels = b"".join(to_pixels(chain.x).tobytes() for chain in chains if chain.x is not None)
        said = {"pixels": pixels, "image_steps": self.engine.image_steps, "active": len(self.grids) + len(self.inbox)}
        return [Output(uid, said, LitAPIStatus.OK), Output(uid, None, LitAPIStatus.FINISH_STREAMING)]

    def encode_response(self, output: dict[str, Any] | None) -> dict[str, Any] | str:
        return output | {"pixels": base64.b64encode(output["pixels"]).decode()} if output else ""


class Queueing(Continuous):
    """As fast as it can be made."""

    def has_capacity(self) -> bool:
        return True

    def step(self, _: list[Output] | None) -> list[Output]:
        out: list[Output] = []
        while not out:
            while self.inbox:
                uid, request = self.inbox.popleft()
                if "cancel" in request:
                    out += self.cancel(request["cancel"]) + self.answer(uid, None)
                else:
                    self.grid(uid, request)
            out += chained.from_iterable(self.answer(grid.uid, grid) for grid in self.advance())
        return out

    def cancel(self, key: int) -> list[Output]:
        of_key = {chain: grid for chain, grid in self.grids.items() if grid.key == key}
        self.engine.evict(of_key)
        self.waiting = deque(chain for chain in self.waiting if chain not in of_key)
        self.grids = {chain: grid for chain, grid in self.grids.items() if grid.key != key}
        return [Output(grid.uid, None, LitAPIStatus.FINISH_STREAMING) for grid in {*of_key.values()}]


class Plain(Continuous):
    """As it is written at first."""

    def has_capacity(self) -> bool:
        return len(self.inbox) + len(self.grids) < self.slots

    def step(self, _: list[Output] | None) -> list[Output]:
        while self.inbox:
            self.grid(*self.inbox.popleft())
        out = [*chained.from_iterable(self.answer(grid.uid, grid) for grid in self.advance())]
        if not out:
            grid = next(iter(self.grids.values()))
            out = [Output(grid.uid, {"pixels": b""}, LitAPIStatus.OK)]
        return out


def main() -> None:
    port, store, model, slots, core, way = sys.argv[1:]
    api = {"queueing": Queueing, "plain": Plain}[way](Path(store), model, int(slots), int(core))
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=False)
    server.run(host="127.0.0.1", port=int(port), num_api_servers=1, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
