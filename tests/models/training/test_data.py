import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.card import ImageShape
from models.training.data import images_sha256, load_images
from models.training.formats import DataError

MNIST = Path(__file__).parents[2] / "data" / "mnist"
DIGITS = ImageShape(channels=1, height=28, width=28)
COLOURS = ImageShape(channels=3, height=32, width=32)
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
IMAGES = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)


def test_idx_files_are_found_in_a_directory_or_named() -> None:
    images = load_images(MNIST, DIGITS)
    assert images.shape == (1000, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert torch.equal(load_images(MNIST / "train-images-idx3-ubyte.gz", DIGITS), images)


def test_an_npz_file_is_found_in_a_directory_or_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "cifar10.npz", x_train=PIXELS)
    assert torch.equal(load_images(tmp_path, COLOURS), IMAGES)
    np.savez(tmp_path / "other.npz", x_train=PIXELS[:1])
    assert torch.equal(load_images(tmp_path / "cifar10.npz", COLOURS), IMAGES)
    with pytest.raises(DataError, match=r"holds 2 npz files: name one of them, such as .*cifar10\.npz"):
        load_images(tmp_path, COLOURS)


def test_batches_of_cifar_10_are_found(tmp_path: Path) -> None:
    data = IMAGES.reshape(2, 3072).numpy()
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": data}, 2))
    assert torch.equal(load_images(tmp_path, COLOURS), IMAGES)


def test_a_folder_of_pictures_is_found(tmp_path: Path) -> None:
    for i, pixels in enumerate(PIXELS):
        (tmp_path / str(i)).mkdir()
        Image.fromarray(pixels).save(tmp_path / str(i) / "x.png")
    assert torch.equal(load_images(tmp_path, COLOURS), IMAGES)
    assert load_images(tmp_path, DIGITS).shape == (2, 1, 28, 28)


def test_images_of_another_shape_are_refused_with_both_shapes() -> None:
    with pytest.raises(DataError, match=r"are 1 x 28 x 28 \(channels, height, width\); this model is of 3 x 32 x 32"):
        load_images(MNIST, COLOURS)


def test_labels_are_no_images() -> None:
    with pytest.raises(DataError, match=r"has the shape \[1000\]"):
        load_images(MNIST / "train-labels-idx1-ubyte.gz", DIGITS)


def test_an_archive_without_a_single_image_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x_train=PIXELS[:0])
    with pytest.raises(DataError, match="holds no images"):
        load_images(tmp_path, COLOURS)


@pytest.mark.parametrize("name", ["", "nothing", "notes.txt"])
def test_where_there_is_no_data_it_says_what_it_would_take(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("words")
    expected = "not an idx file" if name == "notes.txt" else r"no data in .*expected one of: .*CIFAR-10.*npz.*pictures"
    with pytest.raises(DataError, match=expected):
        load_images(tmp_path / name, DIGITS)


def test_the_digest_is_of_the_pixels() -> None:
    images = torch.arange(16, dtype=torch.uint8).reshape(4, 1, 2, 2)
    assert images_sha256(images) == "be45cb2605bf36bebde684841a28f0fd43c69850a3dce5fedba69928ee3a8991"
    assert images_sha256(images.flip(0)) != images_sha256(images)
    strided = images.expand(4, 3, 2, 2)
    assert images_sha256(strided) == images_sha256(strided.clone())


def test_a_directory_named_like_a_file_is_not_mistaken_for_it(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").mkdir()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"\0\0\x08\x03" + struct.pack(">3I", 1, 28, 28) + bytes(784))
    assert load_images(tmp_path, DIGITS).shape == (1, 1, 28, 28)
