"""Training images, read into memory as uint8, and what is on them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.card import ImageShape
from models.training.data.formats import DataError
from models.training.data.formats.cifar10 import class_names, find_batches, read_batches, read_labelled_batches
from models.training.data.formats.folder import classes_of, find_pictures, read_pictures
from models.training.data.formats.idx import read_idx, read_labels
from models.training.data.formats.npz import holds_images, read_npy, read_npz, read_training_labels

IDX_IMAGES = "train-images-idx3-ubyte"
IDX_NAMES = (IDX_IMAGES, "train-images.idx3-ubyte")  # the second is what Kaggle's archive of MNIST calls it
TRAINING, HELD_BACK = ("train", "training"), ("test", "testing", "val", "valid", "validation")
EXPECTED = (
    f"expected one of: {IDX_IMAGES}[.gz] (MNIST and data sets in its format), data_batch_1 and so on (CIFAR-10, python "
    "version), one .npz or .npy with an array of images, or a folder of pictures (.png, .jpg and the like)"
)
# What is found where images are expected, and what to do about it.
NO_IMAGES = {
    (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"): "an archive: unpack it, and name the folder",
    (".csv", ".tsv"): "a table: save its pixels as an array [n, h, w] with numpy.savez",
    (".parquet", ".arrow", ".feather"): "a table: save its pictures as files, or as an array with numpy.savez",
    (".tfrecord", ".tfrecords", ".lmdb", ".mdb", ".h5", ".hdf5", ".mat"): "a container that is not read: save its "
    "pictures as files, or as an array [n, h, w, c] with numpy.savez",
    (".pt", ".pth", ".pkl", ".pickle"): "a pickle, which can run code: save its pixels as an array with numpy.savez",
}


@dataclass(frozen=True)
class Labels:
    """What is on images.

    Args:
        indices: int64 [n], the class of each.
        names: of the classes.
    """

    indices: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from.

    Args:
        images: uint8 [n, c, h, w].
        labels: what is on them; None where nobody asked.
        told: in a line, how many images there are, where they are from, and what was left out.
    """

    images: Tensor
    labels: Labels | None
    told: str


@dataclass(frozen=True)
class _Read:
    images: Tensor
    path: Path  # of what the images were read from
    files: list[Path] | None = None  # of each image, where each has one
    left_out: tuple[str, ...] = ()


def load_data(
    path: Path,
    image: ImageShape,
    labelled: bool = False,
    names: tuple[str, ...] | None = None,
    skip_bad: bool = False,
) -> TrainingData:
    """The training images in a file or a directory.

    What is there decides how it is read: idx files, batches of CIFAR-10, an npz or npy file, or pictures at any depth,
    also as torchvision and Kaggle lay them out. Pictures are cropped and resized to the shape wanted; the others must
    have it. Where there are folders for training and for tests, those for training are read.

    Args:
        path: a directory, or an idx, npz or npy file.
        image: shape of an image of the model.
        labelled: whether the labels are read too.
        names: what the classes are called; None for what their folders or, of CIFAR-10, its batches call them, and
            else their numbers.
        skip_bad: whether pictures that cannot be read are left out.

    Raises:
        DataError: nothing is there that can be read, it is damaged, its images are of another shape, or labels are
            missing or do not match.
    """
    read = _read(path, image, skip_bad)
    check_shape(read.path, read.images, image)
    labels = None
    if labelled:
        found = _read_labels(read)
        labels = Labels(found.indices, names or found.names)
        _check_labels(read, labels)
    told = f"{len(read.images):,} images of {read.path}"
    return TrainingData(read.images, labels, told + "".join(f"; left out: {line}" for line in read.left_out))


def load_images(path: Path, image: ImageShape) -> Tensor:
    """The training images of `load_data`, uint8 [n, c, h, w].

    Raises:
        DataError: see there.
    """
    return load_data(path, image).images


def check_shape(path: Path, images: Tensor, image: ImageShape) -> None:
    """Raises DataError unless images [n, c, h, w], read from `path`, are some and of the shape of a model."""
    if images.shape[1:] != image.chw:
        found, wanted = (" x ".join(map(str, shape)) for shape in (images.shape[1:], image.chw))
        raise DataError(f"the images of {path} are {found} (channels, height, width); this model is of {wanted}")
    if not len(images):
        raise DataError(f"{path} holds no images")


def images_sha256(images: Tensor) -> str:
    """sha256 of the pixels, so that a card can say exactly what a model saw."""
    return hashlib.sha256(images.contiguous().numpy().data).hexdigest()


