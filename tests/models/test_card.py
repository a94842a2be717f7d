from typing import Any

import pytest
from pydantic import ValidationError

from models.card import ImageShape, ModelCard
from models.parametrisation import Edm, Flow


def test_a_card_survives_json(tiny_card: ModelCard) -> None:
    card = tiny_card.model_copy(update={"provenance": {"loss_curve": [[1, 0.5]]}, "metrics": {"fid": None}})
    assert ModelCard.model_validate_json(card.model_dump_json()) == card


@pytest.mark.parametrize(
    "change",
    [
        {"sigma_min": 10.0},
        {"sigma_min": 11.0},
        {"sigma_min": 0.0},
        {"sigma_max": float("nan")},
        {"sigma_max": float("inf")},
        {"version": 0},
        {"name": "../etc"},
        {"name": ".hidden"},
        {"name": "Upper"},
        {"name": "mnist\n"},
        {"name": ""},
        {"weights_sha256": "0" * 63},
        {"image": {"channels": 0, "height": 8, "width": 8}},
        {"network": {"kind": "", "data_mean": 0.1, "data_std": 0.3}},
        {"network": {"kind": "unet", "data_mean": 0.1, "data_std": 0.0}},
        {"network": {"kind": "adm", "data_mean": float("nan"), "parametrisation": {"name": "flow"}}},
        {"network": {"kind": "adm", "data_std": float("inf"), "parametrisation": {"name": "flow"}}},
        {"network": {"kind": "unet", "data_mean": 0.1, "data_std": 0.3, "arguments": {"channels": [float("nan")]}}},
        {"network": {"kind": "unet", "data_mean": 0.1}},
        {"network": {"kind": "unet", "data_std": 0.3}},
        {"network": {"kind": "refinenet-v1"}},
        {"network": {"kind": "unet", "parametrisation": {"name": "magic"}}},
        {"network": {"kind": "unet", "parametrisation": {"name": "discrete", "sigmas": [10.0, 0.01]}}},
        {"network": {"kind": "unet", "parametrisation": {"name": "v", "process": {"name": "subvp", "beta_max": 1}}}},
        {"sampler": {"name": "rk45"}},
        {"samplers": [{"name": "annealed_langevin"}]},
        {"samplers": [{"name": "heun"}, {"name": "heun", "levels": 5}]},
        {"surprise": 1},
        {"sigmas": []},
        {"sigmas": [10.0, 0.1]},
        {"sigmas": [9.0, 0.01]},
        {"sigmas": [10.0, 1.0, 1.0, 0.01]},
        {"sigmas": [0.01, 10.0]},
        {"sigmas": [10.0, float("nan"), 0.01]},
        {"classes": []},
        {"classes": ["cat", "dog", "cat"]},
        {"needs_label": True},
        {"draws_labels": True},
        {"guidance": 3.0},
        {"classes": ["cat", "dog"], "needs_label": True, "guidance": 3.0},
        {"classes": ["cat", "dog"], "guidance": -1.0},
        {"classes": ["cat", "dog"], "guidance": 1e6},
    ],
    ids=str,
)
def test_a_card_that_cannot_be_meant_is_refused(tiny_card: ModelCard, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelCard.model_validate(tiny_card.model_dump() | change)


def test_a_card_may_list_its_only_levels(tiny_card: ModelCard) -> None:
    levels = [tiny_card.sigma_max, 1.0, tiny_card.sigma_min]
    card = ModelCard.model_validate(tiny_card.model_dump() | {"sigmas": levels})
    assert card.sigmas == tuple(levels)


def test_a_card_may_not_know_the_mean_of_its_data(tiny_card: ModelCard) -> None:
    change = {"network": {"kind": "refinenet-v1"}, "sigmas": [tiny_card.sigma_max, tiny_card.sigma_min]}
    card = ModelCard.model_validate(tiny_card.model_dump() | change)
    assert (card.network.data_mean, card.network.data_std) == (0.5, None)


def test_a_card_may_name_a_network_that_is_not_here(tiny_card: ModelCard) -> None:
    card = ModelCard.model_validate(tiny_card.model_dump() | {"network": {"kind": "theirs"}})
    assert card.network.kind == "theirs"
    with pytest.raises(ValueError, match="a theirs has no usual parametrisation: the card must name one"):
        card.network.parametrised(None)


def test_the_usual_parametrisation_gives_way_to_that_of_the_card(tiny_card: ModelCard) -> None:
    usual = Edm(data_mean=tiny_card.network.data_mean, data_std=0.31)
    assert tiny_card.network.parametrised(None) == usual
    named = {"kind": "unet", "parametrisation": {"name": "flow", "pixels": [-1, 1]}}
    card = ModelCard.model_validate(tiny_card.model_dump() | {"network": named})
    assert card.network.parametrised(None) == Flow(pixels=(-1, 1))
    assert ModelCard.model_validate_json(card.model_dump_json()) == card


def test_an_image_shape_counts_its_numbers() -> None:
    shape = ImageShape(channels=3, height=5, width=7)
    assert (shape.chw, shape.size) == ((3, 5, 7), 105)
