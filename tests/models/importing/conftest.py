"""What tests of importers share: reference checkpoints, and what the code that wrote them gave."""

import io
import sys
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.card import ModelCard
from models.importing.edm import import_edm
from models.importing.edm_pickle import Module, Reader
from models.importing.publishing import Target
from models.importing.reading import ImportRefused
from models.sampling.engine import advance
from models.score import ScoreModel
from models.store import ModelStore
from tests.models.importing.edm_files import Change, Writer, restore

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


@pytest.fixture(scope="session")
def edm_checkpoint(checkpoints: Path) -> Path:
    return checkpoints / "edm" / "edm-ncsnpp-16" / "network-snapshot-002560.pkl"


@pytest.fixture(scope="session")
def edm_store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    return ModelStore(tmp_path_factory.mktemp("imported"))


@pytest.fixture(scope="session")
def edm_card(edm_checkpoint: Path, edm_store: ModelStore) -> ModelCard:
    found, path = import_edm(edm_checkpoint, Target(edm_store, "edm", "scoreserve import", "CC BY-NC-SA 4.0"))
    assert path == edm_store.path("edm")
    return found


@pytest.fixture
def write_edm(edm_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A checkpoint whose content, or rather the states of its `ema` and of the network inside, were changed."""
    module = types.ModuleType("torch_utils.persistence")
    exec("def _reconstruct_persistent_obj(meta): raise AssertionError('run')", module.__dict__)
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)

    def changed(
        change: Change | None = None,
        inner: Change | None = None,
        whole: Change | None = None,
        source: str = "",
        protocol: int = 4,
    ) -> Path:
        content = Reader(io.BytesIO(edm_checkpoint.read_bytes())).load()
        ema = content["ema"]
        if change is not None:
            change(ema.state)
        if inner is not None:
            inner(ema.state["_modules"]["model"].state)
        if whole is not None:
            whole(content)
        for module in content.values():
            if isinstance(module, Module):
                restore(module, {})
        buffer = io.BytesIO()
        writer = Writer(buffer, protocol)
        writer.source = source
        writer.dump(content)
        path = tmp_path / "changed.pkl"
        path.write_bytes(buffer.getvalue())
        return path

    return changed
