"""Small labelled data sets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Makes a data set of two classes, bright above and bright below, of 300 and 60 images of a size; its path."""

    def make(size: int) -> Path:
        path = tmp_path_factory.getbasetemp() / f"labelled-{size}.npz"
        if not path.exists():
            random = np.random.default_rng(0)
            labels = np.arange(360) % 2
            pixels = random.integers(0, 120, (360, size, size, 1))
            pixels[labels == 0, : size // 2] += 120
            pixels[labels == 1, size // 2 :] += 120
            x, y = pixels.astype(np.uint8), labels
            np.savez(path, x_train=x[:300], y_train=y[:300], x_test=x[300:], y_test=y[300:])
        return path

    return make


@pytest.fixture(scope="session")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of classifiers."""
    return tmp_path_factory.mktemp("classifiers")
