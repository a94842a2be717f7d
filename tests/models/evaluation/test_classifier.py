from pathlib import Path

import numpy as np
import pytest
import torch

from models.evaluation.classifier import Classifier, load
from models.training.data.formats import DataError
from models.training.labelled import load_labelled

MNIST = Path(__file__).parents[2] / "data" / "mnist"


def test_it_learns_the_classes(classifier: Classifier, textures_path: Path) -> None:
    test = load_labelled(textures_path).test
    assert classifier.test.accuracy > 0.95
    probabilities = classifier.probabilities(test.pixels)
    assert probabilities.shape == (200, 3)
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    right = probabilities.argmax(1) == test.labels.numpy()
    assert right.mean() == pytest.approx(classifier.test.accuracy)
    assert (probabilities.max(1) > 0.9).mean() == pytest.approx(classifier.test.recognised)


def test_features_are_what_the_last_layer_sees(classifier: Classifier, textures_path: Path) -> None:
    pixels = load_labelled(textures_path).test.pixels[:5]
    features = classifier.features(pixels)
    assert features.shape == (5, 128)
    with torch.inference_mode():
        logits = classifier.network[-1](torch.from_numpy(features))
    assert np.allclose(logits.softmax(1).numpy(), classifier.probabilities(pixels), atol=1e-5)


def test_it_is_trained_once_and_then_read_from_the_cache(
    classifier: Classifier, textures_path: Path, classifiers: Path
) -> None:
    steps: list[int] = []
    again = load(textures_path, classifiers, on_step=lambda done, _: steps.append(done))
    assert steps == []
    assert (again.test, again.key) == (classifier.test, classifier.key)
    for name, tensor in classifier.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name])


def test_other_data_have_another_classifier(
    classifier: Classifier, textures_path: Path, classifiers: Path, tmp_path: Path
) -> None:
    arrays = {name: array[:512] for name, array in np.load(textures_path).items()}
    np.savez(tmp_path / "x.npz", **arrays)
    steps: list[tuple[int, int]] = []
    kept = len(list(classifiers.iterdir()))
    other = load(tmp_path / "x.npz", classifiers, on_step=lambda done, of: steps.append((done, of)))
    assert other.key != classifier.key
    assert steps == [(step, 10) for step in range(1, 11)]
    assert len(list(classifiers.iterdir())) == kept + 1


@pytest.mark.parametrize("part", ["x_train", "y_train", "x_test", "y_test"])
def test_every_part_of_the_data_counts(part: str, textures_path: Path, classifiers: Path, tmp_path: Path) -> None:
    arrays = {name: array[:256] for name, array in np.load(textures_path).items()}
    np.savez(tmp_path / "x.npz", **arrays)
    before = load(tmp_path / "x.npz", classifiers).key
    arrays[part] = np.roll(arrays[part], 1, axis=0)
    np.savez(tmp_path / "x.npz", **arrays)
    assert load(tmp_path / "x.npz", classifiers).key != before


def test_its_training_leaves_the_callers_random_numbers_alone(textures_path: Path, tmp_path: Path) -> None:
    arrays = {name: array[:256] for name, array in np.load(textures_path).items()}
    np.savez(tmp_path / "x.npz", **arrays)
    torch.manual_seed(1)
    load(tmp_path / "x.npz", tmp_path)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))


def test_colours_of_any_size_are_learnt(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (300, 10, 12, 3), dtype=np.uint8), np.arange(300) % 5
    np.savez(tmp_path / "x.npz", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    classifier = load(tmp_path / "x.npz", tmp_path)
    assert classifier.probabilities(images[:7]).shape == (7, 5)
    assert classifier.features(images[:7]).shape == (7, 256)


@pytest.mark.parametrize(("channels", "told_apart"), [(1, True), (3, False)])
def test_left_and_right_are_the_same_where_there_are_colours(channels: int, told_apart: bool, tmp_path: Path) -> None:
    labels = np.arange(2048) % 2
    images = np.full((2048, 8, 8, channels), (32 * np.arange(8, dtype=np.uint8))[:, None])  # brighter to the right
    images[labels == 1] = images[labels == 1, :, ::-1]
    np.savez(tmp_path / "x.npz", x_train=images, y_train=labels, x_test=images[:100], y_test=labels[:100])
    assert (load(tmp_path / "x.npz", tmp_path).test.accuracy > 0.9) is told_apart


def test_images_of_another_shape_are_refused(classifier: Classifier) -> None:
    with pytest.raises(ValueError, match=r"looks at \[8, 8, 1\], not at \[8, 8, 3\]"):
        classifier.probabilities(np.zeros((2, 8, 8, 3), np.uint8))


def test_a_handful_of_images_is_too_few_to_learn_from(tmp_path: Path) -> None:
    images, labels = np.zeros((200, 8, 8), np.uint8), np.arange(200) % 2
    np.savez(tmp_path / "x.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.raises(DataError, match="at least 256 training images, not 200"):
        load(tmp_path / "x.npz", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_data_without_test_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no t10k-images"):
        load(MNIST, tmp_path)
