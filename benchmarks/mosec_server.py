"""Another baseline of benchmarks.serving: the same network behind mosec's dynamic batching, compacting batches.

Run by the Python of an environment that has mosec: `benchmarks/mosec_server.py --port PORT`. STORE MODEL SLOTS CORE are
in the environment as BASELINE, since mosec reads the command line itself.
"""

import base64
import os
from pathlib import Path
from typing import Any

import mosec
import torch
from pydantic import TypeAdapter

from benchmarks.as_worker import engine_of
from models.plan import plan
from models.samplers.settings import SamplerSettings
from models.sampling.chain import Chain
from models.sampling.sample import run, to_pixels
from models.store import ModelStore

SETTINGS: TypeAdapter[SamplerSettings] = TypeAdapter(SamplerSettings)
STORE, MODEL, SLOTS, CORE = os.environ["BASELINE"].split()
WAIT_MILLISECONDS = 50  # for a batch to fill


class Sampling(mosec.Worker):
    """One image a request, as many as there are slots a batch."""

    def __init__(self) -> None:
        super().__init__()
        os.sched_setaffinity(0, [int(CORE)])
        torch.set_num_threads(1)
        store = ModelStore(Path(STORE))
        self.card = store.card(MODEL)
        self.engine = engine_of(store, self.card, int(SLOTS))
        self.tables: dict[SamplerSettings, Any] = {}

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        chains = []
        for request in data:
            settings = SETTINGS.validate_python(request["sampler"])
            if settings not in self.tables:
                self.tables[settings] = plan(settings, self.card)[1]
            chains.append(Chain(self.tables[settings], request["seed"], request["index"]))
        run(self.engine, chains)
        done = [to_pixels(chain.x) for chain in chains if chain.x is not None]
        steps = self.engine.image_steps
        return [{"pixels": base64.b64encode(p.tobytes()).decode(), "image_steps": steps} for p in done]


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(Sampling, num=1, max_batch_size=int(SLOTS), max_wait_time=WAIT_MILLISECONDS)
    server.run()
