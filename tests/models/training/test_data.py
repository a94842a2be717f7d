import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.card import ImageShape
from models.training.data import Labels, images_sha256, load_images, load_labels
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


def check(labels: Labels, indices: list[int], *names: str) -> None:
    assert labels.indices.dtype == torch.int64
    assert (labels.indices.tolist(), labels.names) == (indices, names)


def test_labels_of_idx_files_lie_beside_the_images(tmp_path: Path) -> None:
    images = load_images(MNIST, DIGITS)
    labels = load_labels(MNIST, images)
    assert labels.names == tuple("0123456789")
    assert labels.indices.shape == (1000,)
    named = load_labels(MNIST / "train-images-idx3-ubyte.gz", images)
    assert torch.equal(named.indices, labels.indices)
    with pytest.raises(DataError, match="1000 labels for 3 images"):
        load_labels(MNIST, images[:3])
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes((MNIST / "train-images-idx3-ubyte.gz").read_bytes())
    with pytest.raises(DataError, match=r"no train-labels-idx1-ubyte or train-labels-idx1-ubyte\.gz"):
        load_labels(tmp_path, images)


def test_labels_of_an_npz_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "cifar10.npz", x_train=PIXELS, y_train=np.array([[1], [0]]))
    check(load_labels(tmp_path, IMAGES), [1, 0], "0", "1")
    check(load_labels(tmp_path / "cifar10.npz", IMAGES, ("cat", "dog", "none yet")), [1, 0], "cat", "dog", "none yet")
    with pytest.raises(DataError, match="must be from 0 to 0: cat"):
        load_labels(tmp_path, IMAGES, ("cat",))
    for wrong in ({}, {"y_train": np.array([0.5, 1.0])}, {"y_train": np.array([[1, 0], [0, 1]])}):
        np.savez(tmp_path / "cifar10.npz", x_train=PIXELS, **wrong)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=r"must hold the labels as integers y_train"):
            load_labels(tmp_path, IMAGES)


def test_labels_of_cifar_10_have_the_names_of_its_authors(tmp_path: Path) -> None:
    data = IMAGES.reshape(2, 3072).numpy()
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": data, b"labels": [2, 0]}, 2))
    check(load_labels(tmp_path, IMAGES), [2, 0], "0", "1", "2")
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"airplane", b"automobile", b"bird"]}, 2))
    check(load_labels(tmp_path, IMAGES), [2, 0], "airplane", "automobile", "bird")
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"names": []}, 2))
    with pytest.raises(DataError, match=r"batches\.meta does not name the classes"):
        load_labels(tmp_path, IMAGES)


def test_folders_are_classes_through_links_too(tmp_path: Path) -> None:
    for place in ("elsewhere/deep", "data/cat"):
        (tmp_path / place).mkdir(parents=True)
        Image.fromarray(PIXELS[0]).save(tmp_path / place / "x.png")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    images = load_images(tmp_path / "data", COLOURS)
    assert len(images) == 2
    check(load_labels(tmp_path / "data", images), [0, 1], "cat", "dog")
    Image.fromarray(PIXELS[0]).save(tmp_path / "data" / "bare.png")
    with pytest.raises(DataError, match=r"a folder for each class, with its pictures: .*bare\.png"):
        load_labels(tmp_path / "data", load_images(tmp_path / "data", COLOURS))
