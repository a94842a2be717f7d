"""Training images, read into memory as uint8."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.card import ImageShape
from models.training.formats import DataError
from models.training.formats.cifar10 import class_names, find_batches, read_batches, read_labelled_batches
from models.training.formats.folder import classes_of, find_pictures, read_pictures
from models.training.formats.idx import read_idx, read_labels
from models.training.formats.npz import read_npz, read_training_labels

IDX_IMAGES = "train-images-idx3-ubyte"
EXPECTED = (
    f"expected one of: {IDX_IMAGES}[.gz] (MNIST and data sets in its format), data_batch_1 and so on (CIFAR-10, python "
    "version), one .npz with an array of images, or a folder of pictures (.png, .jpg and the like)"
)


def load_images(path: Path, image: ImageShape) -> Tensor:
    """The training images in a file or a directory, uint8 [n, c, h, w].

    What is there decides how it is read: idx files, batches of CIFAR-10, an npz file, or pictures at any depth.
    Pictures are cropped and resized to the shape wanted; the others must have it.

    Args:
        path: a directory, or an idx or npz file.
        image: shape of an image of the model.

    Raises:
        DataError: nothing is there that can be read, it is damaged, or its images are of another shape.
    """
    images = _read(path, image)
    check_shape(path, images, image)
    return images


@dataclass(frozen=True)
class Labels:
    """What is on images.

    Args:
        indices: int64 [n], the class of each.
        names: of the classes.
    """

    indices: Tensor
    names: tuple[str, ...]


def load_labels(path: Path, images: Tensor, names: tuple[str, ...] | None = None) -> Labels:
    """The labels of the images that `load_images` read from the same path.

    Args:
        path: see there.
        images: those images.
        names: what the classes are called; None for what their folders or, of CIFAR-10, its batches call them, and
            else their numbers.

    Raises:
        DataError: there are none, or they do not match the images.
    """
    found = _read_labels(path)
    found = Labels(found.indices, names or found.names)
    if len(found.indices) != len(images):
        raise DataError(f"{path} has {len(found.indices)} labels for {len(images)} images")
    if int(found.indices.min()) < 0 or int(found.indices.max()) >= len(found.names):
        raise DataError(f"the labels of {path} must be from 0 to {len(found.names) - 1}: {', '.join(found.names)}")
    return found


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


def _read(path: Path, image: ImageShape) -> Tensor:
    if path.is_file():
        return read_npz(path) if path.suffix == ".npz" else _read_idx(path)
    if not path.is_dir():
        raise DataError(f"no data in {path}, which is not there; {EXPECTED}")
    for name in (IDX_IMAGES, f"{IDX_IMAGES}.gz"):
        if (path / name).is_file():
            return _read_idx(path / name)
    if batches := find_batches(path):
        return read_batches(batches)
    archives = sorted(path.glob("*.npz"))
    if len(archives) == 1:
        return read_npz(archives[0])
    if archives:
        raise DataError(f"{path} holds {len(archives)} npz files: name one of them, such as {archives[0]}")
    if pictures := find_pictures(path):
        return read_pictures(pictures, image)
    raise DataError(f"no data in {path}; {EXPECTED}")


def _read_labels(path: Path) -> Labels:
    if path.is_dir():
        for name in (IDX_IMAGES, f"{IDX_IMAGES}.gz"):
            if (path / name).is_file():
                return _numbered(read_labels(path / name))
        if batches := find_batches(path):
            indices = read_labelled_batches(batches)[1]
            return Labels(indices, class_names(batches[0].parent) or _numbered(indices).names)
        if archives := sorted(path.glob("*.npz")):
            return _numbered(read_training_labels(archives[0]))
        return Labels(*classes_of(find_pictures(path), path))
    return _numbered(read_training_labels(path) if path.suffix == ".npz" else read_labels(path))


def _numbered(indices: Tensor) -> Labels:
    return Labels(indices.to(torch.int64), tuple(map(str, range(int(indices.max()) + 1))))


def _read_idx(path: Path) -> Tensor:
    images = read_idx(path)
    if images.ndim != 3:
        raise DataError(f"{path} has the shape {list(images.shape)}, images have [n, height, width]")
    return images.unsqueeze(1)
