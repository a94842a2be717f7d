"""The baseline that is written first: FastAPI, a lock, and a plain loop over the images of one request at a time.

`python -m benchmarks.plain_server PORT STORE MODEL SLOTS CORE`. Noise and arithmetic are ours, so that the pixels are.
"""

import asyncio
import base64
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import TypeAdapter

from benchmarks.as_worker import engine_of
from models.plan import plan
from models.samplers.settings import SamplerSettings
from models.samplers.table import Table
from models.sampling import noise
from models.sampling.engine import advance
from models.sampling.sample import to_pixels
from models.score import ScoreModel
from models.store import ModelStore

SETTINGS: TypeAdapter[SamplerSettings] = TypeAdapter(SamplerSettings)


@torch.inference_mode()
def images_of(model: ScoreModel, table: Table, seed: int, first: int, count: int) -> torch.Tensor:
    """A loop over a batch that is the images of one request, [n, c, h, w]."""
    seeds, indices, shape = [seed] * count, range(first, first + count), model.image.chw
    assert table.initial_std is not None
    x = table.initial_mean + table.initial_std * noise.normal(seeds, indices, [0] * count, noise.INITIAL, shape)
    previous = torch.zeros_like(x)
    for k, (sigma, drift, carry, std) in enumerate(
        zip(*(table.column(name).tolist() for name in ("sigma", "drift", "carry", "noise")), strict=True)
    ):
        factors = [torch.tensor(factor, dtype=torch.float32) for factor in (drift, carry, std)]
        score = model.conditioned_score(x, model.condition(sigma).expand(count, -1))
        z = noise.normal(seeds, indices, [k] * count, noise.STEP, shape) if std else None
        x, previous = advance(x, score, previous, *factors, z)
    return x


def create(store: ModelStore, name: str, slots: int, core: int) -> FastAPI:
    """The service."""
    card = store.card(name)
    model = engine_of(store, card, slots).model
    app, lock = FastAPI(), asyncio.Lock()
    computing = ThreadPoolExecutor(1, initializer=lambda: (os.sched_setaffinity(0, [core]), torch.set_num_threads(1)))
    image_steps = 0

    @lru_cache
    def table_of(sampler: SamplerSettings) -> Table:
        return plan(sampler, card)[1]

    @app.get("/health")
    async def health() -> str:
        return "ok"

    @app.post("/predict")
    async def predict(request: dict[str, Any]) -> dict[str, Any]:
        nonlocal image_steps
        table = table_of(SETTINGS.validate_python(request["sampler"]))
        asked = request["seed"], request["first"], request["count"]
        async with lock:
            x = await asyncio.get_running_loop().run_in_executor(computing, images_of, model, table, *asked)
            image_steps += len(table) * len(x)
        pixels = b"".join(to_pixels(image).tobytes() for image in x)
        return {"pixels": base64.b64encode(pixels).decode(), "image_steps": image_steps, "active": 0}

    return app


def main() -> None:
    port, store, model, slots, core = sys.argv[1:]
    app = create(ModelStore(Path(store)), model, int(slots), int(core))
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
