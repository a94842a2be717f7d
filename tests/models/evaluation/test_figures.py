from pathlib import Path

import numpy as np
import pytest

from models.evaluation.classifier import Classifier
from models.evaluation.distances import frechet, precision_recall
from models.evaluation.figures import Figures
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
