"""The idx files of MNIST and of data sets in its format."""

import gzip
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from models.training.data.formats import DataError


def read_idx(path: Path) -> Tensor:
    """An idx file (LeCun's format, gzip or plain) of unsigned bytes, as a uint8 tensor of the file's shape.

    Raises:
        DataError: the file is missing, is no idx file of unsigned bytes, or its length is not what its header says.
    """
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise DataError(f"{path} is not an idx file of unsigned bytes (it must begin with 00 00 08)")
    dimensions = data[3]
    head = 4 + 4 * dimensions
    if len(data) < head:
        raise DataError(f"{path} ends inside its header")
    shape = struct.unpack(f">{dimensions}I", data[4:head])
    expected = head + int(torch.tensor(shape).prod())
    if len(data) != expected:
        raise DataError(f"{path} has {len(data)} bytes, its header {shape} asks for {expected}")
    if len(data) == head:
        raise DataError(f"{path} holds no images")
    return torch.frombuffer(bytearray(data[head:]), dtype=torch.uint8).reshape(shape)


def read_labels(images: Path) -> Tensor:
    """The labels uint8 [n] that lie beside a file of images, named as MNIST's are.

    Raises:
        DataError: they are not there, or damaged.
    """
    name = images.name.removesuffix(".gz").replace(".idx", "-idx")
    labels = read_idx(find_idx(images.parent, name.replace("images", "labels").replace("idx3", "idx1")))
    if labels.ndim != 1:
        raise DataError(f"the labels beside {images} have the shape {list(labels.shape)}, labels have [n]")
    return labels


def load_mnist(directory: Path, part: str = "train") -> tuple[Tensor, Tensor]:
    """MNIST (or a data set in its format): images uint8 [n, 1, 28, 28] and labels uint8 [n].

    Args:
        directory: holds `train-images-idx3-ubyte[.gz]` and so on.
        part: "train" or "t10k".

    Raises:
        DataError: a file is missing or damaged.
    """
    images = read_idx(find_idx(directory, f"{part}-images-idx3-ubyte"))
    labels = read_idx(find_idx(directory, f"{part}-labels-idx1-ubyte"))
    if images.ndim != 3 or len(images) != len(labels):
        raise DataError(f"{directory}: {tuple(images.shape)} images and {tuple(labels.shape)} labels do not match")
    return images.unsqueeze(1), labels


def find_idx(directory: Path, name: str) -> Path:
    """The path of an idx file, plain or gzipped; Kaggle's archive has a dot in the name, or a folder of the name.

    Raises:
        DataError: none of them is there.
    """
    names = name, name.replace("-idx", ".idx")
    for place in (directory, *(above / known for above in (directory, directory.parent) for known in names)):
        for known in names:
            for path in (place / known, place / f"{known}.gz"):
                if path.is_file():
                    return path
    raise DataError(f"no {name} or {name}.gz in {directory}: it must hold the MNIST idx files")