def find_training_idx(directory: Path) -> Path | None:
    """The idx file of training images in a directory, under any of the names that it goes by; None if it has none.

    Torchvision puts it in MNIST/raw (or FashionMNIST/raw and the like), and Kaggle's archive in a folder of its name.
    """
    for place in (directory, directory / "raw", *sorted(directory.glob("*/raw"))):
        for folder in (place, *(place / name for name in IDX_NAMES)):
            for name in IDX_NAMES:
                for path in (folder / name, folder / f"{name}.gz"):
                    if path.is_file():
                        return path
    return None


def _read(path: Path, image: ImageShape, skip_bad: bool) -> _Read:
    if path.is_file():
        return _Read(_read_file(path, image), path)
    if not path.is_dir():
        raise DataError(f"no data in {path}, which is not there; {EXPECTED}")
    if idx := find_training_idx(path):
        return _Read(_read_idx(idx), idx)
    if batches := find_batches(path):
        return _Read(read_batches(batches), batches[0].parent)
    arrays = sorted(found for found in (*path.glob("*.npz"), *path.glob("*.npy")) if holds_images(found))
    if len(arrays) == 1:
        return _Read(_read_file(arrays[0], image), arrays[0])
    if arrays:
        raise DataError(f"{path} holds {len(arrays)} files of arrays: name one of them, such as {arrays[0]}")
    return _read_folder(path, image, skip_bad)


def _read_file(path: Path, image: ImageShape) -> Tensor:
    if path.suffix == ".npz":
        return read_npz(path, image.chw)
    if path.suffix == ".npy":
        return read_npy(path, image.chw)
    for suffixes, what in NO_IMAGES.items():
        if path.suffix.lower() in suffixes and "idx" not in path.name:
            raise DataError(f"{path} is {what}")
    return _read_idx(path)


def _read_folder(path: Path, image: ImageShape, skip_bad: bool) -> _Read:
    left_out = list[str]()
    here = {entry.name.lower(): entry for entry in sorted(path.iterdir()) if entry.is_dir()}
    training = next((here[name] for name in TRAINING if name in here), None)
    if training and (others := [here[name].name for name in HELD_BACK if name in here]):
        left_out.append(f"the folder {', '.join(others)} beside {training.name}")
        path = training
    pictures, rest = find_pictures(path)
    if not pictures:
        for array in sorted(path.glob("*.np[yz]")):
            _read_file(array, image)  # which says what it holds instead
        raise DataError(f"no data in {path}{_what_is_there(path)}; {EXPECTED}")
    read = read_pictures(pictures, image, skip_bad)
    if read.bad:
        left_out.append(f"{len(read.bad)} of {len(pictures)} pictures that cannot be read ({'; '.join(read.bad[:3])})")
    if rest:
        kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(rest.items()))
        left_out.append(f"{rest.total()} files that are no pictures ({kinds})")
    return _Read(read.images, path, read.paths, tuple(left_out))


def _what_is_there(path: Path) -> str:
    """Words on a file in a directory that holds images in a way that is not read."""
    for entry in sorted(path.iterdir()):
        for suffixes, what in NO_IMAGES.items():
            if entry.suffix.lower() in suffixes:
                return f": {entry.name} is {what}"
    return ""


def _read_labels(read: _Read) -> Labels:
    path = read.path
    if read.files is not None:
        return Labels(*classes_of(read.files, path))
    if path.is_dir():
        indices = read_labelled_batches(find_batches(path))[1]
        return Labels(indices, class_names(path) or _numbered(indices).names)
    if path.suffix == ".npy":
        raise DataError(f"{path} has no labels: put x_train and y_train into one .npz")
    return _numbered(read_training_labels(path) if path.suffix == ".npz" else read_labels(path))


def _check_labels(read: _Read, labels: Labels) -> None:
    if len(labels.indices) != len(read.images):
        raise DataError(f"{read.path} has {len(labels.indices)} labels for {len(read.images)} images")
    if int(labels.indices.min()) < 0 or int(labels.indices.max()) >= len(labels.names):
        last, names = len(labels.names) - 1, ", ".join(labels.names)
        raise DataError(f"the labels of {read.path} must be from 0 to {last}: {names}")


def _numbered(indices: Tensor) -> Labels:
    return Labels(indices.to(torch.int64), tuple(map(str, range(int(indices.max()) + 1))))


def _read_idx(path: Path) -> Tensor:
    images = read_idx(path)
    if images.ndim != 3:
        raise DataError(f"{path} has the shape {list(images.shape)}, images have [n, height, width]")
    return images.unsqueeze(1)
