"""The baseline of benchmarks.serving: the same network behind LitServe, one batch at a time.

Run by the Python of an environment that has LitServe:
`benchmarks/litserve_server.py PORT STORE MODEL SLOTS CORE padded|compacting`.

A request is one image, so that a batch is as wide as our slots, and a grid of 16 images is no more of a batch than 16
grids of one; that is better for LitServe than whole grids as elements, whose batch would be up to 256 images wide and
would make all wait for the sum of their work. As LitServe has it, a batch is answered, and the next begun, when its
longest member is done. Until then a padded batch is as wide as it began, as one loop over a batch is. What is finished
leaves a compacting one, so that nothing is computed for padding: more than most who write such a server do. The step is
that of our own engine, so that the serving is all that differs.
"""

import base64
import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import litserve
import torch
from pydantic import TypeAdapter

from benchmarks.as_worker import engine_of
from benchmarks.padded import run_padded
from models.images import Pixels
from models.plan import plan
from models.samplers.settings import SamplerSettings
from models.samplers.table import Table
from models.sampling.chain import Chain
from models.sampling.sample import run, to_pixels
from models.store import ModelStore

BATCH_TIMEOUT = 0.05  # seconds: long enough for the images of one grid to meet in a batch, short beside any batch
SETTINGS: TypeAdapter[SamplerSettings] = TypeAdapter(SamplerSettings)


class Sampling(litserve.LitAPI):
    """One image a request, `slots` of them a batch."""

    def __init__(self, store: Path, model: str, slots: int, core: int, batches: str) -> None:
        super().__init__(max_batch_size=slots, batch_timeout=BATCH_TIMEOUT)
        self.place, self.name, self.slots, self.core = store, model, slots, core
        self.run_batch = {"padded": run_padded, "compacting": run}[batches]

    def setup(self, device: str) -> None:  # noqa: ARG002 (it is the CPU)
        """In the process that computes."""
        os.sched_setaffinity(0, [self.core])
        torch.set_num_threads(1)
        store = ModelStore(self.place)
        card = store.card(self.name)
        self.engine = engine_of(store, card, self.slots)

        @lru_cache
        def table(sampler: SamplerSettings) -> Table:
            return plan(sampler, card)[1]

        self.table = table

    def decode_request(self, request: dict[str, Any]) -> Chain:
        table = self.table(SETTINGS.validate_python(request["sampler"]))
        return Chain(table, request["seed"], request["index"])

    def batch(self, inputs: list[Chain]) -> list[Chain]:
        return inputs

    def predict(self, x: list[Chain]) -> list[Pixels]:
        self.run_batch(self.engine, x)
        return [to_pixels(chain.x) for chain in x if chain.x is not None]

    def unbatch(self, output: list[Pixels]) -> list[Pixels]:
        return output

    def encode_response(self, output: Pixels) -> dict[str, Any]:
        """The pixels, and the image-steps that were computed so far, for whoever."""
        return {"pixels": base64.b64encode(output.tobytes()).decode(), "image_steps": self.engine.image_steps}


def main() -> None:
    port, store, model, slots, core, batches = sys.argv[1:]
    api = Sampling(Path(store), model, int(slots), int(core), batches)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=False)
    server.run(host="127.0.0.1", port=int(port), num_api_servers=1, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
