"""What grows as work grows, and how fast: where cost bends away from a line, there is something to mend.

- The engine's own milliseconds of a step, at 1 to 4,096 slots, with a network that costs nothing: on a CPU, and as on a
  GPU, where the network and the noise are replayed and the host does all else.
- The engine's own share of a step of 16 slots beside a real network, and what that share would be if the network took
  half the time; and what a step takes over what the network alone takes, in turn, as a worker on a CPU runs it.
- A store of 1 and of 200 models: the card of one, the cards of all, and over HTTP a list and a request.
- A queue of 1 and of 10,000 waiting jobs, and jobs of 1 and of 100,000 images: all that a job goes through in Redis.

`python -m benchmarks.growth --json benchmarks/results/growth.json`. All are medians. The engine's own milliseconds are
processor time of the thread, which neighbours on a busy machine do not change much.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import torch
from torch import Tensor

from benchmarks import queued, report, small
from benchmarks.gpu.networks import free_model
from benchmarks.system import System, cores, wait_for
from models.card import ImageShape
from models.cores import usable_cores
from models.environment import describe
from models.files import write_json
from models.plan import plan
from models.samplers.ancestral import Ancestral
from models.samplers.annealed_langevin import AnnealedLangevin
from models.sampling.buckets import Call
from models.sampling.chain import Chain
from models.sampling.choice import choose
from models.sampling.engine import Engine
from models.sampling.pieces import Pieces, one_each
from models.score import ScoreModel
from models.store import ZOO, ModelStore

SLOTS = (1, 4, 16, 64, 256, 1024, 4096)
SHARED = 16  # slots of a worker on a CPU
LINE = 1.2  # power of the slots with which the time of a step may grow, at most
OWN_SHARE_LIMIT = 0.05  # of a step of 16 slots, though the network takes half the time
GPU_MILLISECONDS = 1.65  # that the mnist model is estimated to take an H200 for 256 images
GPU_SHARE_LIMIT = 0.1
MODELS = 200
WAITING = 10_000
IMAGES = 100_000


def replayed(call: Call) -> Call:
    """As a CUDA graph is seen by the host: what was recorded costs nothing to start."""
    out = call()
    return lambda: out


def milliseconds(call: Callable[[], Any], repeat: int, clock: Callable[[], float] = time.thread_time) -> float:
    """Median time of a call, after one that warms up."""
    call()
    taken = []
    for _ in range(repeat):
        begun = clock()
        call()
        taken.append(clock() - begun)
    return 1e3 * median(taken)


def engine_steps(name: str, slots: Sequence[int], repeat: int) -> dict[str, Any]:
    """The engine's own milliseconds of a row of Langevin dynamics, each of which has noise, at so many slots."""
    card = ModelStore(ZOO).card(name)
    cpu = torch.device("cpu")
    table = plan(AnnealedLangevin(levels=50, steps_per_level=20), card)[1]

    def steps(count: int, rows: int | None) -> float:
        # On a GPU the host does not see pixels: here they are so few that their arithmetic is nothing.
        image = card.image if rows is None else ImageShape(channels=1, height=4, width=4)
        engine = Engine(free_model(image, cpu), count, capture=None if rows is None else replayed)
        engine.rows = rows or 1
        engine.admit([Chain(table, 0, i) for i in range(count)])
        with one_each():
            return milliseconds(engine.step, max(3, min(repeat, 40_000 // count // engine.rows))) / engine.rows

    found: dict[str, Any] = {}
    for what, rows in (("cpu", None), ("gpu, a row a step", 1), ("gpu, 8 rows a step", 8)):
        taken = {str(count): steps(count, rows) for count in slots}
        powers = {f"{a} to {b}": math.log(taken[str(b)] / taken[str(a)]) / math.log(b / a) for a, b in pairwise(slots)}
        worst = max(powers.values(), default=0.0)
        found[what] = {"milliseconds": taken, "powers": powers, "limit": LINE, "met": worst <= LINE}
    if "256" in found["gpu, 8 rows a step"]["milliseconds"]:
        own = found["gpu, 8 rows a step"]["milliseconds"]["256"]
        share = own / (own + GPU_MILLISECONDS)
        found["share_of_256_slots_on_a_gpu"] = {
            "share": share,
            "estimated_milliseconds_of_the_network": GPU_MILLISECONDS,
            "limit": GPU_SHARE_LIMIT,
            "met": share <= GPU_SHARE_LIMIT,
        }
    return found


def own_share(name: str, count: int, own_milliseconds: float, repeat: int) -> dict[str, Any]:
    """The engine's share of a step beside a network, for a sampler with noise in every row.

    All is processor time of all threads, so that noise that is drawn beside the network counts in full. What is taken
    in turn with the network is the difference of two long times: the more honest figure, and by far the less certain.

    Args:
        name: of the model.
        count: slots.
        own_milliseconds: what a step takes with a network that costs nothing.
        repeat: steps.
    """
    store = ModelStore(ZOO)
    card = store.card(name)
    model = ScoreModel.load(store, card)
    table, threads = plan(AnnealedLangevin(), card)[1], usable_cores()
    with one_each():
        choice = choose(model, table, count, threads=threads)
        engine = Engine(model, count, choice.widths, threads=threads, piece=choice.piece)
        pieces = Pieces(model.conditioned_score, threads, choice.piece)
        chains = [Chain(table, 0, i) for i in range(count)]
        engine.admit(chains)
        conditions = torch.stack([model.condition(float(table.column("sigma")[0]))] * count)

        def network() -> Tensor:
            return pieces(engine._x, conditions)

        network()
        engine.step()
        pairs = []
        for _ in range(min(repeat, len(table) - 2)):
            begun = time.process_time()
            network()
            between = time.process_time()
            engine.step()
            pairs.append((between - begun, time.process_time() - between))
    alone, more = median(a for a, _ in pairs), median(b - a for a, b in pairs)
    own = own_milliseconds / 1e3
    half = own / (own + alone / 2)
    return {
        "slots": count,
        "threads": threads,
        "execution": str(choice.execution),
        "milliseconds_of_the_network": 1e3 * alone,
        "own_milliseconds": own_milliseconds,
        "own_share": own / (own + alone),
        "milliseconds_of_a_step_over_the_network_in_turn": 1e3 * more,
        "own_share_with_a_network_of_half_the_time": {
            "share": half,
            "limit": OWN_SHARE_LIMIT,
            "met": half <= OWN_SHARE_LIMIT,
        },
    }


def models(counts: Sequence[int], repeat: int) -> dict[str, Any]:
    """Milliseconds of what has to do with models, with so many of them in the store."""
    found: dict[str, Any] = {}
    for count in counts:
        with tempfile.TemporaryDirectory() as directory:
            store = ModelStore(Path(directory) / "models")
            card = small.publish(store)
            weights = store.weights(card)
            for number in range(1, count):
                store.publish(card.model_copy(update={"name": f"model-{number}"}), weights)
            place = Path(directory) / "service"
            place.mkdir()
            with System(place, store, card.name, cores()) as system, httpx.Client(timeout=60) as http:
                wait_for(lambda http=http, system=system: _alive(http, system), "the service")  # type: ignore[misc]
                body = {"model": card.name, "sampler": Ancestral(name="ancestral", levels=5).model_dump()}

                def get(path: str, http: httpx.Client = http, system: System = system) -> None:
                    http.get(f"{system.address}{path}").raise_for_status()

                def post(http: httpx.Client = http, system: System = system, body: Any = body) -> None:
                    http.post(f"{system.address}/samples", json=body).raise_for_status()

                clock = time.perf_counter
                found[str(count)] = {
                    "card": milliseconds(lambda store=store, card=card: store.card(card.name), repeat),
                    "cards": milliseconds(store.cards, repeat),
                    "GET /models": milliseconds(lambda: get("/models"), repeat, clock),
                    "GET /models/small": milliseconds(lambda: get("/models/small"), repeat, clock),
                    "POST /samples": milliseconds(post, repeat, clock),
                }
    return found


def _alive(http: httpx.Client, system: System) -> bool:
    system.children.check()
    try:
        return http.get(f"{system.address}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def rows_of(found: dict[str, Any]) -> list[list[str]]:
    """The figures as rows of a table."""
    rows = []
    for what, figures in found["engine"].items():
        if "milliseconds" in figures:
            taken = ", ".join(f"{count}: {ms:.3g}" for count, ms in figures["milliseconds"].items())
            limit = f"power <= {LINE} {'met' if figures['met'] else 'MISSED'}"
            rows.append([f"engine's own ms a row, {what}; slots: ms", taken, limit])
        else:
            limit = f"<= {figures['limit']:.0%} {'met' if figures['met'] else 'MISSED'}"
            rows.append(["engine's own share, 256 slots on a GPU, estimated", f"{figures['share']:.1%}", limit])
    own = found["own_share"]
    half = own["own_share_with_a_network_of_half_the_time"]
    what = f"engine's own share, {own['slots']} slots, {own['threads']} threads"
    rows += [
        [what, f"{own['own_share']:.1%} ({own['own_milliseconds']:.2f} ms)", ""],
        [
            "a step over the network alone, in turn, ms",
            f"{own['milliseconds_of_a_step_over_the_network_in_turn']:.2f}",
            "",
        ],
        [
            f"{what}, a network of half the time",
            f"{half['share']:.1%}",
            f"<= {half['limit']:.0%} {'met' if half['met'] else 'MISSED'}",
        ],
    ]
    for of in ("models", "waiting", "images"):
        few, *_ = found[of].values()
        for what in few:
            taken = ", ".join(f"{count}: {ms[what]:.2f}" for count, ms in found[of].items())
            rows.append([f"{what}, ms; {of}: ms", taken, ""])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--model", default="mnist", help="of those that ship")
    parser.add_argument("--repeat", type=int, default=40)
    parser.add_argument("--slots", default=",".join(map(str, SLOTS)))
    parser.add_argument("--models", type=int, default=MODELS, help="how many a large store has")
    parser.add_argument("--waiting", type=int, default=WAITING, help="jobs in a long queue")
    parser.add_argument("--images", type=int, default=IMAGES, help="of a large job")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    machine, console = report.environment(), report.console()
    slots = [int(count) for count in arguments.slots.split(",")]
    found = {
        "engine": engine_steps(arguments.model, slots, arguments.repeat),
        "models": models((1, arguments.models), arguments.repeat),
        "waiting": queued.waiting((1, arguments.waiting), arguments.repeat),
        "images": queued.images((1, arguments.images), arguments.repeat),
    }
    own = engine_steps(arguments.model, [SHARED], arguments.repeat)["cpu"]["milliseconds"][str(SHARED)]
    found["own_share"] = own_share(arguments.model, SHARED, own, arguments.repeat)
    console.print(describe(machine))
    console.print(report.table(["", "", "limit"], rows_of(found)))
    if arguments.json:
        write_json(arguments.json, {"environment": machine, "repeat": arguments.repeat, **found})


if __name__ == "__main__":
    main()
