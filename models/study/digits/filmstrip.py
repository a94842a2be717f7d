"""A filmstrip of annealed Langevin dynamics: what chains look like on their way, and when it is decided where they end.

As Figure 4 of Song & Ermon 2019; besides, at each moment, the image that the model expects behind the noise.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models import files
from models.evaluation.bench import Bench, Progress
from models.evaluation.classifier import CONFIDENT
from models.evaluation.samples import key
from models.evaluation.settings import setting
from models.images import Pixels
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.table import Table, snapshots
from models.sampling.chain import Chain, quantize
from models.sampling.engine import Engine
from models.sampling.pieces import one_each
from models.sampling.sample import run
from models.score import ScoreModel
from models.store import ModelStore
from models.study.digits.noise import denoise
from models.study.judge import bench_of, slots_of

SEED = 0


@dataclass(frozen=True)
class Moment:
    """All chains after the same number of evaluations.

    Args:
        evaluations: how many.
        sigma: the level of the last of them.
        noisy, denoised: what the chains look like, and what the model expects behind the noise, uint8 [n, h, w, c].
        recognised, recognised_denoised: shares that the classifier is sure of.
        decided: share whose denoised image it takes for the class of the last one.
        off: root mean square distance of a pixel from the denoised image to the last one.
    """

    evaluations: int
    sigma: float
    noisy: Pixels
    denoised: Pixels
    recognised: float
    recognised_denoised: float
    decided: float
    off: float


@dataclass(frozen=True)
class Found:
    """The model, the sampler's label, how many chains, and the moments in their order."""

    model: str
    sampler: str
    chains: int
    moments: list[Moment]


def study(
    model: str,
    store: Path,
    data: Path,
    chains: int,
    moments: int,
    directory: Path,
    cache: Path,
    device: str,
    on_progress: Progress,
) -> Found:
    """Runs annealed Langevin dynamics as the model's card has it, and looks at it evenly on its way.

    What is in `directory` from an earlier run is not drawn again.

    Args:
        model: name of a model; its newest version.
        store: directory of the model store.
        data: a labelled data set of the model's shape.
        chains: how many.
        moments: how often they are looked at; the last time at the end.
        directory: where chains are kept.
        cache: directory that keeps classifiers.
        device: torch device name.
        on_progress: told of every step.

    Raises:
        ModelNotFound, BrokenModel, SamplerRefused, DataError, OSError, ValueError, RuntimeError: with one clear line.
    """
    models = ModelStore(store)
    card = models.card(model)
    chosen = setting(AnnealedLangevin(), card)
    if moments > len(chosen.table):
        raise ValueError(f"{moments} moments of {len(chosen.table)} evaluations: at most as many as there are")
    network = ScoreModel.load(models, card, device)
    _, bench = bench_of(data, card.image, cache, device, on_progress)
    name = f"{key(card.weights_sha256, chosen.table, SEED)}-{chains}"
    looked_at: list[tuple[int, Tensor]] = []
    for end in snapshots(len(chosen.table), moments):
        path = directory / "chains" / name / f"{end}.npz"
        if not path.exists():
            begin, x = looked_at[-1] if looked_at else (0, None)

            def drawing(done: int, before: int = begin) -> None:
                on_progress(f"annealed Langevin, {card.name}", before * chains + done, len(chosen.table) * chains)

            file = io.BytesIO()
            np.savez(file, x=between(network, chosen.table, chains, begin, end, x, drawing).numpy())
            files.write(path, file.getvalue())
        with np.load(path, allow_pickle=False) as kept:
            looked_at.append((end, torch.from_numpy(kept["x"])))
    last = quantize(looked_at[-1][1]).numpy()
    found = [moment(network, chosen.table, end, x, last, bench) for end, x in looked_at]
    return Found(f"{card.name} version {card.version}", chosen.label, chains, found)


def between(
    model: ScoreModel,
    table: Table,
    count: int,
    begin: int,
    end: int,
    x: Tensor | None,
    on_step: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """`count` chains [n, c, h, w] after the first `end` rows of a table none of which carries.

    Args:
        model: whose scores.
        table: the sampler.
        count: how many chains.
        begin: rows that are done.
        end: rows that are to be done.
        x: where the chains are; None where they have not begun.
        on_step: told of the image-steps done.
    """
    part = Table(table.rows[:end], table.initial_std, table.initial_mean)
    chains = [
        Chain(part, SEED, i, cursor=begin, x=None if x is None else x[i], label=model.any_label) for i in range(count)
    ]
    with one_each() as threads:
        run(Engine(model, slots_of(model.device.type), threads=threads), chains, on_step)
    return torch.stack([chain.x for chain in chains if chain.x is not None]).cpu()


def moment(model: ScoreModel, table: Table, end: int, x: Tensor, last: Pixels, bench: Bench) -> Moment:
    """What the chains x [n, c, h, w] are like after `end` rows; `last` is what they end as, uint8 [n, h, w, c]."""
    sigma = float(table.column("sigma")[end - 1])
    noisy = quantize(x).numpy()
    denoised = last if end == len(table) else quantize(denoise(model, x, sigma)).numpy()
    sure = [bench.classifier.probabilities(pixels) for pixels in (noisy, denoised, last)]
    return Moment(
        evaluations=end,
        sigma=sigma,
        noisy=noisy,
        denoised=denoised,
        recognised=float((sure[0].max(1) > CONFIDENT).mean()),
        recognised_denoised=float((sure[1].max(1) > CONFIDENT).mean()),
        decided=float((sure[1].argmax(1) == sure[2].argmax(1)).mean()),
        off=float(np.sqrt(((denoised / 255 - last / 255) ** 2).mean())),
    )
