"""The checkpoints in models/zoo: small, described, found good, and what they sample looks like their data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.card import ModelCard
from models.guidance import Guidance
from models.images import Pixels
from models.labels import classes_in_turn, guidance_of
from models.plan import plan
from models.samplers.table import Table
from models.sampling.field import field
from models.sampling.sample import sample
from models.score import ScoreModel
from models.store import ZOO, ModelStore
from models.training.data.formats.idx import read_idx

DIGITS = Path(__file__).parents[1] / "data" / "mnist" / "train-images-idx3-ubyte.gz"
NAMES = ["cifar10", "fashion-mnist", "fashion-mnist-fast", "mnist", "mnist-fast"]  # of pictures
PLANE = "toy2d"
BYTES = {"cifar10": 17e6}  # of its files, at most


@pytest.fixture(scope="module")
def store() -> ModelStore:
    return ModelStore(ZOO)


@pytest.fixture(scope="module", params=NAMES)
def card(store: ModelStore, request: pytest.FixtureRequest) -> ModelCard:
    return store.card(request.param)


@pytest.fixture(scope="module")
def images(store: ModelStore, card: ModelCard) -> Pixels:
    _, table = plan(None, card)
    model, labels = ScoreModel.load(store, card), classes_in_turn(card)
    return sample(model, table, count=16, seed=0, labels=labels, guidance=guidance(card, table))


def measured(card: ModelCard) -> list[dict[str, Any]]:
    """What the card says of samples, a sampler each."""
    found: list[dict[str, Any]] = card.metrics["quality"]["samplers"]
    return found


def guidance(card: ModelCard, table: Table) -> Guidance:
    """How images are guided that are asked for with nothing said."""
    return guidance_of(card.guidance, None, classes_in_turn(card), card, table)


def cost(card: ModelCard) -> int:
    """Network evaluations of such an image."""
    _, table = plan(None, card)
    return guidance(card, table).image_steps(table)


def test_these_ship_one_version_of_each(store: ModelStore) -> None:
    assert store.names() == [*NAMES, PLANE]
    assert all(len(store.versions(name)) == 1 for name in store.names())


def test_it_is_small(store: ModelStore, card: ModelCard) -> None:
    files = store.path(card.name, card.version).iterdir()
    assert sum(path.stat().st_size for path in files) < BYTES.get(card.name, 6e6)


def test_its_card_says_how_it_was_made_and_how_good_it_is(card: ModelCard) -> None:
    assert {"command", "training", "images_sha256", "steps", "wall_seconds", "versions", "loss_curve"} <= set(
        card.provenance
    )
    complete, _ = plan(None, card)
    sampler = complete.model_dump(exclude_none=True)
    (default,) = (of for of in measured(card) if (of["sampler"], of.get("guidance")) == (sampler, card.guidance))
    assert default["evaluations"] == cost(card)


def test_its_default_sampler_is_the_best_of_those_measured_at_its_cost(card: ModelCard) -> None:
    complete, _ = plan(None, card)
    affordable = [figures for figures in measured(card) if figures["evaluations"] <= cost(card)]
    best = min(affordable, key=lambda figures: figures["distance"])
    assert (best["sampler"], best.get("guidance")) == (complete.model_dump(exclude_none=True), card.guidance)


def test_digits_were_found_good(store: ModelStore) -> None:
    card = store.card("mnist")
    quality = card.metrics["quality"]
    assert quality["count"] >= 5000
    assert quality["classifier_test_accuracy"] >= 0.985
    assert {card.sampler.name, "heun"} <= {figures["sampler"]["name"] for figures in measured(card)}
    real = quality["real"]["as many training images"]
    default = measured(card)[0]
    assert default["sampler"]["name"] == card.sampler.name
    assert default["evaluations"] <= 20
    assert default["distance"] < real["distance"], "as near to the test images as real digits are"
    assert default["recognised"] >= 0.97
    assert default["recall"] >= 0.86, "they vary as real digits do"
    assert default["by_class"]["accuracy"] >= 0.975
    for figures in measured(card):
        assert figures["recognised"] >= 0.92
        assert min(figures["classes"]) >= 0.085
        assert max(figures["classes"]) <= 0.12


def test_digits_of_few_evaluations_were_found_good(store: ModelStore) -> None:
    card = store.card("mnist-fast")
    assert card.provenance["flows"]["teacher"].startswith("mnist version ")
    assert card.metrics["quality"]["count"] >= 5000
    of = {figures["evaluations"]: figures for figures in measured(card)}
    assert measured(card)[0]["evaluations"] == 4
    assert of[4]["recognised"] >= 0.96
    assert of[4]["distance"] <= 0.5
    assert of[1]["recognised"] >= 0.9
    for figures in of.values():
        assert figures["by_class"]["accuracy"] >= 0.97
        assert min(figures["classes"]) >= 0.085
        assert max(figures["classes"]) <= 0.12


def test_clothes_were_found_good(store: ModelStore) -> None:
    card = store.card("fashion-mnist")
    quality = card.metrics["quality"]
    assert quality["count"] >= 5000
    assert quality["classifier_test_accuracy"] >= 0.89
    default = measured(card)[0]
    assert default["sampler"]["name"] == card.sampler.name
    assert default["evaluations"] <= 20
    assert default["recognised"] >= 0.72
    assert default["distance"] <= 0.2
    assert default["recall"] >= 0.82
    assert default["by_class"]["accuracy"] >= 0.88
    assert min(default["classes"]) >= 0.08, "of shirts many are taken for other clothes"
    assert max(default["classes"]) <= 0.12


def test_clothes_of_few_evaluations_were_found_good(store: ModelStore) -> None:
    card = store.card("fashion-mnist-fast")
    assert card.provenance["flows"]["teacher"].startswith("fashion-mnist version ")
    assert card.metrics["quality"]["count"] >= 5000
    default = measured(card)[0]
    assert default["evaluations"] == 4
    assert default["recognised"] >= 0.68
    assert default["distance"] <= 0.8
    assert min(default["classes"]) >= 0.085
    assert max(default["classes"]) <= 0.12


def test_things_in_colour_were_found_good_as_its_card_guides_them(store: ModelStore) -> None:
    card = store.card("cifar10")
    assert card.image.chw == (3, 32, 32)
    quality = card.metrics["quality"]
    assert quality["count"] >= 2500
    assert quality["classifier_test_accuracy"] >= 0.88
    (guided,) = (figures for figures in measured(card) if figures.get("guidance") == card.guidance)
    assert guided["sampler"]["name"] == card.sampler.name
    assert guided["by_class"]["accuracy"] >= 0.7
    assert guided["recognised"] >= 0.6


def test_its_samples_are_images_of_their_own_as_bright_as_the_data(card: ModelCard, images: Pixels) -> None:
    assert images.mean() / 255 == pytest.approx(card.network.data_mean, rel=0.35)
    assert images.std() / 255 == pytest.approx(card.network.data_std, rel=0.15)
    assert len({image.tobytes() for image in images}) == len(images)


@pytest.mark.parametrize("card", ["mnist", "mnist-fast"], indirect=True)
def test_samples_of_mnist_look_like_digits(images: Pixels) -> None:
    drawn, real = images[..., 0].reshape(16, -1), read_idx(DIGITS).numpy().reshape(1000, -1)
    nearest = np.corrcoef(np.concatenate([drawn, real]))[:16, 16:].max(axis=1)
    assert np.median(nearest) > 0.7, "each sample is close to some real digit"
    assert nearest.max() < 0.99, "and none is a copy of one"


def test_the_model_of_the_plane_ships_with_its_scores_and_its_points_are_of_two_gaussians(store: ModelStore) -> None:
    card = store.card(PLANE)
    model = ScoreModel.load(store, card)
    kept, made = (
        json.loads(text or b"") for text in (store.scores(PLANE), field(model, card.sigma_max, card.sigma_min))
    )
    assert kept["sigmas"] == made["sigmas"]
    assert np.allclose(kept["scores"], made["scores"], rtol=0.02, atol=0.02)
    points = sample(model, plan(None, card)[1], count=200, seed=0).reshape(200, 2) / 255
    upper = points.sum(1) > 1
    assert upper.mean() == pytest.approx(0.8, abs=0.1)
    assert points[upper].mean(0) == pytest.approx([0.75, 0.75], abs=0.02)
