from pathlib import Path

import pytest
import torch

from models.score import ScoreModel
from models.store import ModelStore
from models.training.presets import PublishedAs
from models.training.publish import ema_model, provenance, publish
from models.training.trainer import Trainer, TrainingSettings

PUBLISHED = PublishedAs(name="dots", description="Dots.", sigma_min=0.02, sigma_max=5.0)
SETTINGS = TrainingSettings(
    network={"channels": [16], "blocks": [1], "attention": [False], "embedding": 16, "groups": 4},
    batch=4,
    epochs=2,
    ema_decay=0.5,
    warmup_steps=1,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    images = torch.linspace(0, 255, 8).to(torch.uint8)[:, None, None, None].repeat(1, 1, 8, 8)
    trainer = Trainer(images, SETTINGS, tmp_path_factory.mktemp("run"))
    trainer.train(lambda *_: None)
    return trainer


def test_the_averaged_weights_are_published_under_the_next_version(trained: Trainer, tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    card, path = publish(trained, PUBLISHED, store, "scoreserve train dots")
    assert (card.name, card.version, card.description) == ("dots", 1, "Dots.")
    assert path == tmp_path / "dots" / "1"
    assert card.image.chw == (1, 8, 8)
    assert card.network.data_mean == pytest.approx(0.5, abs=0.01)
    assert store.card("dots") == card
    assert publish(trained, PUBLISHED, store, "")[0].version == 2

    x = torch.rand(2, 1, 8, 8)
    loaded, averaged = ScoreModel.load(store, card), ema_model(trained)
    raw = ScoreModel(trained.network, trained.parametrisation, averaged.image)
    assert torch.allclose(loaded.score(x, 0.5), averaged.score(x, 0.5), atol=1e-3)
    assert (raw.score(x, 0.5) - averaged.score(x, 0.5)).abs().max() > 1e-3


@pytest.mark.parametrize("steps", [1, 99, 100, 101, 1234])
def test_the_loss_curve_is_short_and_complete(trained: Trainer, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    losses = [float(i) for i in range(steps)]
    monkeypatch.setattr(trained, "losses", losses)
    curve = provenance(trained, "")["loss_curve"]
    assert len(curve) <= 200
    assert curve[-1][0] == steps
    widths = [end - start for start, end in zip([0, *(p[0] for p in curve)], (p[0] for p in curve), strict=False)]
    assert sum(width * mean for width, (_, mean) in zip(widths, curve, strict=True)) == pytest.approx(sum(losses))
