import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.training.data.formats import DataError
from models.training.data.formats.cifar10 import find_batches, read_batches

DATA = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)

# A batch of one label and a 1 x 2 array as Python 2 and its numpy wrote it, in protocol 2.
PYTHON_2 = (
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05"
    b"(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
    b"K\x00tb\x89U\x02\x07\x09tbU\x06labelsq\x08]q\tK\x06au."
)


class Attack:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def write(path: Path, batch: object, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(batch, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("key", [b"data", "data"])
def test_batches_are_read_in_order(tmp_path: Path, protocol: int, key: bytes | str) -> None:
    for i in (2, 1):
        write(tmp_path / f"data_batch_{i}", {key: DATA[2 * i - 2 : 2 * i], b"labels": [0, 1]}, protocol)
    write(tmp_path / "test_batch", {key: DATA, b"labels": [0] * 4}, protocol)
    images = read_batches(find_batches(tmp_path))
    assert images.dtype == torch.uint8
    assert torch.equal(images, torch.from_numpy(DATA).reshape(4, 3, 32, 32))


def test_the_directory_of_the_published_archive_is_found(tmp_path: Path) -> None:
    inner = tmp_path / "cifar-10-batches-py"
    inner.mkdir()
    path = write(inner / "data_batch_1", {b"data": DATA})
    assert find_batches(tmp_path) == find_batches(inner) == [path]


def test_a_pickle_of_python_2_is_understood(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(PYTHON_2)
    with pytest.raises(DataError, match=r"must be uint8 \[n, 3072\]"):  # read, but not of this size
        read_batches([tmp_path / "data_batch_1"])


def test_a_pickle_that_calls_anything_is_refused_and_does_nothing(tmp_path: Path) -> None:
    made = tmp_path / "made"
    path = write(tmp_path / "data_batch_1", {b"data": Attack(made)})
    with pytest.raises(DataError, match=r"data_batch_1 cannot be read .*posix\.mkdir"):
        read_batches([path])
    assert not made.exists()
    pickle.loads(path.read_bytes())
    assert made.exists(), "the attack must be a real one"


def test_bytes_are_decoded_from_latin1_only(tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(b"c_codecs\nencode\n(Vx\nVrot13\ntR.")
    with pytest.raises(DataError, match="no encoding of bytes"):
        read_batches([path])


@pytest.mark.parametrize(
    "batch",
    [[], {}, {b"data": [1, 2]}, {b"data": DATA[:, :-1]}, {b"data": DATA.astype(float)}, {b"data": DATA[0]}],
    ids=["list", "empty", "no array", "small", "floats", "one"],
)
def test_another_pickle_is_no_batch(tmp_path: Path, batch: object) -> None:
    with pytest.raises(DataError, match="data_batch_1 is not a batch"):
        read_batches([write(tmp_path / "data_batch_1", batch)])


@pytest.mark.parametrize("content", [b"", b"words", pickle.dumps({b"data": DATA})[:-9]])
def test_a_damaged_batch_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data_batch_1").write_bytes(content)
    with pytest.raises(DataError, match="data_batch_1 cannot be read"):
        read_batches([tmp_path / "data_batch_1"])
