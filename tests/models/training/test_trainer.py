from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.training.checkpoint import CHECKPOINT
from models.training.data.images import Labels
from models.training.execution import StepExecution
from models.training.levels import NoiseLevels
from models.training.objectives import Objective
from models.training.processes import Processes
from models.training.settings import TrainingSettings
from models.training.trainer import Trainer, TrainingDiverged, mean_and_std
from tests.models.training.small import IMAGES, SETTINGS, Interrupted, ignore, state, stop_at


def test_training_lowers_the_loss_and_averages_the_weights(whole: Trainer) -> None:
    assert whole.step == whole.steps == len(whole.losses) == 10
    assert sum(whole.losses[-3:]) < sum(whole.losses[:3])
    raw, averaged = whole.network.state_dict(), whole.ema.module.state_dict()
    assert any(not torch.equal(raw[name], averaged[name]) for name in raw)


def test_the_averages_follow_the_weights_with_their_decays_and_faster_in_the_beginning(tmp_path: Path) -> None:
    trainer = Trainer(IMAGES, SETTINGS.model_copy(update={"epochs": 30}), tmp_path)
    weights: list[Tensor] = []
    trainer.train(lambda t, _: weights.append(t.network.conv_in.weight.detach().clone()))  # type: ignore[union-attr, operator]
    assert list(trainer.averages.models) == [0.6, 0.9, 0.975]
    assert trainer.ema is trainer.averages.models[0.9]
    for decay, average in trainer.averages.models.items():
        expected = weights[0]
        for step, weight in enumerate(weights[1:], 1):
            kept = min(decay, (1 + step) / (10 + step))
            expected = kept * expected + (1 - kept) * weight
        assert torch.allclose(average.module.conv_in.weight, expected, atol=1e-5)  # type: ignore[union-attr, arg-type]


def test_the_first_weights_are_no_part_of_the_average_of_a_short_run(tmp_path: Path) -> None:
    """With a decay of 0.999 from the start, 20 steps would publish 98 hundredths of a network that knows nothing."""
    trainer = Trainer(IMAGES, SETTINGS.model_copy(update={"epochs": 5, "ema_decay": 0.999}), tmp_path)
    weights: list[Tensor] = []
    trainer.train(lambda t, _: weights.append(t.network.conv_in.weight.detach().clone()))  # type: ignore[union-attr, operator]
    average: Tensor = trainer.ema.module.conv_in.weight  # type: ignore[union-attr, assignment]
    assert (average - weights[-1]).norm() < 0.5 * (average - weights[0]).norm()


def test_runs_of_other_seeds_differ(whole: Trainer, tmp_path: Path) -> None:
    other = Trainer(IMAGES, SETTINGS.model_copy(update={"seed": 5}), tmp_path)
    other.train(ignore)
    assert other.losses != whole.losses


def test_every_epoch_shows_every_image_once_in_a_fresh_order(tmp_path: Path) -> None:
    images = torch.arange(32, dtype=torch.uint8)[:, None, None, None].expand(32, 1, 8, 8)
    trainer = Trainer(images, SETTINGS.model_copy(update={"epochs": 2}), tmp_path)
    order = torch.cat([batch.x[:, 0, 0, 0] * 255 for batch in trainer.batches.ahead(0, trainer.steps)]).tolist()
    first, second = order[:32], order[32:]
    assert sorted(first) == sorted(second) == pytest.approx(list(range(32)))
    assert first != second


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(tmp_path: Path, value: float) -> None:
    trainer = Trainer(IMAGES, SETTINGS, tmp_path)
    with pytest.raises(Interrupted):
        trainer.train(stop_at(2))
    before = trainer.save().read_bytes()
    with torch.no_grad():
        trainer.network.conv_out.bias.fill_(value)  # type: ignore[union-attr, operator]
    with pytest.raises(TrainingDiverged, match=r"step 2; lower the learning rate \(now 0\.004\)"):
        trainer.train(ignore)
    assert len(trainer.losses) == trainer.step == 2
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_the_optimizer_steps_with_the_scheduled_rate(tmp_path: Path) -> None:
    changes = {"optimizer": "muon", "learning_rate": 1e-3, "muon_learning_rate": 1e-2}
    trainer = Trainer(IMAGES, SETTINGS.model_copy(update=changes), tmp_path)
    used: list[list[float]] = []
    trainer.train(lambda t, _: used.append([part.param_groups[0]["lr"] for part in t.optimizer.parts]))
    factors = [trainer.settings.rate_factor(step, trainer.steps) for step in range(10)]
    assert used == [[1e-3 * factor, 1e-2 * factor] for factor in factors]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    trainer = Trainer(IMAGES, SETTINGS, tmp_path)
    before = trainer.save().read_bytes()
    with torch.no_grad():
        next(trainer.network.parameters())[0] = float("inf")
    with pytest.raises(TrainingDiverged, match="weights are not finite after step 0; lower the learning rate"):
        trainer.save()
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_fewer_images_than_a_batch_are_one_batch(tmp_path: Path) -> None:
    trainer = Trainer(IMAGES[:3], SETTINGS, tmp_path)
    trainer.train(ignore)
    assert trainer.steps_per_epoch == 1
    assert len(trainer.losses) == trainer.steps == 2


