import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.card import ImageShape
from models.training.data.formats import DataError
from models.training.data.images import Labels, images_sha256, load_data, load_images

MNIST = Path(__file__).parents[3] / "data" / "mnist"
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
    with pytest.raises(DataError, match=r"holds 2 files of arrays: name one of them, such as .*cifar10\.npz"):
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


def labels_of(path: Path, image: ImageShape = COLOURS, names: tuple[str, ...] | None = None) -> Labels:
    labels = load_data(path, image, labelled=True, names=names).labels
    assert labels is not None
    assert labels.indices.dtype == torch.int64
    return labels


def check(labels: Labels, indices: list[int], *names: str) -> None:
    assert (labels.indices.tolist(), labels.names) == (indices, names)


def test_labels_of_idx_files_lie_beside_the_images(tmp_path: Path) -> None:
    labels = labels_of(MNIST, DIGITS)
    assert labels.names == tuple("0123456789")
    assert labels.indices.shape == (1000,)
    assert torch.equal(labels_of(MNIST / "train-images-idx3-ubyte.gz", DIGITS).indices, labels.indices)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes((MNIST / "train-images-idx3-ubyte.gz").read_bytes())
    with pytest.raises(DataError, match=r"no train-labels-idx1-ubyte or train-labels-idx1-ubyte\.gz"):
        labels_of(tmp_path, DIGITS)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + struct.pack(">I", 3) + bytes(3))
    with pytest.raises(DataError, match="3 labels for 1000 images"):
        labels_of(tmp_path, DIGITS)


def test_labels_of_an_npz_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "cifar10.npz", x_train=PIXELS, y_train=np.array([[1], [0]]))
    check(labels_of(tmp_path), [1, 0], "0", "1")
    names = ("cat", "dog", "none yet")
    check(labels_of(tmp_path / "cifar10.npz", names=names), [1, 0], *names)
    with pytest.raises(DataError, match="must be from 0 to 0: cat"):
        labels_of(tmp_path, names=("cat",))
    for wrong in ({}, {"y_train": np.array([0.5, 1.0])}, {"y_train": np.array([[1, 0], [0, 1]])}):
        np.savez(tmp_path / "cifar10.npz", x_train=PIXELS, **wrong)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=r"must hold the labels as integers y_train"):
            labels_of(tmp_path)


def test_labels_of_cifar_10_have_the_names_of_its_authors(tmp_path: Path) -> None:
    data = IMAGES.reshape(2, 3072).numpy()
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": data, b"labels": [2, 0]}, 2))
    check(labels_of(tmp_path), [2, 0], "0", "1", "2")
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"airplane", b"automobile", b"bird"]}, 2))
    check(labels_of(tmp_path), [2, 0], "airplane", "automobile", "bird")
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"names": []}, 2))
    with pytest.raises(DataError, match=r"batches\.meta does not name the classes"):
        labels_of(tmp_path)


def picture(path: Path, pixels: np.ndarray = PIXELS[0]) -> Path:  # type: ignore[type-arg]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_folders_are_classes_through_links_too(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "deep" / "x.png")
    picture(tmp_path / "data" / "cat" / "x.png")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert len(load_images(tmp_path / "data", COLOURS)) == 2
    check(labels_of(tmp_path / "data"), [0, 1], "cat", "dog")
    picture(tmp_path / "data" / "bare.png")
    with pytest.raises(DataError, match=r"a folder for each class, with its pictures: .*bare\.png"):
        labels_of(tmp_path / "data")


def test_it_is_told_how_many_images_there_are_and_what_was_left_out(tmp_path: Path) -> None:
    for name in ("train/cat/a.png", "train/dog/b.webp", "train/dog/c.tga", "test/cat/x.png", "val/dog/x.png"):
        picture(tmp_path / name)
    for name in ("train/notes.txt", "train/cat/list.csv", "train/cat/other.csv", "train/.hidden.png", "train/LICENSE"):
        (tmp_path / name).write_text("words")
    data = load_data(tmp_path, COLOURS, labelled=True)
    assert data.told == (
        f"3 images of {tmp_path}/train; left out: the folder test, val beside train; left out: 4 files that are no "
        "pictures (1 without suffix, 2 .csv, 1 .txt)"
    )
    assert data.labels is not None
    check(data.labels, [0, 1, 1], "cat", "dog")
    assert load_data(MNIST, DIGITS).told == f"1,000 images of {MNIST}/train-images-idx3-ubyte.gz"


