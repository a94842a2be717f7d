import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.card import ModelCard
from models.networks.unet import UNet
from models.plan import plan
from models.sampling.field import SIDE
from models.sampling.sample import sample
from models.score import ScoreModel
from models.store import ModelStore
from models.training import presets
from models.training.data.images import Labels
from models.training.job import TrainingJob
from models.training.presets import Preset
from models.training.publish import publish
from models.training.trainer import Trainer

SMALL: dict[str, dict[str, Any]] = {
    "unet": {"embedding": 16, "groups": 4, "head_channels": 8},
    "refinenet-v1": {"ngf": 4},
    "refinenet-v2": {"ngf": 4},
}


def shrunk(preset: Preset) -> dict[str, Any]:
    """The network of a preset in its structure, with as few channels as it goes."""
    network = dict(preset.training.network)
    small = network | SMALL[network.get("kind", "unet")]
    if "channels" in network:
        small |= {"channels": [8] * len(network["channels"]), "blocks": [1] * len(network["blocks"])}
    return small


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_trains_draws_and_publishes_a_model_that_samples(name: str, tmp_path: Path) -> None:
    preset = presets.load(name)
    c, h, w = preset.image.chw
    pixels = np.random.default_rng(0).integers(0, 256, (8, h, w, c), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", x_train=pixels, y_train=np.arange(8))
    job = TrainingJob(
        preset=name,
        data=None if preset.data else tmp_path / "images.npz",
        out=tmp_path / "run",
        store=tmp_path / "models",
        overrides={"network": shrunk(preset), "batch": 4, "epochs": 2.0 / 5000 if preset.data else 1, "execution": {}},
        device="cpu",
        save_every=1,
        grid_every=100,
        command="",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.training.job.GRID", 1)
        patch.setattr("models.training.job.POINTS", 1)
        patch.setattr("models.training.job.plan", lambda settings, card: shortened(card))
        published = job.run(lambda _: None, lambda *_: None)
    assert published is not None
    card = published[0]
    assert card.image == preset.image
    assert card.metrics == {}
    assert (card.classes is not None) == preset.training.classes
    assert card.description.count("\n") == 0
    if name == "toy2d":
        with Image.open(tmp_path / "run" / "points-000002.png") as scatter:
            assert min(scatter.size) > 300
        scores = json.loads(ModelStore(tmp_path / "models").scores(name) or b"")
        assert np.shape(scores["scores"]) == (len(scores["sigmas"]), SIDE, SIDE, 2)
    else:
        with Image.open(tmp_path / "run" / "grid-000002.png") as grid:
            assert grid.size == (w + 4, h + 4)
        assert ModelStore(tmp_path / "models").scores(name) is None
    model = ScoreModel.load(ModelStore(tmp_path / "models"), card)
    assert sample(model, shortened(card)[1], count=1, seed=0).shape == (1, h, w, c)


def shortened(card: ModelCard) -> Any:
    """The card's default sampler, of one step a level where it has levels, and of its first rows."""
    settings, table = plan(None, card)
    rows = table.rows[:: max(1, len(table) // 4)]
    return settings, type(table)(rows, table.initial_std, table.initial_mean)


@pytest.mark.parametrize("name", presets.names())
def test_the_default_sampler_of_every_preset_is_one_that_its_card_allows(name: str, tiny_card: ModelCard) -> None:
    preset = presets.load(name)
    published = preset.model.model_dump(include={"sigma_min"}) | {
        "sigma_max": preset.model.sigma_max or 50.0,  # what CIFAR-10 makes of it
        "sampler": preset.model.sampler,
        "image": preset.image,
    }
    _, table = plan(None, tiny_card.model_copy(update=published))
    assert 10 < len(table) < 1500


def test_the_network_for_cifar_10_has_20_to_30_million_parameters() -> None:
    network = UNet(3, **presets.load("cifar10-large").training.network)
    assert 20e6 < sum(p.numel() for p in network.parameters()) < 30e6


def test_the_network_for_cifar_10_trains_at_its_real_size(tmp_path: Path) -> None:
    preset = presets.load("cifar10-large")
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = Labels(torch.arange(4), preset.model.classes or ())
    trainer = Trainer(images, preset.training.model_copy(update={"batch": 1}), tmp_path, labels=labels)
    trainer.train(lambda *_: None, lambda: trainer.step == 3)
    assert len(trainer.losses) == 4
    assert all(math.isfinite(loss) for loss in trainer.losses)
    assert [
        name for name, value in trainer.network.named_parameters() if value.grad is None or not value.grad.any()
    ] == []
    card, _ = publish(trainer, preset.model, ModelStore(tmp_path), "")
    score = ScoreModel.load(ModelStore(tmp_path), card).score(images[:1] / 255, 0.5)
    assert score.shape == (1, 3, 32, 32)
    assert score.isfinite().all()
    assert score.any()


def test_mnist_is_a_preset_and_an_unknown_one_is_refused_with_what_there_is() -> None:
    assert "mnist" in presets.names()
    with pytest.raises(LookupError, match=r"no preset '\.\./mnist'; there is: .*mnist"):
        presets.load("../mnist")


def test_a_preset_of_one_s_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('model = {name = "mine", sigma_min = 0.1, sigma_max = 1.0}\ntraining = {epochs = 3}\n')
    preset = presets.load(str(path))
    assert (preset.model.name, preset.training.epochs, preset.image.chw) == ("mine", 3, (1, 28, 28))
    path.write_text("model = {")
    with pytest.raises(ValueError, match="end of document"):
        presets.load(str(path))
    path.write_text('model = {name = "mine", sigma_min = 0.1}\ntraining = {epochs = 3}\n')
    with pytest.raises(ValueError, match=r"model.sigma_max is missing"):
        presets.load(str(path))
    with pytest.raises(FileNotFoundError):
        presets.load(str(tmp_path / "yours.toml"))
