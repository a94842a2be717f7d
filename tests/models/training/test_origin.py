"""Runs that start from the weights of a published model."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch.testing import assert_close

from models.card import ModelCard, NetworkSpec
from models.derived.guidance import publish_guided
from models.score import ScoreModel, build_network
from models.store import ModelNotFound, ModelStore, sha256
from models.training.data.images import Labels
from models.training.origin import Origin, find, read_weights, start_from
from models.training.publish import ema_model
from models.training.settings import TrainingSettings
from models.training.trainer import Trainer

NETWORK: dict[str, Any] = {
    "channels": [16, 32],
    "blocks": [1, 1],
    "attention": [False, False],
    "embedding": 16,
    "groups": 4,
}
IMAGES = torch.linspace(0, 255, 36).to(torch.uint8)[:, None, None, None].repeat(1, 1, 8, 8)
SETTINGS = TrainingSettings(network=NETWORK, batch=8, epochs=1)


@pytest.fixture
def store(tmp_path: Path, tiny_card: ModelCard) -> ModelStore:
    store = ModelStore(tmp_path / "models")
    for version, seed in ((1, 1), (2, 2)):
        torch.manual_seed(seed)
        spec = NetworkSpec(kind="unet", arguments=NETWORK, data_mean=0.1, data_std=0.2)
        network = build_network(spec)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        weights = safetensors.torch.save({k: v.half().contiguous() for k, v in network.state_dict().items()})
        changes = {
            "version": version,
            "network": spec,
            "provenance": {"steps": seed},
            "weights_sha256": sha256(weights),
        }
        store.publish(tiny_card.model_copy(update=changes), weights)
    return store


def started(store: ModelStore, model: str, directory: Path, **changes: Any) -> Trainer:
    card = find(model, store)
    labels = Labels(torch.arange(36) % 2, ("cat", "dog"))
    origin = Origin.of(card), read_weights(card, store)
    return Trainer(IMAGES, SETTINGS.model_copy(update=changes), directory, labels=labels, origin=origin)


@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize(("model", "version"), [("tiny", 2), ("tiny/1", 1)])
def test_a_run_starts_with_the_score_of_the_model(
    store: ModelStore, tmp_path: Path, model: str, version: int, classes: bool
) -> None:
    trainer = started(store, model, tmp_path, classes=classes)
    x = torch.rand(2, 1, 8, 8)
    expected = ScoreModel.load(store, store.card("tiny", version)).score(x, 0.5)
    assert torch.equal(ema_model(trainer).score(x, 0.5), expected), "classes change it once they are learned"
    assert (trainer.spec.data_mean, trainer.spec.data_std) == (0.1, 0.2), "what the weights were made for"
    assert trainer.origin == Origin.of(store.card("tiny", version))


def test_a_deeper_network_starts_with_the_score_of_the_model(store: ModelStore, tmp_path: Path) -> None:
    trainer = started(store, "tiny", tmp_path, network={**NETWORK, "blocks": [2, 3]})
    x = torch.rand(2, 1, 8, 8)
    assert_close(ema_model(trainer).score(x, 0.5), ScoreModel.load(store, store.card("tiny")).score(x, 0.5))
    weights = trainer.network.state_dict()
    with pytest.raises(ValueError, match=r"another network than this run's: down\.0\.blocks\.1"):
        start_from(Trainer(IMAGES, SETTINGS, tmp_path).network, weights, Origin.of(store.card("tiny")))


def test_a_guided_model_is_started_from_without_its_guide(store: ModelStore, tmp_path: Path) -> None:
    main = store.card("tiny", 1)
    guided, _ = publish_guided(store, main, store.card("tiny", 2), 2.0, "scoreserve guide")
    x = torch.rand(2, 1, 8, 8)
    found = ema_model(started(store, f"tiny/{guided.version}", tmp_path)).score(x, 0.5)
    assert torch.equal(found, ScoreModel.load(store, main).score(x, 0.5))


def test_a_run_that_goes_on_knows_where_it_started(store: ModelStore, tmp_path: Path) -> None:
    first = started(store, "tiny", tmp_path)
    first.train(lambda *_: None)
    first.save()
    resumed = Trainer(IMAGES, SETTINGS, tmp_path)
    assert resumed.resume()
    assert resumed.origin == first.origin
    assert resumed.spec == first.spec
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(ema_model(resumed).score(x, 0.5), ema_model(first).score(x, 0.5))
    with pytest.raises(ValueError, match="started from tiny version 2, not from tiny version 1"):
        started(store, "tiny/1", tmp_path).resume()
    (tmp_path / "fresh").mkdir()
    fresh = Trainer(IMAGES, SETTINGS, tmp_path / "fresh")
    fresh.save()
    with pytest.raises(ValueError, match="started from fresh weights, not from tiny version 2"):
        started(store, "tiny", tmp_path / "fresh").resume()


@pytest.mark.parametrize(
    "network",
    [{**NETWORK, "channels": [16, 64]}, {**NETWORK, "attention": [False, True]}],
    ids=["wider", "attention"],
)
def test_weights_of_another_network_are_refused(store: ModelStore, tmp_path: Path, network: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="weights of tiny version 2 are of another network"):
        started(store, "tiny", tmp_path, network=network)


@pytest.mark.parametrize(("names", "ours"), [(("cat", "dog", "owl"), "3"), ((), "none")])
def test_weights_that_know_another_number_of_classes_are_refused(
    store: ModelStore, tmp_path: Path, names: tuple[str, ...], ours: str
) -> None:
    knowing = started(store, "tiny", tmp_path, classes=True)
    start = Origin.of(store.card("tiny")), knowing.network.state_dict()
    labels = Labels(torch.arange(36) % max(1, len(names)), names)
    settings = SETTINGS.model_copy(update={"classes": bool(names)})
    with pytest.raises(ValueError, match=f"tiny version 2 knows 2 classes, and this run's network {ours}: train with"):
        Trainer(IMAGES, settings, tmp_path, labels=labels, origin=start)


@pytest.mark.parametrize("model", ["tiny/newest", "tiny/-1"])
def test_a_version_is_a_number(store: ModelStore, model: str) -> None:
    with pytest.raises(ValueError, match="NAME/VERSION"):
        find(model, store)


@pytest.mark.parametrize("model", ["none", "tiny/3"])
def test_a_model_that_is_not_there(store: ModelStore, model: str) -> None:
    with pytest.raises(ModelNotFound):
        find(model, store)
