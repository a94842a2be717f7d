from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.training.data.formats import DataError
from models.training.data.formats.npz import read_npz

IMAGES = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
LABELS = np.zeros(2, np.int64)


def test_the_training_images_of_an_archive_of_cifar_10_are_read(tmp_path: Path) -> None:
    path = tmp_path / "cifar10.npz"
    np.savez(path, x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:1], y_test=LABELS[:1])
    images = read_npz(path)
    assert images.shape == (2, 3, 3, 4)
    assert torch.equal(images.permute(0, 2, 3, 1), torch.from_numpy(IMAGES))


def test_the_only_array_of_images_is_read_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "drawings.npz"
    np.savez_compressed(path, drawings=IMAGES[..., 0], labels=LABELS)
    assert torch.equal(read_npz(path), torch.from_numpy(IMAGES[..., 0])[:, None])


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"a": IMAGES, "b": IMAGES}, r"a uint8 \[2, 3, 4, 3\], b uint8"),
        ({"a": IMAGES / 255}, r"a float64 \[2, 3, 4, 3\]"),
        ({"labels": LABELS}, "labels int64"),
        ({}, "it holds nothing"),
    ],
    ids=["two", "floats", "labels", "nothing"],
)
def test_an_archive_without_one_array_of_images_says_what_it_holds(
    tmp_path: Path, arrays: dict[str, Any], said: str
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=said):
        read_npz(tmp_path / "x.npz")


def test_a_pickle_in_an_archive_is_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x_train=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="cannot be read as an npz file"):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("content", [b"", b"words", b"PK\x03\x04", None], ids=["empty", "words", "zip", "cut"])
def test_a_damaged_archive_is_one_clear_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x_train=IMAGES)
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    with pytest.raises(DataError, match=r"x\.npz cannot be read as an npz file"):
        read_npz(path)
