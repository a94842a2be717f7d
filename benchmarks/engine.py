"""How fast the engine is: seconds for 16 images, its own share of the time, and ratios against two baselines.

All in one run and in turn, on one warm model:

- the engine against the plain textbook loop of models.sampling.reference on the same network;
- chains of 35 and of 241 rows through slots against padded static batches of the same width;
- with `--executions`, the network in all ways to run it (channels_last, compiled, bfloat16) against as it is.

`python -m benchmarks.engine --repeat 5`; every figure is the median over the repeats.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import report
from models import schedules
from models.card import ModelCard
from models.environment import describe
from models.files import write_json
from models.plan import plan
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.heun import Heun
from models.samplers.settings import SamplerSettings
from models.samplers.table import COLUMNS, Table
from models.sampling import reference
from models.sampling.chain import Chain
from models.sampling.choice import choose
from models.sampling.engine import Engine
from models.sampling.sample import run
from models.score import ScoreModel
from models.store import ZOO, ModelStore

SLOTS = 16
OWN_SHARE_LIMIT = 0.05
HEUN = Heun(name="heun", levels=18)
LONG = AnnealedLangevin(levels=80, steps_per_level=3, denoise=True)


class TimedNetwork(nn.Module):
    """A network that adds up the seconds and the calls of its forward."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.condition = network, network.condition
        self.seconds, self.calls = 0.0, 0

    def __call__(self, x: Tensor, condition: Tensor) -> Tensor:
        start = time.perf_counter()
        out: Tensor = self.network(x, condition)
        self.seconds += time.perf_counter() - start
        self.calls += 1
        return out


@dataclass(frozen=True)
class Run:
    """Seconds of a run, and the share of them outside the network's forward."""

    seconds: float
    own_share: float


@dataclass(frozen=True)
class Sampler:
    """A sampler to be timed, and the seconds that 16 images may take with it."""

    label: str
    settings: SamplerSettings
    table: Table
    limit: float


def timed(network: TimedNetwork, work: Callable[[], None], evaluations: int | None = None) -> Run:
    """Times `work`.

    Raises:
        RuntimeError: the network was not called `evaluations` times, so that its seconds are not what they seem.
    """
    network.seconds, network.calls = 0.0, 0
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    if evaluations is not None and network.calls != evaluations:
        raise RuntimeError(f"{network.calls} calls of the network were timed, {evaluations} were to be")
    return Run(seconds, 1 - network.seconds / seconds)


def through_engine(model: ScoreModel, tables: Sequence[Table], seed: int = 0) -> None:
    """An image for each table, in order of arrival, through an engine of SLOTS slots."""
    run(Engine(model, SLOTS), [Chain(table, seed, index) for index, table in enumerate(tables)])


@torch.inference_mode()
def through_textbook(model: ScoreModel, settings: SamplerSettings) -> None:
    """SLOTS images as a paper writes it: a loop over a batch, with noise from torch.randn.

    Raises:
        TypeError: there is no such loop for this sampler.
    """
    shape = SLOTS, *model.image.chw
    match settings:
        case AnnealedLangevin(levels=int(levels), steps_per_level=int(steps), step_size=float(step_size)):
            assert settings.sigma_max is not None and settings.sigma_min is not None  # noqa: PT018
            sigmas = schedules.geometric(settings.sigma_max, settings.sigma_min, levels)
            x, denoise = model.parametrisation.mean + sigmas[0] * torch.randn(shape), bool(settings.denoise)
            reference.annealed_langevin(
                model.score, x, sigmas, steps, step_size, denoise, noise=lambda _: torch.randn(shape)
            )
        case Heun(levels=int(levels), rho=float(rho), sigma_max=float(sigma_max), sigma_min=float(sigma_min)):
            sigmas = schedules.karras(sigma_max, sigma_min, levels, rho)
            x = model.parametrisation.mean + sigmas[0] * torch.randn(shape)
            reference.heun(model.score, x, sigmas)
        case _:
            raise TypeError(f"models.sampling.reference is compared for annealed_langevin and heun, not {settings}")


def through_padded_batches(model: ScoreModel, tables: Sequence[Table]) -> None:
    """As `through_engine`, but in batches of SLOTS that start together and last as long as their longest."""
    for i in range(0, len(tables), SLOTS):
        batch = tables[i : i + SLOTS]
        through_engine(model, [padded(table, max(map(len, batch))) for table in batch])


def padded(table: Table, length: int) -> Table:
    """A table with rows at its end that evaluate the network and leave the image as it is."""
    idle = np.tile([table.rows[-1, 0], *[0.0] * (len(COLUMNS) - 1)], (length - len(table), 1))
    return replace(table, rows=np.concatenate([table.rows, idle]))


def in_turn(repeat: int, a: Callable[[], Run], b: Callable[[], Run]) -> list[tuple[Run, Run]]:
    """Runs A and B `repeat` times each, in turn, every other time B first."""
    pairs = []
    for i in range(repeat):
        if i % 2:
            second = b()
            pairs.append((a(), second))
        else:
            pairs.append((a(), b()))
    return pairs