@pytest.mark.parametrize("n", [5, 8])
def test_processes_see_together_what_one_alone_sees(tmp_path: Path, n: int) -> None:
    settings = SETTINGS.model_copy(update={"batch": n, "flip": True})
    images = torch.arange(36 * 64, dtype=torch.uint8).reshape(36, 1, 8, 8)
    alone = Trainer(images, settings, tmp_path)
    drawn = alone.batches.batch(0)
    for size in (2, 3):
        shares = [
            Trainer(images, settings, tmp_path, processes=Processes(rank, size)).batches.batch(0)
            for rank in range(size)
        ]
        assert all(len(share.x) for share in shares)
        for name in ("x", "sigma", "factors"):
            assert torch.equal(torch.cat([getattr(share, name) for share in shares]), getattr(drawn, name))
        assert torch.equal(torch.cat([share.normals for share in shares], 1), drawn.normals)
    with pytest.raises(ValueError, match=f"a batch of {n} images cannot be shared by 9 processes"):
        Trainer(images, settings, tmp_path, processes=Processes(0, 9))


def test_half_of_the_images_are_mirrored_if_that_is_asked_for(tmp_path: Path) -> None:
    image = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8)
    images = image.expand(400, 1, 8, 8)
    trainer = Trainer(images, SETTINGS.model_copy(update={"flip": True, "batch": 400}), tmp_path)
    seen = trainer.batches.draw(0, images, None)
    pixels = seen.x * 255
    mirrored = (pixels.round() == image.flip(3)).flatten(1).all(1)
    assert torch.equal((pixels.round() == image).flatten(1).all(1), ~mirrored)
    assert 160 < int(mirrored.sum()) < 240
    straight = Trainer(images, SETTINGS.model_copy(update={"batch": 400}), tmp_path)
    unflipped = straight.batches.draw(0, images, None)
    assert torch.equal(unflipped.x, images.float() / 255)
    assert torch.equal(unflipped.sigma, seen.sigma)
    assert torch.equal(unflipped.normals, seen.normals)


def test_a_run_at_given_levels_draws_no_others(tmp_path: Path) -> None:
    levels = NoiseLevels(sigma_max=1.0, sigma_min=0.01, count=3)
    trainer = Trainer(IMAGES, SETTINGS.model_copy(update={"levels": levels, "batch": 36}), tmp_path)
    assert sorted(set(trainer.batches.batch(0).sigma.tolist())) == pytest.approx([0.01, 0.1, 1.0])


@pytest.mark.parametrize("objective", ["denoising", "sliced", "exact"])
def test_every_objective_trains(tmp_path: Path, objective: str) -> None:
    network = {**SETTINGS.network, "channels": [16], "blocks": [1], "attention": [False]}
    changes = {"objective": objective, "network": network, "batch": 36, "epochs": 80}
    trainer = Trainer(IMAGES[:, :, :2, :2], SETTINGS.model_copy(update=changes), tmp_path)
    judge = Objective("edm", trainer.network, trainer.parametrisation)  # the same for all
    batch = trainer.batches.batch(0)
    drawn = batch.x, batch.sigma, judge.factors(batch.sigma.tolist()), batch.normals[0]
    before = float(judge(*drawn).mean().detach())
    trainer.train(ignore)
    assert float(judge(*drawn).mean().detach()) < 0.9 * before


