import gzip
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.training.data.formats import DataError
from models.training.labelled import Labelled, load_labelled

RANDOM = np.random.default_rng(0)
TRAIN, TEST = (RANDOM.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for n in (6, 4))
TRAIN_LABELS, TEST_LABELS = np.array([0, 1, 2, 0, 1, 2]), np.array([2, 1, 0, 0])


def arrays(**changes: Any) -> dict[str, Any]:
    return {"x_train": TRAIN, "y_train": TRAIN_LABELS, "x_test": TEST, "y_test": TEST_LABELS} | changes


def check(data: Labelled, train: np.ndarray = TRAIN, test: np.ndarray = TEST) -> None:
    assert np.array_equal(data.train.pixels, train)
    assert np.array_equal(data.test.pixels, test)
    assert data.train.labels.tolist() == TRAIN_LABELS.tolist()
    assert data.test.labels.tolist() == TEST_LABELS.tolist()
    assert data.classes == 3


def write_idx(path: Path, array: np.ndarray) -> None:
    head = struct.pack(f">3sB{array.ndim}I", b"\0\0\x08", array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


def write_batch(path: Path, images: np.ndarray, labels: Any) -> None:
    data = images.transpose(0, 3, 1, 2).reshape(-1, 3072)
    path.write_bytes(pickle.dumps({b"data": data, b"labels": labels}, 2))


def test_idx_files(tmp_path: Path) -> None:
    for part, images, labels in (("train", TRAIN, TRAIN_LABELS), ("t10k", TEST, TEST_LABELS)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", images[..., 0])
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", labels)
    check(load_labelled(tmp_path), TRAIN[..., :1], TEST[..., :1])


@pytest.mark.parametrize("column", [False, True])
def test_an_archive_of_cifar_10_in_a_directory_or_named(tmp_path: Path, column: bool) -> None:
    """Some archives hold the labels as a column."""
    labels = {"y_train": TRAIN_LABELS[:, None], "y_test": TEST_LABELS[:, None]} if column else {}
    np.savez(tmp_path / "cifar10.npz", **arrays(**labels))
    check(load_labelled(tmp_path))
    check(load_labelled(tmp_path / "cifar10.npz"))


def test_batches_of_cifar_10(tmp_path: Path) -> None:
    inner = tmp_path / "cifar-10-batches-py"
    inner.mkdir()
    write_batch(inner / "data_batch_1", TRAIN[:4], TRAIN_LABELS[:4].tolist())
    write_batch(inner / "data_batch_2", TRAIN[4:], TRAIN_LABELS[4:].tolist())
    write_batch(inner / "test_batch", TEST, TEST_LABELS.tolist())
    check(load_labelled(tmp_path))


@pytest.mark.parametrize("labels", [None, [0, 1], ["cat", "dog", "cat", "dog"]], ids=["none", "few", "names"])
def test_a_batch_without_a_label_for_each_image(tmp_path: Path, labels: Any) -> None:
    write_batch(tmp_path / "data_batch_1", TRAIN[:4], labels)
    with pytest.raises(DataError, match="data_batch_1 is not a labelled batch"):
        load_labelled(tmp_path)


def test_batches_without_the_one_for_testing(tmp_path: Path) -> None:
    write_batch(tmp_path / "data_batch_1", TRAIN, TRAIN_LABELS.tolist())
    with pytest.raises(DataError, match="test_batch cannot be read"):
        load_labelled(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y_test": None}, "not a labelled data set: .*it holds .*x_test"),
        ({"y_train": TRAIN_LABELS / 1.0}, "y_train float64"),
        ({"x_test": TEST / 1.0}, "x_test float64"),
        ({"y_train": TRAIN_LABELS[:-1]}, r"one label for each image.*y_train int64 \[5\]"),
        ({"y_test": TEST_LABELS[:-1]}, r"one label for each image.*y_test int64 \[3\]"),
        ({"y_test": TEST_LABELS + 1}, "labels must count from 0"),
        ({"y_train": TRAIN_LABELS - 1}, "labels must count from 0"),
        ({"x_test": TEST[:, :-1]}, "different shapes"),
        ({"x_test": TEST[:0], "y_test": TEST_LABELS[:0]}, "holds no images in one of its parts"),
    ],
)
def test_an_archive_that_is_no_labelled_data_set(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    np.savez(tmp_path / "x.npz", **{name: a for name, a in arrays(**changes).items() if a is not None})
    with pytest.raises(DataError, match=said):
        load_labelled(tmp_path)


@pytest.mark.parametrize("name", ["", "nothing", "picture.png"])
def test_where_there_is_none_it_says_what_it_would_take(tmp_path: Path, name: str) -> None:
    (tmp_path / "picture.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no labelled data in .*expected one of: .*t10k.*test_batch.*x_test"):
        load_labelled(tmp_path / name)


def test_two_archives_are_one_too_many(tmp_path: Path) -> None:
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", **arrays())
    with pytest.raises(DataError, match=r"holds 2 npz files: name one of them, such as .*a\.npz"):
        load_labelled(tmp_path)
