"""The part of torch-fidelity that is used is stood in for: it is not among what the tests may install."""

import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.evaluation.distances import Moments, frechet
from models.evaluation.inception import Inception, NoInception, inception_score

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (70, 8, 8, 1), dtype=np.uint8)


class Extractor(nn.Module):
    """Has the signature and the strictness of torch_fidelity.FeatureExtractorInceptionV3 (0.4.0), but small layers."""

    def __init__(
        self, name: str, features_list: list[str], feature_extractor_weights_path: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__()
        assert isinstance(name, str)
        assert set(features_list) <= {"64", "192", "768", "2048", "logits_unbiased", "logits"}
        assert feature_extractor_weights_path is not None, "it would be downloaded"
        self.features_list = features_list
        self.fc = nn.Linear(3 * 64, 5)
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))
        self.requires_grad_(False)
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        assert x.dtype == torch.uint8
        assert x.dim() == 4
        assert x.shape[1] == 3
        flat = x.flatten(1).float() / 255
        features = {"2048": flat[:, ::16], "logits_unbiased": flat @ self.fc.weight.T}
        return tuple(features[name] for name in self.features_list)


@pytest.fixture
def torch_fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torch_fidelity")
    module.FeatureExtractorInceptionV3 = Extractor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", module)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "inception.pth"
    torch.save(nn.ModuleDict({"fc": nn.Linear(3 * 64, 5)}).state_dict(), path)
    return path


@pytest.mark.usefixtures("torch_fidelity")
def test_grey_images_are_looked_at_as_rgb_ones_in_batches(weights: Path) -> None:
    looked: list[int] = []
    inception = Inception(weights)
    features, logits = inception.look(GREY, looked.append)
    assert (features.shape, logits.shape, looked) == ((70, 12), (70, 5), [64, 70])
    rgb = inception.look(GREY.repeat(3, axis=3))
    assert np.array_equal(rgb[0], features)
    assert np.allclose(rgb[1], logits, atol=1e-5)
    with pytest.raises(ValueError, match="1 or 3 channels, not of 4"):
        inception.look(np.zeros((2, 8, 8, 4), np.uint8))


@pytest.mark.usefixtures("torch_fidelity")
def test_fid_is_the_frechet_distance_of_the_features(weights: Path) -> None:
    inception, real = Inception(weights), GREY[35:] // 2
    features = inception.look(GREY[:35])[0], inception.look(real)[0]
    found = inception.figures(GREY[:35], Moments.of(features[1]))
    assert found.images == 35
    assert found.fid == pytest.approx(frechet(*features))
    assert found.fid > 0.1
    assert (found.score, found.score_deviation) == inception_score(inception.look(GREY[:35])[1])


@pytest.mark.usefixtures("torch_fidelity")
def test_the_moments_of_the_real_images_are_kept(weights: Path, tmp_path: Path) -> None:
    inception, looked = Inception(weights), []
    first = inception.moments(GREY, "ab" * 32, tmp_path / "cache", looked.append)
    again = inception.moments(GREY, "ab" * 32, tmp_path / "cache", lambda _: pytest.fail("they are kept"))
    assert looked == [64, 70]
    assert np.array_equal(first.mean, again.mean)
    assert np.array_equal(first.covariance, again.covariance)
    inception.moments(GREY[:9], "cd" * 32, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_inception_score_of_known_predictions() -> None:
    """It is 1 where nothing is told apart, and the number of classes where all are, evenly and for sure."""
    assert inception_score(np.zeros((500, 7), np.float32)) == (pytest.approx(1), pytest.approx(0))
    sure = 50 * np.eye(4, dtype=np.float32)[np.arange(4000) % 4]
    score, deviation = inception_score(sure)
    assert 3.95 < score <= 4
    assert 0 < deviation < 0.05


def test_without_torch_fidelity_it_says_what_to_install(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(NoInception, match=r"torch-fidelity and torchvision .*install scoreserve\[fid\]"):
        Inception(weights)


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("the pickle's code ran",)


@pytest.mark.usefixtures("torch_fidelity")
@pytest.mark.parametrize(
    "content", [None, b"", b"words", pickle.dumps(Attack(), 2)], ids=["none", "empty", "words", "code"]
)
def test_weights_that_are_none(tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]) -> None:
    if content is not None:
        (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(NoInception, match=r"x\.pth cannot be read as the weights"):
        Inception(tmp_path / "x.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("torch_fidelity")
def test_weights_of_another_network(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "x.pth")
    with pytest.raises(NoInception, match=r"x\.pth cannot be read as the weights.*Missing key"):
        Inception(tmp_path / "x.pth")
