import math
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from models.card import ImageShape, ModelCard, NetworkSpec
from models.parametrisation import DiscreteLevels, Edm, OverSigma
from models.score import ScoreModel, build_network
from models.store import BrokenModel, ModelNotFound, ModelStore, sha256


class Constant(nn.Module):
    """Answers `value` everywhere, and records what it was asked."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value, self.levels, self.inputs = value, list[float](), list[Tensor]()

    def condition(self, noise_level: Tensor) -> Tensor:
        self.levels += noise_level.tolist()
        return noise_level[:, None]

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        self.inputs.append(x)
        return torch.full_like(x, self.value)


def constant_model(value: float, cache: int = 64) -> tuple[Constant, ScoreModel]:
    network = Constant(value)
    return network, ScoreModel(
        network, Edm(data_mean=0.2, data_std=0.3), ImageShape(channels=1, height=4, width=4), cache=cache
    )


@pytest.mark.parametrize("sigma", [0.01, 0.3, 10.0])
def test_the_score_is_that_of_edm_s_preconditioned_denoiser(sigma: float) -> None:
    network, model = constant_model(0.7)
    x = torch.rand(3, 1, 4, 4)
    mean, std = 0.2, 0.3
    c_skip, c_out = std**2 / (sigma**2 + std**2), sigma * std / math.hypot(sigma, std)
    denoised = mean + c_skip * (x - mean) + c_out * 0.7
    assert torch.allclose(model.denoise(x, sigma), denoised, atol=1e-5)
    assert torch.allclose(model.score(x, sigma), (denoised - x) / sigma**2, rtol=1e-3, atol=1e-3 / sigma)
    assert torch.allclose(network.inputs[0], (x - mean) / math.hypot(sigma, std), atol=1e-6)
    assert network.levels == pytest.approx([math.log(sigma) / 4])


def test_with_discrete_levels_the_output_is_the_score_and_the_network_sees_the_level_s_index() -> None:
    network = Constant(0.7)
    model = ScoreModel(network, DiscreteLevels(sigmas=(1.0, 0.1, 0.01)), ImageShape(channels=1, height=4, width=4))
    x = torch.rand(3, 1, 4, 4)
    assert torch.equal(model.score(x, [0.1, 1.0, 0.01]), torch.full_like(x, 0.7))
    assert network.levels == [1.0, 0.0, 2.0]
    assert torch.equal(network.inputs[0], x)


def test_an_unconditional_network_s_output_is_divided_by_sigma() -> None:
    network = Constant(0.7)
    model = ScoreModel(network, OverSigma(), ImageShape(channels=1, height=4, width=4))
    x = torch.rand(2, 1, 4, 4)
    score = model.score(x, [0.1, 20.0])
    assert torch.allclose(score[0], torch.full_like(x[0], 7.0))
    assert torch.allclose(score[1], torch.full_like(x[1], 0.035))
    assert torch.equal(network.inputs[0], x)


def test_each_image_may_have_its_own_sigma(tiny_model: ScoreModel) -> None:
    x, sigmas = torch.rand(3, 1, 8, 8), [0.1, 2.0, 0.1]
    together = tiny_model.score(x, sigmas)
    for i, sigma in enumerate(sigmas):
        assert torch.equal(together[i], tiny_model.score(x[i : i + 1], sigma)[0])


def test_a_noise_level_is_computed_once_and_the_oldest_is_forgotten() -> None:
    network, model = constant_model(0.0, cache=2 * 4)  # numbers, of which a condition here has four
    first = model.condition(0.1)
    for sigma in (0.2, 0.1, 0.2, 0.1):
        model.condition(sigma)
    assert len(network.levels) == 2
    model.condition(0.3)
    model.condition(0.2)
    assert len(network.levels) == 3
    assert torch.equal(model.condition(0.1), first)
    assert len(network.levels) == 4


class Labelled(Constant):
    """Answers what it is told of the class."""

    def condition(self, noise_level: Tensor, label: Tensor | None = None) -> Tensor:
        assert label is not None
        assert label.dtype == torch.int64
        self.levels += noise_level.tolist()
        return label[:, None].float()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return condition[:, :, None, None].expand_as(x)


def labelled_model(needs_label: bool = False) -> tuple[Labelled, ScoreModel]:
    network, shape = Labelled(0.0), ImageShape(channels=1, height=4, width=4)
    return network, ScoreModel(network, OverSigma(), shape, classes=3, needs_label=needs_label)


def test_a_network_with_classes_is_told_the_label_and_the_one_past_the_last_for_none() -> None:
    network, model = labelled_model()
    x = torch.rand(2, 1, 4, 4)
    for label, told in ((0, 0.0), (2, 2.0), (None, 3.0)):
        assert torch.equal(model.score(x, 1.0, label), torch.full_like(x, told))
        assert torch.equal(model.denoise(x, 1.0, label), x + told)
    assert len(network.levels) == 3, "each is remembered"


@pytest.mark.parametrize("label", [-1, 3])
def test_a_class_that_is_not_there_is_refused(label: int) -> None:
    with pytest.raises(ValueError, match=f"no class {label}; it has 3, from 0"):
        labelled_model()[1].condition(1.0, label)
    with pytest.raises(ValueError, match=f"no class {label}; it has none"):
        constant_model(0.0)[1].condition(1.0, label)


def test_a_model_that_was_never_trained_without_a_label_needs_one() -> None:
    model = labelled_model(needs_label=True)[1]
    assert model.condition(1.0, 1)[-1] == 1
    with pytest.raises(ValueError, match="no class None; it has 3"):
        model.condition(1.0)


def test_a_card_s_classes_are_those_of_the_model(tmp_path: Path, tiny_card: ModelCard) -> None:
    arguments = {**tiny_card.network.arguments, "classes": 2}
    spec = tiny_card.network.model_copy(update={"arguments": arguments})
    weights = safetensors.torch.save(build_network(spec).state_dict())
    card = tiny_card.model_copy(update={"network": spec, "classes": ("cat", "dog"), "weights_sha256": sha256(weights)})
    ModelStore(tmp_path).publish(card, weights)
    model = ScoreModel.load(ModelStore(tmp_path), card)
    assert (model.classes, model.needs_label) == (2, False)
    assert model.condition(1.0).shape == model.condition(1.0, 1).shape


def test_a_published_model_is_loaded_with_its_weights(models_dir: Path, tiny_model: ScoreModel) -> None:
    store = ModelStore(models_dir)
    again = ScoreModel.load(store, store.card("tiny"))
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(again.score(x, 0.5), tiny_model.score(x, 0.5))
    assert not again.network.training
    assert not any(p.requires_grad for p in again.network.parameters())


@pytest.mark.parametrize("arguments", [{}, {"channels": [16, 64]}, {"nonsense": 1}, {"channels": [16]}, {"groups": 7}])
def test_a_card_whose_network_does_not_fit_its_weights_is_broken(
    models_dir: Path, tiny_card: ModelCard, arguments: dict[str, object]
) -> None:
    changed = {**tiny_card.network.arguments, **arguments} if arguments else {}
    spec = NetworkSpec.model_validate({**tiny_card.network.model_dump(), "arguments": changed})
    with pytest.raises(BrokenModel, match="tiny version 1 cannot be loaded"):
        ScoreModel.load(ModelStore(models_dir), tiny_card.model_copy(update={"network": spec}))


def test_a_network_of_others_may_fail_in_any_way(
    tmp_path: Path, models_dir: Path, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_network.py").write_text("def net():\n    raise OSError('no licence server')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SCORESERVE_NETWORKS", "failing_network:net")
    parametrisation = {"name": "x0", "process": {"name": "ve"}}
    network = {"kind": "failing_network:net", "parametrisation": parametrisation}
    card = ModelCard.model_validate(tiny_card.model_dump() | {"network": network})
    with pytest.raises(BrokenModel, match="cannot be loaded: no licence server"):
        ScoreModel.load(ModelStore(models_dir), card)


def test_weights_that_are_no_safetensors_are_broken_and_missing_ones_missing(
    tmp_path: Path, tiny_card: ModelCard
) -> None:
    store = ModelStore(tmp_path)
    with pytest.raises(ModelNotFound):
        ScoreModel.load(store, tiny_card)
    card = tiny_card.model_copy(update={"weights_sha256": sha256(b"not weights")})
    store.publish(card, b"not weights")
    with pytest.raises(BrokenModel, match="cannot be loaded"):
        ScoreModel.load(store, card)


def test_a_network_is_built_from_its_spec() -> None:
    spec = NetworkSpec(
        kind="unet", arguments={"channels": [8], "blocks": [1], "attention": [False]}, data_mean=0, data_std=1
    )
    assert sum(p.numel() for p in build_network(spec).parameters()) > 0
