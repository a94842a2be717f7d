"""What guidance costs: image throughput of guided and of mixed batches over that of unguided ones of the same size.

All in one run and in turn, through an engine's slots, by a network of a model's architecture that knows classes and has
fresh weights: what an image costs does not depend on what is drawn. A guided image is evaluated twice, so
half the throughput is what there is to be had, and of a batch that is guided to a half two thirds.

`python -m benchmarks.guidance --repeat 5`; every figure is the median over the repeats.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks import report
from models.card import ModelCard
from models.environment import describe
from models.files import write_json
from models.guidance import UNGUIDED, Guidance
from models.plan import plan
from models.samplers.heun import Heun
from models.samplers.table import Table
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.pieces import one_each
from models.sampling.sample import run
from models.score import ScoreModel, build_network
from models.store import ZOO, ModelStore

SLOTS = 16
CLASSES = 10
GUIDED = Guidance(2.0)
# Kind of batch -> how many of its images are guided, and the least throughput over that of none: 0.9 of what is there.
BATCHES = {"guided": (SLOTS, 0.45), "half guided": (SLOTS // 2, 0.6), "a quarter guided": (SLOTS // 4, 0.72)}


def with_classes(card: ModelCard) -> ScoreModel:
    """A model of a card's architecture that knows CLASSES classes, with fresh weights; of two networks, the main one.

    Raises:
        ValueError, TypeError: its network cannot know classes.
    """
    spec = card.network
    arguments = dict(spec.arguments)
    if spec.kind == "guided-unet":
        spec, arguments = spec.model_copy(update={"kind": "unet"}), dict(arguments["main"])  # type: ignore[arg-type]
    network = build_network(spec.model_copy(update={"arguments": {**arguments, "classes": CLASSES}}))
    return ScoreModel(network, card.network.parametrised(card.sigmas), card.image, classes=CLASSES)


def images_per_second(model: ScoreModel, table: Table, guided: int) -> float:
    """SLOTS images of all classes through SLOTS slots, the first so many of them guided."""
    chains = [
        Chain(table, 0, index, label=index % CLASSES, guidance=GUIDED if index < guided else UNGUIDED)
        for index in range(SLOTS)
    ]
    with one_each() as threads:
        engine = Engine(model, SLOTS, threads=threads)
        begun = time.perf_counter()
        run(engine, chains)
        seconds = time.perf_counter() - begun
    if engine.image_steps != len(table) * (SLOTS + guided):
        raise RuntimeError(f"{engine.image_steps} image-steps were done, not {len(table) * (SLOTS + guided)}")
    return SLOTS / seconds


def measure(model: ScoreModel, table: Table, repeat: int) -> dict[str, Any]:
    """Ratios of all kinds of batches to one that is not guided, which is measured before and after each."""
    ratios: dict[str, list[float]] = {kind: [] for kind in BATCHES}
    images_per_second(model, table, SLOTS)  # warm
    before = images_per_second(model, table, 0)
    for _ in range(repeat):
        for kind, (guided, _) in BATCHES.items():
            found = images_per_second(model, table, guided)
            after = images_per_second(model, table, 0)
            ratios[kind].append(2 * found / (before + after))
            before = after
    return {kind: {**report.spread(found), "least": BATCHES[kind][1]} for kind, found in ratios.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guidance", description=__doc__)
    parser.add_argument("--model", default="mnist")
    parser.add_argument("--models-dir", type=Path, default=ZOO, help="by default the models that ship with scoreserve")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    machine, console = report.environment(), report.console()
    card = ModelStore(arguments.models_dir).card(arguments.model)
    _, table = plan(Heun(name="heun", levels=18), card)
    ratios = measure(with_classes(card), table, arguments.repeat)
    console.print(describe(machine))
    rows = [
        [
            f"{SLOTS} images, {kind}: images/s over those of unguided",
            f"{found['median']:.3f}",
            f"{found['lowest']:.3f} to {found['highest']:.3f}",
            f">= {found['least']:.2f} {'met' if found['median'] >= found['least'] else 'MISSED'}",
        ]
        for kind, found in ratios.items()
    ]
    console.print(report.table(["", "median", "lowest to highest", "limit"], rows))
    if arguments.json:
        write_json(arguments.json, {"environment": machine, "repeat": arguments.repeat, "throughput_ratios": ratios})


if __name__ == "__main__":
    main()
