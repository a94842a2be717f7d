"""The checkpoint in models/zoo: small, described, and what it samples looks like digits."""

from pathlib import Path

import numpy as np
import pytest

from models.sampling.plan import plan
from models.sampling.sample import sample
from models.sampling.settings import Heun
from models.score import ScoreModel
from models.store import ZOO, ModelStore
from models.training.formats.idx import read_idx

DIGITS = Path(__file__).parents[1] / "data" / "mnist" / "train-images-idx3-ubyte.gz"


@pytest.fixture(scope="module")
def store() -> ModelStore:
    return ModelStore(ZOO)


def test_it_is_small(store: ModelStore) -> None:
    assert sum(path.stat().st_size for path in ZOO.rglob("*") if path.is_file()) < 6e6
    assert store.names() == ["mnist"]


def test_its_card_says_how_it_was_made_and_how_good_it_is(store: ModelStore) -> None:
    card = store.card("mnist")
    assert {"command", "training", "images_sha256", "steps", "wall_seconds", "versions", "loss_curve"} <= set(
        card.provenance
    )
    measured = {figures["sampler"]["name"]: figures for figures in card.metrics["quality"]["samplers"]}
    assert {"annealed_langevin", "heun"} <= measured.keys()
    _, table = plan(None, card)
    assert measured["annealed_langevin"]["evaluations"] == len(table), "the figures are those of the default sampler"


@pytest.mark.parametrize("sampler", ["annealed_langevin", "heun"])
def test_its_samples_were_found_good_by_the_benchmark(store: ModelStore, sampler: str) -> None:
    quality = store.card("mnist").metrics["quality"]
    assert quality["count"] >= 1000
    assert quality["classifier_test_accuracy"] >= 0.985
    (measured,) = (figures for figures in quality["samplers"] if figures["sampler"]["name"] == sampler)
    assert measured["recognised"] >= 0.88
    assert min(measured["classes"]) >= 0.06
    assert max(measured["classes"]) <= 0.15


def test_its_samples_look_like_digits(store: ModelStore) -> None:
    card = store.card("mnist")
    model = ScoreModel.load(store, card)
    _, table = plan(Heun(name="heun"), card)
    images = sample(model, table, count=16, seed=0)[..., 0].reshape(16, -1)
    real = read_idx(DIGITS).numpy().reshape(1000, -1)
    nearest = np.corrcoef(np.concatenate([images, real]))[:16, 16:].max(axis=1)
    assert np.median(nearest) > 0.7, "each sample is close to some real digit"
    assert nearest.max() < 0.99, "and none is a copy of one"
    assert len({image.tobytes() for image in images}) == 16