def test_bad_pictures_are_named_all_at_once_or_left_out(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "a.png")
    picture(tmp_path / "dog" / "b.png")
    for i in range(7):
        (tmp_path / "cat" / f"bad-{i}.png").write_bytes(b"words")
    with pytest.raises(DataError, match=r"bad-0\.png .*bad-4\.png .*; and 2 more: .*\(--skip-bad\)"):
        load_data(tmp_path, COLOURS)
    data = load_data(tmp_path, COLOURS, labelled=True, skip_bad=True)
    assert len(data.images) == 2
    assert "left out: 7 of 9 pictures that cannot be read" in data.told
    assert "bad-0.png" in data.told
    assert data.labels is not None
    check(data.labels, [0, 1], "cat", "dog")
    for path in (tmp_path / "cat" / "a.png", tmp_path / "dog" / "b.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"bad-0\.png"):
        load_data(tmp_path, COLOURS, skip_bad=True)


IDX = b"\0\0\x08\x03" + struct.pack(">3I", 2, 28, 28) + bytes(1568)
IDX_LABELS = b"\0\0\x08\x01" + struct.pack(">I", 2) + bytes([3, 1])


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("train-images.idx3-ubyte", "train-labels.idx1-ubyte"),
        ("train-images-idx3-ubyte/train-images-idx3-ubyte", "train-labels-idx1-ubyte/train-labels-idx1-ubyte"),
        ("train-images-idx3-ubyte/train-images.idx3-ubyte", "train-labels-idx1-ubyte/train-labels.idx1-ubyte"),
        ("MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/train-labels-idx1-ubyte"),
        ("raw/train-images-idx3-ubyte.gz", "raw/train-labels-idx1-ubyte.gz"),
    ],
)
def test_idx_files_as_torchvision_and_kaggle_lay_them_out(tmp_path: Path, images: str, labels: str) -> None:
    for name, content in ((images, IDX), (labels, IDX_LABELS)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert load_images(tmp_path, DIGITS).shape == (2, 1, 28, 28)
    check(labels_of(tmp_path, DIGITS), [3, 1], "0", "1", "2", "3")


def test_pictures_beside_an_npz_file_of_statistics_are_what_is_trained_on(tmp_path: Path) -> None:
    np.savez(tmp_path / "fid_stats.npz", mu=np.zeros(2048), sigma=np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"fid_stats\.npz must hold one array of images.*mu float64 \[2048\]"):
        load_images(tmp_path, COLOURS)
    picture(tmp_path / "x.png")
    assert load_images(tmp_path, COLOURS).shape == (1, 3, 32, 32)
    np.savez(tmp_path / "images.npz", PIXELS)
    assert load_images(tmp_path, COLOURS).shape == (2, 3, 32, 32), "images in an array go before"


@pytest.mark.parametrize("first", [False, True], ids=["channels last", "channels first"])
def test_arrays_are_read_with_their_channels_in_either_place(tmp_path: Path, first: bool) -> None:
    array = PIXELS.transpose(0, 3, 1, 2) if first else PIXELS
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "y.npz", array)
    for name in ("x.npy", "y.npz"):
        assert torch.equal(load_images(tmp_path / name, COLOURS), IMAGES)
    (tmp_path / "y.npz").unlink()
    assert torch.equal(load_images(tmp_path, COLOURS), IMAGES)
    with pytest.raises(DataError, match="has no labels"):
        labels_of(tmp_path)


@pytest.mark.parametrize("content", [np.zeros((2, 32, 32, 3)), np.zeros(3, np.uint8), np.array([{}], dtype=object)])
def test_another_npy_file_is_refused_by_what_it_holds(tmp_path: Path, content: object) -> None:
    np.save(tmp_path / "x.npy", content)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"x\.npy (must hold images, .*it holds an array|cannot be read)"):
        load_images(tmp_path / "x.npy", COLOURS)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("faces.zip", "an archive: unpack it"),
        ("cifar-10-python.tar.gz", "an archive: unpack it"),
        ("train.csv", "a table: save its pixels"),
        ("train-00000.parquet", "a table"),
        ("train_32x32.mat", "a container that is not read"),
        ("training.pt", "a pickle, which can run code"),
    ],
)
def test_what_is_not_read_is_refused_by_what_it_is(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(DataError, match=f"{name} is {what}"):
            load_images(path, COLOURS)