def test_what_compiles_is_what_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **_: compiled.append(module))
    trainer = Trainer(IMAGES, SETTINGS.model_copy(update={"compile": True}), tmp_path)
    trainer.train(ignore)
    assert compiled == [trainer.objective]
    with pytest.raises(ValueError, match="cannot differentiate twice, as the objective sliced does"):
        TrainingSettings(compile=True, objective="sliced")


LABELS = Labels(torch.arange(36) % 3, ("one", "two", "three"))
WITH_CLASSES = SETTINGS.model_copy(update={"classes": True, "label_dropout": 0.25})


def test_a_network_with_classes_is_told_the_labels_of_the_images_but_for_some(tmp_path: Path) -> None:
    images = torch.arange(36, dtype=torch.uint8)[:, None, None, None].expand(36, 1, 8, 8)
    trainer = Trainer(images, WITH_CLASSES.model_copy(update={"batch": 36}), tmp_path, labels=LABELS)
    assert trainer.classes == LABELS.names
    assert trainer.spec.arguments["classes"] == 3
    batches = list(trainer.batches.ahead(0, 60))
    images_told = torch.cat([(batch.x[:, 0, 0, 0] * 255).round().long() for batch in batches])
    labels = torch.cat([batch.label for batch in batches if batch.label is not None])
    untold = labels == 3
    assert torch.equal(labels[~untold], images_told[~untold] % 3)
    assert float(untold.float().mean()) == pytest.approx(0.25, abs=0.04)
    long = Trainer(IMAGES, WITH_CLASSES.model_copy(update={"epochs": 5}), tmp_path, labels=LABELS)
    long.train(ignore)
    table: Tensor = long.network.embed_label.weight  # type: ignore[union-attr, assignment]
    assert table.abs().amax(1).gt(0).all(), "each of the classes, and none, is learned"


def test_a_network_without_classes_is_told_no_labels(tmp_path: Path) -> None:
    trainer = Trainer(IMAGES, SETTINGS, tmp_path, labels=LABELS)
    assert trainer.classes == ()
    assert trainer.batches.batch(0).label is None
    with pytest.raises(ValueError, match="needs data with labels"):
        Trainer(IMAGES, WITH_CLASSES, tmp_path)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_batch_in_pieces_is_the_same_step_and_goes_on_to_the_same_weights(tmp_path: Path, optimizer: str) -> None:
    execution = StepExecution(layout="channels_last", precision="bfloat16", pieces=3)
    changes = {"optimizer": optimizer, "execution": execution}
    settings = WITH_CLASSES.model_copy(update=changes)
    whole = Trainer(IMAGES, settings, tmp_path / "never written", labels=LABELS)
    whole.train(ignore)
    first = Trainer(IMAGES, settings, tmp_path, labels=LABELS)
    with pytest.raises(Interrupted):
        first.train(stop_at(4))
    first.save()
    unsaid = settings.model_copy(update={"execution": None})
    resumed = Trainer(IMAGES, unsaid, tmp_path, labels=LABELS)
    resumed.resume()
    assert resumed.execution == execution, "the checkpoint knows it"
    assert resumed.history == []
    resumed.train(ignore)
    assert resumed.losses == whole.losses
    expected = state(whole)
    assert all(torch.equal(value, expected[name]) for name, value in state(resumed).items())


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-5), ("bfloat16", 0.05)])
@pytest.mark.parametrize("pieces", [1, 2, 20])
def test_every_execution_has_the_gradients_of_the_plain_one(
    tmp_path: Path, layout: Any, precision: Any, error: float, pieces: int
) -> None:
    trainer = Trainer(IMAGES, SETTINGS, tmp_path)
    with torch.no_grad():
        for parameter in trainer.network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    batch = trainer.batches.batch(0)
    found: list[tuple[float, list[Tensor]]] = []
    for execution in (StepExecution(), StepExecution(layout=layout, precision=precision, pieces=pieces)):
        gradients = trainer._gradients(execution)
        loss = gradients(batch, len(batch.x))
        gradients.close()
        found.append((float(loss), [p.grad.clone() for p in trainer.network.parameters() if p.grad is not None]))
    (loss, expected), (near, approximate) = found
    assert near == pytest.approx(loss, rel=error)
    assert len(expected) == len(approximate)
    size = sum(float((a**2).sum()) for a in expected) ** 0.5
    distance = sum(float(((a - b) ** 2).sum()) for a, b in zip(expected, approximate, strict=True)) ** 0.5
    assert distance < error * size
    if (layout, precision, pieces) != ("contiguous", "float32", 1):
        assert distance > 0, "it was another one"