def against_textbook(model: ScoreModel, network: TimedNetwork, sampler: Sampler, repeat: int) -> dict[str, Any]:
    """16 images through 16 slots: seconds, the engine's own share, and time ratio to the textbook loop."""
    rows = len(sampler.table)
    pairs = in_turn(
        repeat,
        lambda: timed(network, lambda: through_engine(model, [sampler.table] * SLOTS), rows),
        lambda: timed(network, lambda: through_textbook(model, sampler.settings), rows),
    )
    return {
        "sampler": sampler.settings.model_dump(exclude_none=True),
        "evaluations": rows,
        "seconds_for_16_images": _figures([a.seconds for a, _ in pairs], sampler.limit),
        "own_share": _figures([a.own_share for a, _ in pairs], OWN_SHARE_LIMIT),
        "own_milliseconds_per_step": _figures([1e3 * a.own_share * a.seconds / rows for a, _ in pairs]),
        "textbook_own_share": _figures([b.own_share for _, b in pairs]),
        "time_ratio_to_textbook": _figures([a.seconds / b.seconds for a, b in pairs]),
    }


def against_padding(model: ScoreModel, network: TimedNetwork, card: ModelCard, chains: int, repeat: int) -> Any:
    """Short and long chains, arriving in turn: image throughput through slots over that of padded batches."""
    short, long = plan(HEUN, card)[1], plan(LONG, card)[1]
    tables = [short, long] * (chains // 2)
    pairs = in_turn(
        repeat,
        lambda: timed(network, lambda: through_engine(model, tables)),
        lambda: timed(network, lambda: through_padded_batches(model, tables)),
    )
    return {
        "chains": len(tables),
        "rows": [len(short), len(long)],
        "slots_images_per_second": _figures([len(tables) / a.seconds for a, _ in pairs]),
        "padded_images_per_second": _figures([len(tables) / b.seconds for _, b in pairs]),
        "throughput_ratio": _figures([b.seconds / a.seconds for a, b in pairs]),
    }


def executions_of(model: ScoreModel, card: ModelCard) -> dict[str, Any]:
    """What a worker would choose, exact and not; and the time of all that was near enough, over that of eager."""
    table = plan(None, card)[1]
    exact, any_ = (choose(model, table, SLOTS, exact) for exact in (True, False))
    model.executed = None
    chosen = {"exact": str(exact.execution), "not_exact": str(any_.execution), "widths": exact.widths}
    return {"executions": {"chosen": chosen, "time_ratios": {**any_.time_ratios, **exact.time_ratios}}}


def _figures(values: Sequence[float], limit: float | None = None) -> dict[str, Any]:
    out: dict[str, Any] = {"median": median(values), "lowest": min(values), "highest": max(values)}
    return out if limit is None else {**out, "limit": limit, "met": out["median"] <= limit}


def _row(what: str, figures: dict[str, Any], form: str) -> list[str]:
    spread = f"{figures['lowest']:{form}} to {figures['highest']:{form}}"
    limit = f"<= {figures['limit']:{form}} {'met' if figures['met'] else 'MISSED'}" if "limit" in figures else ""
    return [what, f"{figures['median']:{form}}", spread, limit]


def rows_of(figures: dict[str, Any]) -> list[list[str]]:
    """The figures as rows of a table."""
    rows = []
    for label, found in figures["samplers"].items():
        what = f"{label}, {found['evaluations']} evaluations"
        rows += [
            _row(f"{what}: seconds for 16 images", found["seconds_for_16_images"], ".2f"),
            _row(f"{what}: engine's own share", found["own_share"], ".1%"),
            _row(f"{what}: engine's own milliseconds a step", found["own_milliseconds_per_step"], ".2f"),
            _row(f"{what}: textbook loop's own share", found["textbook_own_share"], ".1%"),
            _row(f"{what}: time, engine / textbook loop", found["time_ratio_to_textbook"], ".3f"),
        ]
    ratios = figures.get("executions", {}).get("time_ratios", {})
    rows += [
        [f"score: time, {execution} / eager float32", f"{ratio:.3f}", "", ""] for execution, ratio in ratios.items()
    ]
    mixed = figures["mixed_lengths"]
    what = (
        f"{mixed['chains']} chains of {mixed['rows'][0]} and {mixed['rows'][1]} rows: images/s, slots / padded batches"
    )
    return [*rows, _row(what, mixed["throughput_ratio"], ".2f")]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--model", default="mnist")
    parser.add_argument("--models-dir", type=Path, default=ZOO, help="by default the models that ship with scoreserve")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--chains", type=int, default=64, help="how many chains of mixed lengths arrive together")
    parser.add_argument(
        "--executions", action="store_true", help="also compare the ways to run the network; compiling takes minutes"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    machine, console = report.environment(), report.console()
    store = ModelStore(arguments.models_dir)
    card = store.card(arguments.model)
    model = ScoreModel.load(store, card)
    executions = executions_of(model, card) if arguments.executions else {}
    model.network = network = TimedNetwork(model.network)
    langevin, heun = plan(AnnealedLangevin(), card), plan(HEUN, card)
    samplers = [Sampler("annealed_langevin", *langevin, limit=8.0), Sampler("heun", *heun, limit=2.0)]
    for sampler in samplers:  # warm
        through_engine(model, [sampler.table] * SLOTS)
        through_textbook(model, sampler.settings)
    figures = {
        "environment": machine,
        "model": card.model_dump(mode="json", include={"name", "version", "weights_sha256"}),
        "repeat": arguments.repeat,
        **executions,
        "samplers": {s.label: against_textbook(model, network, s, arguments.repeat) for s in samplers},
        "mixed_lengths": against_padding(model, network, card, arguments.chains, arguments.repeat),
    }
    console.print(describe(machine))
    console.print(report.table(["", "median", "lowest to highest", "limit"], rows_of(figures)))
    if arguments.json:
        write_json(arguments.json, figures)


if __name__ == "__main__":
    main()
