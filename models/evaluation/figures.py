"""What a classifier makes of a set of images, in figures."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.classifier import CONFIDENT, Classifier
from models.evaluation.distances import Features, frechet, precision_recall
from models.images import Pixels

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Figures:
    """What a classifier makes of images, one figure a field.

    The share recognised alone misleads: a classifier that never saw noise is sure of many a noisy scribble. So it
    stands beside the distance, which is the formula of FID on the features of another network: comparable with no FID.

    Args:
        distance: Frechet distance of their features to those of the real test images.
        precision, recall: of the same features (Kynkaanniemi 2019).
        recognised: share with a probability above CONFIDENT for some class.
        standard_error: of that share, from the number of images.
        classes: share of each class among all images, by the largest probability.
    """

    distance: float
    precision: float
    recall: float
    recognised: float
    standard_error: float
    classes: list[float]

    @classmethod
    def of(cls, pixels: Pixels, classifier: Classifier, real: Features) -> "Figures":
        """From images uint8 [n, h, w, c] and the features [m, f] of the real test images.

        Raises:
            ValueError: the images have another shape than the classifier's, or there are too few of them.
        """
        probabilities, features, n = classifier.probabilities(pixels), classifier.features(pixels), len(pixels)
        precision, recall = precision_recall(features, real)
        recognised = float((probabilities.max(1) > CONFIDENT).mean())
        counts = np.bincount(probabilities.argmax(1), minlength=probabilities.shape[1])
        return cls(
            distance=frechet(features, real),
            precision=precision,
            recall=recall,
            recognised=recognised,
            standard_error=math.sqrt(recognised * (1 - recognised) / n),
            classes=(counts / n).tolist(),
        )


@dataclass(frozen=True)
class ByClass:
    """What a classifier makes of images whose classes are known.

    Args:
        accuracy: share of them that it names as their label says.
        standard_error: of that share, from the number of images.
        distances: Frechet distance of the images of each class to the real test images of that class; None of fewer
            than 2. Each is of few images, so compare only equal numbers.
    """

    accuracy: float
    standard_error: float
    distances: list[float | None]

    @classmethod
    def of(
        cls, pixels: Pixels, labels: Labels, classifier: Classifier, real: Features, real_labels: Labels
    ) -> "ByClass":
        """From images uint8 [n, h, w, c] and their labels [n], and features [m, f] and labels [m] of real test images.

        Raises:
            ValueError: the images have another shape than the classifier's.
        """
        probabilities, features = classifier.probabilities(pixels), classifier.features(pixels)
        accuracy = float((probabilities.argmax(1) == labels).mean())
        distances: list[float | None] = []
        for label in range(probabilities.shape[1]):
            of_class, real_ones = features[labels == label], real[real_labels == label]
            distances.append(frechet(of_class, real_ones) if min(len(of_class), len(real_ones)) > 1 else None)
        return cls(accuracy, math.sqrt(accuracy * (1 - accuracy) / len(pixels)), distances)