def test_the_execution_is_chosen_before_the_first_step_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[StepExecution]] = []

    def last(among: list[StepExecution], seconds: Callable[[StepExecution], float]) -> StepExecution:
        asked.append(among)
        assert seconds(among[-1]) > 0
        return among[-1]

    monkeypatch.setattr("models.training.trainer.fastest", last)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    plain = Trainer(IMAGES, SETTINGS, tmp_path)
    before = state(plain)
    plain.choose_execution()
    assert plain.execution == StepExecution(layout="channels_last", precision="bfloat16", pieces=2)
    assert plain.settings.execution == plain.execution, "the card says it"
    assert all(torch.equal(value, before[name]) for name, value in state(plain).items()), "measuring changes nothing"
    plain.choose_execution()
    assert len(asked) == 1
    for changes, most in (
        ({"precision": "float32"}, StepExecution(layout="channels_last", pieces=2)),
        ({"objective": "denoising"}, StepExecution(layout="channels_last", pieces=2)),
        ({"objective": "sliced"}, StepExecution(layout="channels_last")),
        (
            {"network": {**SETTINGS.network, "dropout": 0.1}},
            StepExecution(layout="channels_last", precision="bfloat16"),
        ),
    ):
        other = Trainer(IMAGES, SETTINGS.model_copy(update=changes), tmp_path)
        other.choose_execution()
        assert other.execution == most


def test_a_network_with_dropout_is_not_trained_in_pieces(tmp_path: Path) -> None:
    changes = {"network": {**SETTINGS.network, "dropout": 0.1}, "execution": StepExecution(pieces=2)}
    with pytest.raises(ValueError, match=r"dropout.* in one piece"):
        Trainer(IMAGES, SETTINGS.model_copy(update=changes), tmp_path).train(ignore)


@pytest.mark.parametrize("pixel", [0, 255])
def test_images_that_are_all_alike_are_refused(tmp_path: Path, pixel: int) -> None:
    with pytest.raises(ValueError, match="all pixels of all training images are alike"):
        Trainer(torch.full((8, 1, 8, 8), pixel, dtype=torch.uint8), TrainingSettings(), tmp_path)


def test_mean_and_standard_deviation_are_those_of_the_pixels() -> None:
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = images.double() / 255
    assert mean_and_std(images) == pytest.approx((float(pixels.mean()), float(pixels.std())), rel=1e-12)


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "share_gradients", lambda self, module, device: module)
    Trainer(IMAGES, SETTINGS, tmp_path, processes=Processes(1, 2)).save()
    assert list(tmp_path.iterdir()) == []
    Trainer(IMAGES, SETTINGS, tmp_path, processes=Processes(0, 2)).save()
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]


def test_an_ncsnpp_is_trained_as_a_unet_is(tmp_path: Path) -> None:
    network = {"kind": "ncsnpp", "channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [False, True]}
    trainer = Trainer(IMAGES, SETTINGS.model_copy(update={"network": network}), tmp_path)
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    trainer.train(ignore)
    after = trainer.network.state_dict()
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert {name for name in before if torch.equal(before[name], after[name])} == {"frequencies"}
