"""Noise at many magnitudes: what is left of a picture at each level, and what a model still makes of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models import schedules
from models.card import ModelCard
from models.evaluation.bench import Progress
from models.evaluation.distances import evenly
from models.images import Pixels
from models.sampling.chain import quantize
from models.score import ScoreModel
from models.store import ModelStore
from models.study.judge import bench_of, slots_of

SHOWN = 3  # images of the picture
SEED = 0


@dataclass(frozen=True)
class Level:
    """Test images at one noise level.

    Args:
        sigma: its standard deviation, in units of pixels in [0, 1].
        noised, denoised: the first SHOWN of them, uint8 [n, h, w, c], the latter as the model expects them clean.
        named, named_denoised: share of all whose class the classifier names.
        off: root mean square distance of a pixel from denoised to clean images.
    """

    sigma: float
    noised: Pixels
    denoised: Pixels
    named: float
    named_denoised: float
    off: float


@dataclass(frozen=True)
class Found:
    """What the study found.

    Args:
        model: name and version.
        images: how many test images.
        clean: the first SHOWN of them.
        named: share of all whose class the classifier names as they are.
        spread: what `off` is of an estimate that knows nothing, the mean of the training images.
        levels: descending.
    """

    model: str
    images: int
    clean: Pixels
    named: float
    spread: float
    levels: list[Level]


def study(
    model: str, store: Path, data: Path, images: int, levels: int, cache: Path, device: str, on_progress: Progress
) -> Found:
    """Noises and denoises test images at so many levels over all of the model's range.

    Args:
        model: name of a model; its newest version.
        store: directory of the model store.
        data: a labelled data set of the model's shape.
        images: how many of its test images, from all over.
        levels: how many; of a model that was trained at some, those.
        cache: directory that keeps classifiers.
        device: torch device name.
        on_progress: told of every level.

    Raises:
        ModelNotFound, BrokenModel, DataError, OSError, ValueError, RuntimeError: with one clear line.
    """
    models = ModelStore(store)
    card = models.card(model)
    network = ScoreModel.load(models, card, device)
    labelled, bench = bench_of(data, card.image, cache, device, on_progress)
    chosen = evenly(len(labelled.test.images), min(images, len(labelled.test.images)))
    clean, labels = labelled.test.images[chosen].float() / 255, labelled.test.labels[chosen].numpy()
    z = torch.randn(clean.shape, generator=torch.Generator().manual_seed(SEED))
    found = []
    sigmas = magnitudes(card, levels)
    for sigma in sigmas:
        noised = clean + sigma * z
        denoised = denoise(network, noised, sigma)
        pixels = [quantize(x).numpy() for x in (noised, denoised)]
        named, named_denoised = (bench.by_class(p, labels).accuracy for p in pixels)
        off = float(((denoised - clean) ** 2).mean().sqrt())
        found.append(Level(sigma, pixels[0][:SHOWN], pixels[1][:SHOWN], named, named_denoised, off))
        on_progress("noise levels", len(found), len(sigmas))
    mean = np.mean(labelled.train.pixels, axis=0) / 255
    as_they_are = labelled.test.pixels[chosen]
    return Found(
        model=f"{card.name} version {card.version}",
        images=len(clean),
        clean=as_they_are[:SHOWN],
        named=bench.by_class(as_they_are, labels).accuracy,
        spread=float(np.sqrt(((as_they_are / 255 - mean) ** 2).mean())),
        levels=found,
    )


def magnitudes(card: ModelCard, levels: int) -> list[float]:
    """So many levels over a model's range, descending; the only ones that it knows, if it knows some alone."""
    return list(card.sigmas) if card.sigmas else schedules.geometric(card.sigma_max, card.sigma_min, levels)


def denoise(model: ScoreModel, x: Tensor, sigma: float) -> Tensor:
    """The images [n, c, h, w] that a model expects behind noised ones."""
    parts = torch.split(x.to(model.device), slots_of(model.device.type))
    return torch.cat([model.denoise(part, sigma, model.any_label) for part in parts]).cpu()
