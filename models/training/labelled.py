"""Labelled data sets: training and test images of known classes."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from models.images import Pixels
from models.training.data.formats import DataError
from models.training.data.formats.cifar10 import TEST_BATCH, find_batches, read_labelled_batches
from models.training.data.formats.idx import load_mnist
from models.training.data.formats.npz import read_labelled_npz
from models.training.data.images import find_training_idx

EXPECTED = (
    "expected one of: the four idx files of MNIST or of a data set in its format (train and t10k, images and labels), "
    "data_batch_1 and so on with test_batch (CIFAR-10, python version), one .npz with x_train, y_train, x_test, y_test"
)


@dataclass(frozen=True)
class Part:
    """Images uint8 [n, c, h, w] and their labels, integers [n] from 0."""

    images: Tensor
    labels: Tensor

    @property
    def pixels(self) -> Pixels:
        """The images as uint8 [n, h, w, c]."""
        pixels: Pixels = self.images.permute(0, 2, 3, 1).numpy()
        return pixels


@dataclass(frozen=True)
class Labelled:
    """A labelled data set: what a classifier learns from, and what it never sees."""

    train: Part
    test: Part

    @property
    def classes(self) -> int:
        """How many there are: labels are below it."""
        return int(self.train.labels.max()) + 1


def load_labelled(path: Path) -> Labelled:
    """The labelled data set in a directory or an npz file.

    What is there decides how it is read: idx files, batches of CIFAR-10, or an npz file.

    Raises:
        DataError: nothing is there that can be read, it is damaged or empty, it has no labels or no test images, or the
            parts do not match.
    """
    data = _read(path)
    if not len(data.train.images) or not len(data.test.images):
        raise DataError(f"{path} holds no images in one of its parts")
    if data.train.images.shape[1:] != data.test.images.shape[1:]:
        raise DataError(f"{path}: training and test images have different shapes")
    if int(min(data.train.labels.min(), data.test.labels.min())) < 0 or int(data.test.labels.max()) >= data.classes:
        raise DataError(f"{path}: labels must count from 0, and those of the test images must be among the others")
    return data


def _read(path: Path) -> Labelled:
    if path.is_file() and path.suffix == ".npz":
        return _from_npz(path)
    if not path.is_dir():
        raise DataError(f"no labelled data in {path}; {EXPECTED}")
    if idx := find_training_idx(path):
        return Labelled(Part(*load_mnist(idx.parent, "train")), Part(*load_mnist(idx.parent, "t10k")))
    if batches := find_batches(path):
        test = [batches[0].with_name(TEST_BATCH)]
        return Labelled(Part(*read_labelled_batches(batches)), Part(*read_labelled_batches(test)))
    archives = sorted(path.glob("*.npz"))
    if len(archives) == 1:
        return _from_npz(archives[0])
    if archives:
        raise DataError(f"{path} holds {len(archives)} npz files: name one of them, such as {archives[0]}")
    raise DataError(f"no labelled data in {path}; {EXPECTED}")


def _from_npz(path: Path) -> Labelled:
    x_train, y_train, x_test, y_test = read_labelled_npz(path)
    return Labelled(Part(x_train, y_train), Part(x_test, y_test))
