"""What a grid waits for behind long chains of another client, which make way or do not, or of its own.

One worker of 16 slots has a job of one client, of 10,000 images and long chains. Another client asks for grids of 16
images by the model's own sampler, one after the other, with pauses of no rhythm. First it has the worker to itself.
Where long chains make way, the first client then asks for such grids too.

`python -m benchmarks.turns`; the two kinds of worker are measured in turn, and the ratio is that of the medians.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.system import System, cores, wait_for
from models.card import ModelCard
from models.environment import describe
from models.files import write_json
from models.plan import plan
from models.samplers.euler import Euler
from models.samplers.settings import SamplerSettings
from models.store import ZOO, ModelStore
from worker.queue.jobs import JobQueue
from worker.queue.requests import SampleRequest

SLOTS = 16
LARGE = 10_000  # images of the job that is in the way
SLICES = {"making way": "2", "not making way": "1000000000"}  # seconds
OWN = "behind its own"


def submit(
    queue: JobQueue, card: ModelCard, client: str, count: int, sampler: SamplerSettings | None, seed: int
) -> str:
    """Asks for images, and returns the id of the job."""
    settings, table = plan(sampler, card)
    request = SampleRequest(model=card.name, version=card.version, count=count, seed=seed, sampler=settings)
    return queue.accept(queue.offer(request, card.image, count * len(table), client)).id


def grid_seconds(queue: JobQueue, card: ModelCard, seed: int, client: str = "grids") -> float:
    """What a grid takes, from the request to its end."""
    begun, job = time.perf_counter(), submit(queue, card, client, SLOTS, None, seed)
    wait_for(lambda: queue.get(job).state.final, "a grid", seconds=600)
    return time.perf_counter() - begun


def measure(store: ModelStore, card: ModelCard, grids: int, evaluations: int, repeat: int) -> dict[str, list[float]]:
    """Seconds of grids that have the worker to themselves, and of those behind long chains, by whose and what these do.

    Args:
        store: of the model.
        card: of the model.
        grids: behind the long chains of one worker.
        evaluations: of the network, for each of the long chains.
        repeat: workers of each kind.
    """
    chance = random.Random(0)
    found: dict[str, list[float]] = {kind: [] for kind in ("alone", OWN, *SLICES)}
    with tempfile.TemporaryDirectory() as directory:
        for number, kind in enumerate([*SLICES] * repeat):
            place = Path(directory) / str(number)
            place.mkdir()
            with System(place, store, card.name, cores(), SCORESERVE_SLICE_SECONDS=SLICES[kind]) as system:
                queue = system.queue
                system.worker(cores()[0], SLOTS)
                system.wait(workers=1)
                found["alone"] += [grid_seconds(queue, card, seed) for seed in range(3)]
                queue.forecast.look()  # at the worker's pace, as a service does
                large = submit(queue, card, "large", LARGE, Euler(name="euler", levels=evaluations), 0)
                wait_for(lambda queue=queue, large=large: queue.get(large).image_steps_done > 0, "the large job")
                for seed in range(grids):
                    time.sleep(chance.uniform(0.5, 5.0))
                    found[kind].append(grid_seconds(queue, card, seed))
                    if kind == "making way":
                        found[OWN].append(grid_seconds(queue, card, grids + seed, "large"))
    return found


def figures(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and extremes, and what making way is worth."""
    making, not_making = (median(seconds[kind]) for kind in SLICES)
    return {
        "seconds": {kind: report.spread(values) for kind, values in seconds.items()},
        "ratio": making / not_making,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.turns", description=__doc__)
    parser.add_argument("--model", default="mnist")
    parser.add_argument("--models-dir", type=Path, default=ZOO, help="by default the models that ship with scoreserve")
    parser.add_argument("--grids", type=int, default=5, help="that are asked for behind the long chains of a worker")
    parser.add_argument("--evaluations", type=int, default=500, help="of the network, for each of the long chains")
    parser.add_argument("--repeat", type=int, default=2, help="workers of each kind, in turn")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    store = ModelStore(arguments.models_dir)
    card = store.card(arguments.model)
    machine, console = report.environment(), report.console()
    found = figures(measure(store, card, arguments.grids, arguments.evaluations, arguments.repeat))
    rows = [
        [kind, *(f"{spread[part]:.2f} s" for part in ("median", "lowest", "highest"))]
        for kind, spread in found["seconds"].items()
    ]
    console.print(describe(machine))
    console.print(report.table([f"a grid of {card.name}", "median", "lowest", "highest"], rows))
    console.print(f"making way / not making way: {found['ratio']:.3f}")
    if arguments.json:
        of_model = card.model_dump(mode="json", include={"name", "version", "weights_sha256"})
        asked = {name: getattr(arguments, name) for name in ("grids", "evaluations", "repeat")}
        write_json(arguments.json, {"environment": machine, "model": of_model, **asked, **found})


if __name__ == "__main__":
    main()
