"""The bench that samples are judged on: the real images, and the networks that compare."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from models.evaluation.classifier import CONFIDENT, Classifier
from models.evaluation.distances import Moments, evenly, frechet
from models.evaluation.figures import ByClass, Figures, Labels
from models.evaluation.inception import Inception, InceptionFigures
from models.evaluation.nearest import Copying, median_distance
from models.evaluation.record import Floor, Judge
from models.images import Pixels
from models.training.data.images import images_sha256
from models.training.labelled import Labelled

COPIES = 1000  # samples whose nearest training images are looked for

Progress = Callable[[str, int, int], None]  # what is being done, how much of it is done, how much it is


class Bench:
    """Judges images of one data set.

    Args:
        data: the real images.
        classifier: of the same data.
        inception: for FID and Inception score; None goes without.
        cache: directory that keeps Inception's moments of the real images.
    """

    def __init__(self, data: Labelled, classifier: Classifier, inception: Inception | None, cache: Path) -> None:
        self.train, self.test = data.train.pixels, data.test.pixels
        self.train_labels, self.test_labels = data.train.labels.numpy(), data.test.labels.numpy()
        self.classes = data.classes
        self.train_sha256 = images_sha256(data.train.images)
        self.classifier, self.inception, self.cache = classifier, inception, cache
        self.real = classifier.features(self.test)
        self._moments: Moments | None = None
        self._usual: dict[int, float] = {}  # median distance of so many test images to their nearest training images

    @property
    def judge(self) -> Judge:
        """The classifier, as a record tells of it."""
        probabilities = self.classifier.probabilities(self.test)
        counts = np.bincount(probabilities.argmax(1), minlength=probabilities.shape[1])
        return Judge(
            key=self.classifier.key,
            test_accuracy=self.classifier.test.accuracy,
            test_recognised=self.classifier.test.recognised,
            test_classes=(counts / len(self.test)).tolist(),
            confident=CONFIDENT,
        )

    def figures(self, pixels: Pixels) -> Figures:
        """What the classifier makes of images uint8 [n, h, w, c]."""
        return Figures.of(pixels, self.classifier, self.real)

    def by_class(self, pixels: Pixels, labels: Labels) -> ByClass:
        """What the classifier makes of images uint8 [n, h, w, c] and their labels [n]."""
        return ByClass.of(pixels, labels, self.classifier, self.real, self.test_labels)

    def distance(self, pixels: Pixels) -> float:
        """Frechet distance of images uint8 [n, h, w, c] to the real test images, in the classifier's features."""
        return frechet(self.classifier.features(pixels), self.real)

    def floor(self, count: int) -> Floor:
        """The figures of `count` real training images, or of all if there are fewer, from all over the data set."""
        n = min(count, len(self.train))
        chosen = evenly(len(self.train), n)
        by_class = self.by_class(self.train[chosen], self.train_labels[chosen])
        return Floor(count=count, images=n, figures=self.figures(self.train[chosen]), by_class=by_class)

    def copying(self, pixels: Pixels) -> Copying:
        """How near the first COPIES of the samples, uint8 [n, h, w, c], are to the training images."""
        n = min(len(pixels), len(self.test), COPIES)
        if n not in self._usual:
            self._usual[n] = median_distance(self.test[evenly(len(self.test), n)], self.train)
        return Copying.of(pixels[:n], self.train, self._usual[n])

    def inception_figures(self, pixels: Pixels, on_progress: Progress) -> InceptionFigures | None:
        """FID to all training images, and Inception score, of samples uint8 [n, h, w, c]; None without Inception."""
        if self.inception is None:
            return None

        def looking(what: str, of: int) -> Callable[[int], None]:
            return lambda done: on_progress(f"Inception looks at {what}", done, of)

        if self._moments is None:
            on_real = looking("the training images", len(self.train))
            self._moments = self.inception.moments(self.train, self.train_sha256, self.cache, on_real)
        return self.inception.figures(pixels, self._moments, looking("the samples", len(pixels)))
