import gzip
import struct
from pathlib import Path

import pytest
import torch

from models.training.data.formats import DataError
from models.training.data.formats.idx import find_idx, load_mnist, read_idx

MNIST = Path(__file__).parents[4] / "data" / "mnist"


def idx(*shape: int, pixels: bytes | None = None) -> bytes:
    size = int(torch.tensor(shape).prod())
    return struct.pack(f">3sB{len(shape)}I", b"\0\0\x08", len(shape), *shape) + (
        bytes(range(size)) if pixels is None else pixels
    )


def test_mnist_is_read_with_its_labels() -> None:
    images, labels = load_mnist(MNIST)
    assert images.shape == (1000, 1, 28, 28)
    assert images.dtype == labels.dtype == torch.uint8
    assert labels.shape == (1000,)
    assert set(labels.tolist()) == set(range(10))
    assert images.max() == 255


@pytest.mark.parametrize("compress", [False, True])
def test_an_idx_file_is_read_plain_or_gzipped(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(idx(2, 3, 4)) if compress else idx(2, 3, 4))
    assert torch.equal(read_idx(path), torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4))


GZIPPED = gzip.compress(idx(2, 40), mtime=0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0",
        b"\0\0\x08",
        b"\0\0\x0d\x01\0\0\0\0",
        b"<html>not found</html>",
        idx(2, 3)[:9],
        idx(2, 3)[:-1],
        idx(2, 3) + b"\0",
        b"\0\0\x08\x03" + b"\xff" * 12,
        idx(0, 28, 28),
        GZIPPED[:-12],
        GZIPPED[:5],
        GZIPPED[:10] + b"\xff" * 10 + GZIPPED[20:],
        GZIPPED[:-8] + b"\0" * 8,
    ],
    ids=[
        "empty",
        "two bytes",
        "no dimensions",
        "floats",
        "html",
        "ends in the header",
        "one short",
        "one long",
        "enormous",
        "no images",
        "gzip ends early",
        "gzip header only",
        "gzip damaged",
        "gzip wrong checksum",
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        read_idx(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing"):
        read_idx(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"no train-images-idx3-ubyte or train-images-idx3-ubyte\.gz in"):
        load_mnist(tmp_path)


def test_images_and_labels_must_match(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(2, 3, 3))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(3))
    with pytest.raises(DataError, match="do not match"):
        load_mnist(tmp_path)


def test_the_plain_file_goes_before_the_gzipped_one(tmp_path: Path) -> None:
    for name in ("x", "x.gz"):
        (tmp_path / name).write_bytes(b"")
    assert find_idx(tmp_path, "x") == tmp_path / "x"
