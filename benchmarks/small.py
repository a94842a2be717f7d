"""A model so small that a benchmark of serving measures the serving: 8 x 8 images, random weights."""

from datetime import UTC, datetime

import safetensors.torch
import torch

from models.card import ImageShape, ModelCard, NetworkSpec
from models.samplers.annealed_langevin import AnnealedLangevin
from models.score import build_network
from models.store import ModelStore, sha256

NAME = "small"
NETWORK = NetworkSpec(
    kind="unet",
    arguments={"channels": [16], "blocks": [1], "attention": [False], "embedding": 16, "groups": 4},
    data_mean=0.13,
    data_std=0.31,
)


def publish(store: ModelStore) -> ModelCard:
    """Publishes it, always with the same weights. Its samples mean nothing."""
    torch.manual_seed(0)
    network = build_network(NETWORK)
    weights = safetensors.torch.save({name: value.contiguous() for name, value in network.state_dict().items()})
    card = ModelCard(
        name=NAME,
        version=1,
        created_at=datetime.now(UTC),
        image=ImageShape(channels=1, height=8, width=8),
        sigma_min=0.01,
        sigma_max=10.0,
        network=NETWORK,
        sampler=AnnealedLangevin(levels=6, steps_per_level=2),
        weights_sha256=sha256(weights),
    )
    store.publish(card, weights)
    return card
