"""From a trained network to a version in a ModelStore."""

import copy
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from models.card import ImageShape, ModelCard
from models.score import ScoreModel
from models.store import ModelStore, sha256
from models.training.presets import PublishedAs
from models.training.trainer import Trainer

CURVE_POINTS = 100


def publish(trainer: Trainer, published: PublishedAs, store: ModelStore, command: str) -> tuple[ModelCard, Path]:
    """Writes the EMA weights, as float16, and their card as the next version; returns the card and its directory."""
    state = {k: v.to(torch.float16).contiguous() for k, v in trainer.ema.module.state_dict().items()}
    weights = safetensors.torch.save(state)
    card = draft(trainer, published).model_copy(
        update={
            "version": store.next_version(published.name),
            "provenance": provenance(trainer, command),
            "weights_sha256": sha256(weights),
        }
    )
    return card, store.publish(card, weights)


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
        sampler=published.sampler,
        samplers=published.samplers,
        weights_sha256=sha256(b""),
    )


def ema_model(trainer: Trainer) -> ScoreModel:
    """The score model of the EMA weights as they are now."""
    network = copy.deepcopy(trainer.ema.module)
    classes = len(trainer.classes)
    return ScoreModel(network, trainer.parametrisation, image_shape(trainer), trainer.device, classes=classes)


def image_shape(trainer: Trainer) -> ImageShape:
    channels, height, width = trainer.images.shape[1:]
    return ImageShape(channels=channels, height=height, width=width)


def provenance(trainer: Trainer, command: str) -> dict[str, Any]:
    """How the weights were made: enough to make them again."""
    stride = max(1, len(trainer.losses) // CURVE_POINTS)
    curve = [
        [min(i + stride, len(trainer.losses)), round(sum(part) / len(part), 5)]
        for i in range(0, len(trainer.losses), stride)
        if (part := trainer.losses[i : i + stride])
    ]
    return {
        "command": command,
        "training": trainer.settings.model_dump(mode="json"),
        "earlier": trainer.history,
        "from": None if trainer.origin is None else trainer.origin.model_dump(),
        "images": len(trainer.images),
        "images_sha256": trainer.images_sha256,
        "steps": trainer.step,
        "wall_seconds": round(trainer.seconds),
        "images_per_second": round(trainer.step * trainer.batch / trainer.seconds, 1) if trainer.seconds else None,
        "weights": f"exponential moving average of decay {trainer.settings.ema_decay:g}, float16",
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in ("scoreserve", "torch", "numpy")}},
        "loss_curve": curve,
    }
