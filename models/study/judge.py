"""What the samples of a study are judged by: the bench of `scoreserve evaluate`, and files that keep what was drawn."""

from pathlib import Path

from models.card import ImageShape
from models.evaluation.bench import Bench, Progress
from models.evaluation.classifier import classifier_of
from models.training.data.images import check_shape
from models.training.labelled import Labelled, load_labelled

SLOTS, SLOTS_OF_A_GPU = 64, 256  # samples drawn at a time


def bench_of(path: Path, image: ImageShape, cache: Path, device: str, on_progress: Progress) -> tuple[Labelled, Bench]:
    """The real images of a data set, and the bench that samples are judged on.

    Args:
        path: a labelled data set, as `load_labelled` reads it.
        image: what its images must be.
        cache: directory that keeps classifiers.
        device: torch device name.
        on_progress: told of the classifier's training, where that is needed.

    Raises:
        DataError: the data cannot be used; the message says why.
        OSError: the cache cannot be written.
    """
    data = load_labelled(path)
    check_shape(path, data.train.images, image)

    def learning(done: int, of: int) -> None:
        on_progress("training a classifier of the real images", done, of)

    return data, Bench(data, classifier_of(data, cache, device, learning), None, cache)


def slots_of(device: str) -> int:
    """How many samples are drawn at a time on a device."""
    return SLOTS if device.startswith("cpu") else SLOTS_OF_A_GPU
