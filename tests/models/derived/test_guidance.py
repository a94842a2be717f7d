import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from models.card import ImageShape, ModelCard, NetworkSpec
from models.derived.guidance import publish_guided
from models.parametrisation import Consistency, Edm, Parametrisation
from models.score import ScoreModel, build_network
from models.store import BrokenModel, ModelStore, sha256

MAIN: dict[str, Any] = {
    "channels": [16, 32],
    "blocks": [1, 1],
    "attention": [False, False],
    "embedding": 16,
    "groups": 4,
}


def published(
    store: ModelStore,
    name: str,
    channels: list[int],
    side: int = 8,
    std: float = 0.3,
    parametrisation: Parametrisation | None = None,
) -> ModelCard:
    torch.manual_seed(len(name))
    spec = NetworkSpec(
        kind="unet",
        arguments=MAIN | {"channels": channels},
        data_mean=0.1,
        data_std=std,
        parametrisation=parametrisation,
    )
    network = build_network(spec)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    weights = safetensors.torch.save({k: v.half().contiguous() for k, v in network.state_dict().items()})
    card = ModelCard(
        name=name,
        version=1,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        image=ImageShape(channels=1, height=side, width=side),
        sigma_min=0.01,
        sigma_max=10.0,
        network=spec,
        provenance={"command": f"train {name}", "steps": 7},
        metrics={"quality": "of the model alone"},
        weights_sha256=sha256(weights),
    )
    store.publish(card, weights)
    return card


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path)


def test_the_guided_model_is_the_next_version_and_its_score_goes_past_that_of_the_main_one(store: ModelStore) -> None:
    main, guide = published(store, "dots", [16, 32]), published(store, "worse", [8, 16])
    card, path = publish_guided(store, main, guide, 1.75, "scoreserve guide dots", (0.4, 2.0))
    assert (card.name, card.version, path.name) == ("dots", 2, "2")
    assert store.card("dots") == card
    assert card.provenance["command"] == "train dots"
    assert card.provenance["guidance"] == {
        "command": "scoreserve guide dots",
        "weight": 1.75,
        "interval": [0.4, 2.0],
        "guide": {"command": "train worse", "steps": 7},
    }
    assert card.metrics == {}, "those of the model alone are not its own"
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found, better, worse = (ScoreModel.load(store, c).score(x, [0.5, 0.5, 0.3]) for c in (card, main, guide))
    assert torch.equal(found[2], better[2]), "below the interval"
    found, better, worse = found[:2], better[:2], worse[:2]
    assert torch.allclose(found, worse + 1.75 * (better - worse), atol=1e-4)
    assert (found - better).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("other", "says"), [({"side": 16}, "image shapes"), ({"std": 0.2}, "deviations of the data")], ids=["side", "std"]
)
def test_models_of_other_images_are_no_pair(store: ModelStore, other: dict[str, Any], says: str) -> None:
    main, guide = published(store, "dots", [16, 32]), published(store, "worse", [8, 16], **other)
    with pytest.raises(ValueError, match=says):
        publish_guided(store, main, guide, 1.5, "")
    assert store.versions("dots") == [1]


USUAL = Edm(data_mean=0.1, data_std=0.3)
DISTILLED = Consistency(data_mean=0.1, data_std=0.3, s_min=0.01, times=0.25)


@pytest.mark.parametrize(
    ("of_main", "of_guide", "says"),
    [
        (DISTILLED, None, "of dots is consistency and that of worse edm"),
        (None, DISTILLED, "of dots is edm and that of worse consistency"),
        (DISTILLED, DISTILLED, "of dots is consistency and that of worse consistency"),
        (USUAL, Edm(data_mean=0.1, data_std=0.3, times=1), "of dots is edm and that of worse edm"),
    ],
    ids=["main", "guide", "both", "told otherwise"],
)
def test_only_networks_of_the_usual_parametrisation_add_up(
    store: ModelStore, of_main: Parametrisation | None, of_guide: Parametrisation | None, says: str
) -> None:
    main = published(store, "dots", [16, 32], parametrisation=of_main)
    guide = published(store, "worse", [8, 16], parametrisation=of_guide)
    with pytest.raises(ValueError, match=f"{says}; allowed: edm"):
        publish_guided(store, main, guide, 1.5, "")
    assert store.versions("dots") == [1]


def test_a_usual_parametrisation_may_be_named(store: ModelStore) -> None:
    main = published(store, "dots", [16, 32], parametrisation=USUAL)
    card, _ = publish_guided(store, main, published(store, "worse", [8, 16]), 1.5, "")
    assert card.network.parametrisation is None


@pytest.mark.parametrize(
    ("interval", "says"),
    [
        ((2.0, 0.4), r"not from 2 to 0\.4"),
        ((0.0, math.inf), "not from 0 to inf; the largest that dots knows is 10"),
        ((0.0, math.nan), "not from 0 to nan"),
    ],
)
def test_an_interval_goes_up_to_a_level_that_a_card_can_tell(
    store: ModelStore, interval: tuple[float, float], says: str
) -> None:
    main, guide = published(store, "dots", [16, 32]), published(store, "worse", [8, 16])
    with pytest.raises(ValueError, match=says):
        publish_guided(store, main, guide, 1.5, "", interval)
    assert store.versions("dots") == [1]


def test_a_weight_is_a_number(store: ModelStore) -> None:
    main, guide = published(store, "dots", [16, 32]), published(store, "worse", [8, 16])
    with pytest.raises(ValueError, match="the weight is nan; allowed: a finite number"):
        publish_guided(store, main, guide, math.nan, "")
    assert store.versions("dots") == [1]


def test_a_guided_model_is_not_guided_again(store: ModelStore) -> None:
    main, guide = published(store, "dots", [16, 32]), published(store, "worse", [8, 16])
    guided, _ = publish_guided(store, main, guide, 1.5, "")
    with pytest.raises(ValueError, match="only a unet can guide a unet, not a unet a guided-unet"):
        publish_guided(store, guided, guide, 1.5, "")


def test_damaged_weights_are_not_published_again(store: ModelStore) -> None:
    main, guide = published(store, "dots", [16, 32]), published(store, "worse", [8, 16])
    (store.path("worse") / "model.safetensors").write_bytes(b"x")
    with pytest.raises(BrokenModel, match="sha256"):
        publish_guided(store, main, guide, 1.5, "")
    assert store.versions("dots") == [1]


def test_models_with_classes_need_no_guide(store: ModelStore) -> None:
    main, guide = published(store, "dots", [16, 32]), published(store, "worse", [8, 16])
    with pytest.raises(ValueError, match="guided by their labels"):
        publish_guided(store, main.model_copy(update={"classes": ("cat", "dog")}), guide, 1.5, "")


def test_weights_that_are_not_finite_are_no_guide(store: ModelStore) -> None:
    main = published(store, "dots", [16, 32])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda tensor: torch.full_like(tensor, float("nan")))
        guide = published(store, "worse", [8, 16])
    with pytest.raises(ValueError, match=r"not all weights are finite: guide\."):
        publish_guided(store, main, guide, 1.5, "")
    assert store.versions("dots") == [1]
