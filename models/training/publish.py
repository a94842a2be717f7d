"""From a trained network to a version in a ModelStore."""

import copy
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from models.card import ImageShape, ModelCard
from models.sampling.field import field, of_plane
from models.score import ScoreModel
from models.store import BrokenModel, ModelStore, sha256
from models.training.averages import asked
from models.training.presets import PublishedAs
from models.training.trainer import Trainer, TrainingDiverged

CURVE_POINTS = 100


def publish(
    trainer: Trainer, published: PublishedAs, store: ModelStore, command: str, decay: float | None = None
) -> tuple[ModelCard, Path]:
    """Writes averaged weights, as float16, and their card as the next version; returns the card and its directory.

    Weights that are a version already, of a run that was ended before, are not written again.

    Args:
        trainer: at its last step.
        published: what the card says.
        store: takes the version.
        command: what the card says it was made with.
        decay: of the average; None for the one that the settings name.

    Raises:
        ValueError: there is no such average.
        TrainingDiverged: the weights are not finite as float16.
    """
    decay = asked(decay, trainer.settings.ema_decay)
    averaged = trainer.averages.models[decay].module.state_dict()
    weights = as_float16(averaged)
    for number in store.versions(published.name):
        try:
            known_card = store.card(published.name, number)
        except BrokenModel:
            continue
        if known_card.weights_sha256 == sha256(weights):
            return known_card, store.path(published.name, number)
    card = draft(trainer, published).model_copy(
        update={
            "version": store.next_version(published.name),
            "provenance": provenance(trainer, command, decay),
            "weights_sha256": sha256(weights),
        }
    )
    scores = None
    if of_plane(card.image):
        scores = field(_averaged(trainer, decay), card.sigma_max, card.sigma_min)
    return card, store.publish(card, weights, scores)


def as_float16(state: Mapping[str, Tensor]) -> bytes:
    """Weights as a safetensors file of float16.

    Raises:
        TrainingDiverged: not all of them are finite in that type.
    """
    halves = {name: value.to(torch.float16).cpu().contiguous() for name, value in state.items()}
    if wrong := [name for name, value in halves.items() if not value.isfinite().all()]:
        raise TrainingDiverged(
            f"not all weights are finite as float16 ({', '.join(wrong[:3])}): they are not published; train again with "
            "a lower learning rate"
        )
    return safetensors.torch.save(halves)


def draft(trainer: Trainer, published: PublishedAs) -> ModelCard:
    """The card as far as it is known before the weights are.

    A network that was trained at some levels knows no others, but for the one that is not told the level.

    Raises:
        ValueError: the range of `published` is not that of the levels.
    """
    levels = trainer.sigmas or []
    listed = len(levels) > 1 and trainer.spec.kind != "refinenet-v2"
    return ModelCard(
        name=published.name,
        version=1,
        description=published.description,
        created_at=datetime.now(UTC),
        image=image_shape(trainer),
        sigma_min=published.sigma_min,
        sigma_max=levels[0] if published.sigma_max is None else published.sigma_max,
        sigmas=tuple(levels) if listed else None,
        network=trainer.spec,
        classes=trainer.classes or None,
        draws_labels=bool(trainer.classes) and published.draws_labels,
        guidance=published.guidance if trainer.classes else None,
        sampler=published.sampler,
        samplers=published.samplers,
        inpainting=published.inpainting,
        weights_sha256=sha256(b""),
    )


def ema_model(trainer: Trainer) -> ScoreModel:
    """The score model of the EMA weights as they are now."""
    return _averaged(trainer, trainer.settings.ema_decay)


def _averaged(trainer: Trainer, decay: float) -> ScoreModel:
    network = copy.deepcopy(trainer.averages.models[decay].module)
    classes = len(trainer.classes)
    return ScoreModel(network, trainer.parametrisation, image_shape(trainer), trainer.device, classes=classes)


def image_shape(trainer: Trainer) -> ImageShape:
    channels, height, width = trainer.images.shape[1:]
    return ImageShape(channels=channels, height=height, width=width)


def provenance(trainer: Trainer, command: str, decay: float | None = None) -> dict[str, Any]:
    """How the weights were made: enough to make them again."""
    stride = max(1, len(trainer.losses) // CURVE_POINTS)
    curve = [
        [min(i + stride, len(trainer.losses)), round(sum(part) / len(part), 5)]
        for i in range(0, len(trainer.losses), stride)
        if (part := trainer.losses[i : i + stride])
    ]
    decay = trainer.settings.ema_decay if decay is None else decay
    return {
        "command": command,
        "training": trainer.settings.model_dump(mode="json"),
        "earlier": trainer.history,
        "from": None if trainer.origin is None else trainer.origin.model_dump(),
        "flows": None if trainer.flows is None else trainer.flows.made,
        "images": len(trainer.images),
        "images_sha256": trainer.images_sha256,
        "steps": trainer.step,
        "wall_seconds": round(trainer.seconds),
        "images_per_second": round(trainer.step * trainer.batch / trainer.seconds, 1) if trainer.seconds else None,
        "weights": f"exponential moving average of decay {decay:g}, float16",
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in ("scoreserve", "torch", "numpy")}},
        "loss_curve": curve,
    }
