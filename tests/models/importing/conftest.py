"""What tests of importers share: reference checkpoints, and what the code that wrote them gave."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.importing.publishing import Target
from models.importing.reading import ImportRefused
from models.sampling.engine import advance
from models.score import ScoreModel
from models.store import ModelStore

CHECKPOINTS = Path(__file__).parents[2] / "data" / "checkpoints"
Arrays = dict[str, Any]
Importer = Callable[[Target], Any]


@pytest.fixture(scope="session")
def checkpoints() -> Path:
    return CHECKPOINTS


@pytest.fixture(scope="session")
def arrays() -> Callable[[str], Arrays]:
    """Reads a record: floating-point images as tensors, all else as it is."""

    def read(name: str) -> Arrays:
        with np.load(CHECKPOINTS / name) as file:
            return {key: torch.from_numpy(file[key]) if file[key].dtype == np.float32 else file[key] for key in file}

    return read


@pytest.fixture(scope="session")
def check_images() -> Callable[..., None]:
    """Compares images, each by its largest difference over the largest value that is expected in it."""

    def check(found: Tensor, expected: Tensor, tolerance: float) -> None:
        assert found.shape == expected.shape
        for image, right in zip(found, expected, strict=True):
            assert (image - right).abs().max() <= tolerance * right.abs().max()

    return check


@pytest.fixture(scope="session")
def follow() -> Callable[..., list[Tensor]]:
    """Runs rows (sigma, drift, carry, noise) of a table from x on; gives x before each row and after the last."""

    def run(model: ScoreModel, rows: Iterable[Any], x: Tensor, zs: Tensor | None = None) -> list[Tensor]:
        previous, states = torch.zeros_like(x), [x]
        for i, (sigma, *columns) in enumerate(rows):
            drift, carry, noise = (torch.full((len(x), 1, 1, 1), float(value)) for value in columns[:3])
            z = None if zs is None else zs[i]
            x, previous = advance(x, model.score(x, float(sigma)), previous, drift, carry, noise, z)
            states.append(x)
        return states

    return run


@pytest.fixture
def check_refused(tmp_path: Path) -> Callable[..., None]:
    """An import is refused with one line, and the store has nothing in it."""

    def check(importer: Importer, said: str, name: str = "model") -> None:
        store = tmp_path / "store"
        with pytest.raises(ImportRefused) as refusal:
            importer(Target(ModelStore(store), name))
        assert said in str(refusal.value)
        assert "\n" not in str(refusal.value)
        assert not store.exists() or not list(store.iterdir())

    return check
