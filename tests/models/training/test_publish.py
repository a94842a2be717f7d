from itertools import combinations
from pathlib import Path

import pytest
import torch

from models.score import ScoreModel
from models.store import ModelStore
from models.training.data.images import Labels
from models.training.presets import PublishedAs
from models.training.publish import draft, ema_model, provenance, publish
from models.training.settings import TrainingSettings
from models.training.trainer import Trainer, TrainingDiverged

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
    assert card.classes is None
    assert card.provenance["weights"] == "exponential moving average of decay 0.5, float16"

    x = torch.rand(2, 1, 8, 8)
    loaded, averaged = ScoreModel.load(store, card), ema_model(trained)
    raw = ScoreModel(trained.network, trained.parametrisation, averaged.image)
    assert torch.allclose(loaded.score(x, 0.5), averaged.score(x, 0.5), atol=1e-3)
    assert (raw.score(x, 0.5) - averaged.score(x, 0.5)).abs().max() > 1e-3


def test_the_same_weights_are_not_published_twice_but_another_average_is(trained: Trainer, tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    first = publish(trained, PUBLISHED, store, "scoreserve train dots")
    assert publish(trained, PUBLISHED, store, "scoreserve train dots again") == first
    card, _ = publish(trained, PUBLISHED, store, "", decay=0.0)
    assert (card.version, store.versions("dots")) == (2, [1, 2])
    assert "decay 0," in card.provenance["weights"]
    with pytest.raises(ValueError, match=r"no average of decay 0\.9; there is 0, 0\.5, 0\.875"):
        publish(trained, PUBLISHED, store, "", decay=0.9)


def test_an_earlier_version_that_cannot_be_read_is_no_hindrance(trained: Trainer, tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    publish(trained, PUBLISHED, store, "", decay=0.0)
    (tmp_path / "dots" / "1" / "card.json").write_text("{}")
    card, _ = publish(trained, PUBLISHED, store, "")
    assert card.version == 2


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_weights_that_are_not_finite_as_float16_are_not_published(
    trained: Trainer, tmp_path: Path, value: float
) -> None:
    weight: torch.Tensor = trained.ema.module.conv_in.bias  # type: ignore[union-attr, assignment]
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[0] = value
        with pytest.raises(
            TrainingDiverged, match=r"not all weights are finite as float16 \(conv_in\.bias\): they are not published"
        ):
            publish(trained, PUBLISHED, ModelStore(tmp_path), "")
    finally:
        with torch.no_grad():
            weight.copy_(before)
    assert list(tmp_path.iterdir()) == []


def test_the_card_names_the_classes_and_samples_follow_them(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    settings = SETTINGS.model_copy(update={"classes": True, "epochs": 30})
    trainer = Trainer(images, settings, tmp_path, labels=Labels(torch.arange(8) % 2, ("cat", "dog")))
    trainer.train(lambda *_: None)
    store = ModelStore(tmp_path)
    card, _ = publish(trainer, PUBLISHED, store, "")
    assert (card.classes, card.needs_label, card.draws_labels) == (("cat", "dog"), False, False)
    drawing = PUBLISHED.model_copy(update={"draws_labels": True})
    assert draft(trainer, drawing).draws_labels
    assert (card.guidance, draft(trainer, PUBLISHED.model_copy(update={"guidance": 3.0})).guidance) == (None, 3.0)
    x, model = torch.rand(1, 1, 8, 8), ScoreModel.load(store, card)
    scores = [model.score(x, 0.5, label) for label in (0, 1, None)]
    assert all(not torch.equal(a, b) for a, b in combinations(scores, 2))


@pytest.mark.parametrize("steps", [1, 99, 100, 101, 1234])
def test_the_loss_curve_is_short_and_complete(trained: Trainer, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    losses = [float(i) for i in range(steps)]
    monkeypatch.setattr(trained, "_losses", losses)
    monkeypatch.setattr(trained, "_unread", [])  # which nobody may have asked for yet
    curve = provenance(trained, "")["loss_curve"]
    assert len(curve) <= 200
    assert curve[-1][0] == steps
    widths = [end - start for start, end in zip([0, *(p[0] for p in curve)], (p[0] for p in curve), strict=False)]
    assert sum(width * mean for width, (_, mean) in zip(widths, curve, strict=True)) == pytest.approx(sum(losses))
