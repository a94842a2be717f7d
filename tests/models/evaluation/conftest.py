"""A small labelled data set, and a classifier of it that is trained once for all tests."""

from pathlib import Path

import numpy as np
import pytest

from models.evaluation.classifier import Classifier, load

SIZE, CLASSES = 8, 3


def textures(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 8, 8, 1] of stripes across, of stripes down, and of squares, which are their labels 0, 1, 2."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    odd = np.arange(SIZE) // 2 % 2
    patterns = np.stack([np.tile(odd[:, None], SIZE), np.tile(odd, (SIZE, 1)), odd[:, None] ^ odd])
    pixels = random.integers(0, 60, (n, SIZE, SIZE)) + 150 * patterns[labels]
    return pixels[..., None].astype(np.uint8), labels


@pytest.fixture(scope="session")
def textures_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three classes, 8 x 8 pixels, as an npz file."""
    path = tmp_path_factory.mktemp("data") / "textures.npz"
    (x_train, y_train), (x_test, y_test) = textures(2048, 0), textures(200, 1)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


@pytest.fixture(scope="session")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of classifiers that all tests share."""
    return tmp_path_factory.mktemp("classifiers")


@pytest.fixture(scope="session")
def classifier(textures_path: Path, classifiers: Path) -> Classifier:
    """The classifier of the textures."""
    return load(textures_path, classifiers)
