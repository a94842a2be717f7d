from pathlib import Path

import numpy as np
import pytest

from models.evaluation.classifier import Classifier
from models.evaluation.distances import frechet, precision_recall
from models.evaluation.figures import ByClass, Figures
from models.training.labelled import load_labelled


def test_real_images_are_recognised_even_and_near(classifier: Classifier, textures_path: Path) -> None:
    data = load_labelled(textures_path)
    real = classifier.features(data.test.pixels)
    figures = Figures.of(data.train.pixels[:300], classifier, real)
    assert figures.recognised > 0.5
    assert figures.standard_error == pytest.approx((figures.recognised * (1 - figures.recognised) / 300) ** 0.5)
    assert sum(figures.classes) == pytest.approx(1)
    assert figures.classes == pytest.approx([1 / 3] * 3, abs=0.05)
    features = classifier.features(data.train.pixels[:300])
    assert figures.distance == frechet(features, real)
    assert (figures.precision, figures.recall) == precision_recall(features, real)
    assert figures.precision > 0.8


def test_a_collapse_to_one_class_shows(classifier: Classifier, textures_path: Path) -> None:
    data = load_labelled(textures_path)
    real = classifier.features(data.test.pixels)
    even = Figures.of(data.train.pixels[:100], classifier, real)
    collapsed = Figures.of(data.train.pixels[data.train.labels.numpy() == 1][:100], classifier, real)
    assert np.argmax(collapsed.classes) == 1
    assert max(collapsed.classes) > 0.9
    assert collapsed.distance > 5 * even.distance
    assert collapsed.recall < 0.5


def test_what_is_known_of_labels(classifier: Classifier, textures_path: Path) -> None:
    data = load_labelled(textures_path)
    real, labels = classifier.features(data.test.pixels), data.train.labels.numpy()[:300]
    pixels, real_labels = data.train.pixels[:300], data.test.labels.numpy()
    right = ByClass.of(pixels, labels, classifier, real, real_labels)
    assert right.accuracy > 0.9
    assert right.standard_error == pytest.approx((right.accuracy * (1 - right.accuracy) / 300) ** 0.5)
    assert right.distances[1] == frechet(classifier.features(pixels[labels == 1]), real[real_labels == 1])
    wrong = ByClass.of(pixels, (labels + 1) % 3, classifier, real, real_labels)
    assert wrong.accuracy < 0.1
    assert all(
        a is not None and b is not None and a < b / 5 for a, b in zip(right.distances, wrong.distances, strict=True)
    )
    few = ByClass.of(pixels[:2], labels[:2], classifier, real, real_labels)
    assert few.distances == [None] * 3
