"""What a second worker gains: image-steps fulfilled by two workers over those by one, each with a core of its own.

In turn one worker on the first core and two on the first two fulfil shards of which more wait than they can do; counted
are the image-steps of shards that were stored, from a second after all have begun. What a machine can gain at most is
measured as well, by one and by two processes that run nothing but the engine.

`python -m benchmarks.workers --repeat 5`; the ratio is the median over the repeats.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import report
from benchmarks.system import ROOT, System, cores
from models.card import ModelCard
from models.environment import describe
from models.files import write_json
from models.plan import plan
from models.samplers.euler import Euler
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.score import ScoreModel
from models.store import ZOO, ModelStore
from worker.queue.requests import SampleRequest

LIMIT = 1.9
SLOTS = 16
COUNT = 4  # images of a job: a shard is stored often, so that counting is exact
SAMPLER = Euler(name="euler", levels=20)


def fulfilled(directory: Path, store: ModelStore, card: ModelCard, on: Sequence[int], seconds: float) -> float:
    """Image-steps a second that workers on these cores fulfil, one each."""
    directory.mkdir()
    with System(directory, store, card.name, cores()) as system:
        for core in on:
            system.worker(core, SLOTS)
        system.wait(workers=len(on))
        _, table = plan(SAMPLER, card)
        request = SampleRequest(
            model=card.name, version=card.version, count=COUNT, seed=0, sampler=plan(SAMPLER, card)[0]
        )

        def refill() -> None:
            while system.queue.rq.count < 2 * SLOTS * len(on):
                system.queue.accept(system.queue.offer(request, card.image, COUNT * len(table)))

        def done() -> int:
            return system.queue.totals().get("image_steps", 0)

        def wait(until: float) -> None:
            while time.perf_counter() < until:
                refill()
                time.sleep(0.05)

        wait(time.perf_counter() + 1.0)
        begun, before = time.perf_counter(), done()
        wait(begun + seconds)
        return (done() - before) / (time.perf_counter() - begun)


def computed(directory: Path, name: str, on: Sequence[int], seconds: float) -> float:
    """Image-steps a second of as many processes that run nothing but the engine."""
    command = [sys.executable, "-m", "benchmarks.workers", "--alone", str(seconds), "--model", name]
    command += ["--models-dir", str(directory)]
    alone = [
        subprocess.Popen([*command, "--core", str(core)], stdout=subprocess.PIPE, text=True, cwd=ROOT) for core in on
    ]
    return sum(float(process.communicate()[0]) for process in alone)


def compute(store: ModelStore, card: ModelCard, core: int, seconds: float) -> float:
    """Image-steps a second of the engine in this process, from two seconds on, when others like it have begun too."""
    os.sched_setaffinity(0, [core])
    torch.set_num_threads(1)
    engine, (_, table) = Engine(ScoreModel.load(store, card), SLOTS), plan(SAMPLER, card)

    def work(until: float) -> int:
        before = engine.image_steps
        while time.perf_counter() < until:
            engine.admit([Chain(table, 0, index) for index in range(engine.free)])
            engine.step()
        return engine.image_steps - before

    work(time.perf_counter() + 2.0)
    begun = time.perf_counter()
    steps = work(begun + seconds)
    rate = steps / (time.perf_counter() - begun)
    work(time.perf_counter() + 1.0)
    return rate


def measure(store: ModelStore, card: ModelCard, seconds: float, repeat: int) -> dict[str, Any]:
    """One worker and two in turn, every other time two first.

    Raises:
        RuntimeError: there are not two cores.
    """
    first_two = cores()[:2]
    if len(first_two) < 2:
        raise RuntimeError("this measures two workers on two cores, and there is one core")
    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as directory:
        for i in range(repeat):
            for n in (1, 2) if i % 2 == 0 else (2, 1):
                place = Path(directory) / f"{i}-{n}"
                rates[n].append(fulfilled(place, store, card, first_two[:n], seconds))
    machine = [computed(store.directories[0], card.name, first_two[:n], seconds / 2) for n in (1, 2)]
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    return {
        "one_worker_image_steps_per_second": report.spread(rates[1]),
        "two_workers_image_steps_per_second": report.spread(rates[2]),
        "ratio": {**report.spread(ratios), "limit": LIMIT, "met": median(ratios) >= LIMIT},
        "ratio_of_the_engine_alone": machine[1] / machine[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--model", default="mnist")
    parser.add_argument("--models-dir", type=Path, default=ZOO, help="by default the models that ship with scoreserve")
    parser.add_argument("--seconds", type=float, default=12.0, help="how long each is measured")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--alone", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    store = ModelStore(arguments.models_dir)
    card = store.card(arguments.model)
    if arguments.alone:
        print(compute(store, card, arguments.core, arguments.alone))
        return
    machine, console = report.environment(), report.console()
    found = measure(store, card, arguments.seconds, arguments.repeat)
    figures = {
        "environment": machine,
        "model": card.model_dump(mode="json", include={"name", "version", "weights_sha256"}),
        "seconds": arguments.seconds,
        "repeat": arguments.repeat,
        **found,
    }
    rows = [
        [what, *(f"{found[name][part]:{form}}" for part in ("median", "lowest", "highest")), ""]
        for what, name, form in (
            ("one worker, image-steps/s", "one_worker_image_steps_per_second", ".0f"),
            ("two workers, image-steps/s", "two_workers_image_steps_per_second", ".0f"),
            ("two workers / one worker", "ratio", ".3f"),
        )
    ]
    rows[-1][-1] = f">= {LIMIT} {'met' if found['ratio']['met'] else 'MISSED'}"
    rows.append(["two engines alone / one engine alone", f"{found['ratio_of_the_engine_alone']:.3f}", "", "", ""])
    console.print(describe(machine))
    console.print(report.table([f"{card.name}", "median", "lowest", "highest", "limit"], rows))
    if arguments.json:
        write_json(arguments.json, figures)


if __name__ == "__main__":
    main()
