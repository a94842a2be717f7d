"""The published model whose weights a run starts from."""

from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from models.card import ModelCard
from models.store import BrokenModel, ModelStore
from models.training.checkpoint import Checkpoint
from models.training.deepen import deepened

LABELS = "embed_label.weight"  # what a network knows of its classes, a row each and one for none
MAIN = "main."  # what the weights of a guided network that are its own begin with


class Origin(BaseModel):
    """Where weights come from; a run keeps it, so that it goes on without the model.

    Args:
        name, version: of the model.
        weights_sha256: of its weights.
        data_mean, data_std: what the network was made for, in [0, 1] units; see NetworkSpec.
        provenance: how they were made, as its card says.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    version: int
    weights_sha256: str
    data_mean: float
    data_std: float | None
    provenance: dict[str, Any]

    @classmethod
    def of(cls, card: ModelCard) -> "Origin":
        return cls(
            name=card.name,
            version=card.version,
            weights_sha256=card.weights_sha256,
            data_mean=card.network.data_mean,
            data_std=card.network.data_std,
            provenance=card.provenance,
        )


Start = tuple[Origin, dict[str, Tensor]]  # where weights come from, and these


def find(model: str, store: ModelStore) -> ModelCard:
    """The card of `NAME` (its newest version) or `NAME/VERSION`.

    Raises:
        ModelNotFound, BrokenModel: there is none, or it cannot be used.
        ValueError: the version is no number.
    """
    name, _, version = model.partition("/")
    if version and not version.isdecimal():
        raise ValueError(f"{model!r} is no model: write NAME, or NAME/VERSION with a number")
    return store.card(name, int(version) if version else None)


def as_begun(model: str, directory: Path) -> str:
    """`NAME` with the version that the run in a directory, if there is one, has started from; else what is given.

    Its newest version may be another by now: the one that the run itself has published.

    Raises:
        ValueError: the checkpoint of the run is damaged.
    """
    checkpoint = Checkpoint(directory)
    if not checkpoint.exists():
        return model
    with checkpoint.read(torch.device("cpu")) as state:
        begun = Origin.model_validate(state["origin"]) if state["origin"] else None
    return f"{model}/{begun.version}" if begun and begun.name == model else model


def read_weights(card: ModelCard, store: ModelStore) -> dict[str, Tensor]:
    """The weights of a model by name, float32; of a guided one, those of the network that is guided.

    Raises:
        ModelNotFound, BrokenModel: they are gone or damaged.
    """
    try:
        state = {name: value.float() for name, value in safetensors.torch.load(store.weights(card)).items()}
    except safetensors.SafetensorError as error:
        raise BrokenModel(f"the weights of {card.name} version {card.version} cannot be read: {error}") from error
    if card.network.kind == "guided-unet":
        return {name.removeprefix(MAIN): value for name, value in state.items() if name.startswith(MAIN)}
    return state


def start_from(network: nn.Module, weights: dict[str, Tensor], origin: Origin) -> None:
    """Puts weights into a network. Classes and blocks that they do not know change nothing of the score to begin with.

    Raises:
        ValueError: they are no weights of such a network.
    """
    own, weights = network.state_dict(), deepened(weights, network)
    wrong = [name for name, value in weights.items() if name not in own or own[name].shape != value.shape]
    fresh = [name for name in own if name not in weights and name != LABELS]
    if wrong == [LABELS] and not fresh:
        ours = len(own[LABELS]) - 1 if LABELS in own else "none"
        raise ValueError(
            f"{origin.name} version {origin.version} knows {len(weights[LABELS]) - 1} classes, and this run's "
            f"network {ours}: train with as many, or from a model that knows none"
        )
    if wrong or fresh:
        raise ValueError(
            f"the weights of {origin.name} version {origin.version} are of another network than this run's: "
            f"{', '.join((wrong + fresh)[:3])} and so on; take a preset with its network, or with more blocks"
        )
    network.load_state_dict(own | weights)
