"""What is read of files of other code: tensors and numbers, and nothing that runs."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.importing.reading import ImportRefused, read_json, read_torch, unwrapped, weights_of


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_and_numbers_are_read(tmp_path: Path, old: bool, zipped: bool) -> None:
    content = {"a": torch.arange(3.0), "rate": np.float64(0.25), "small": np.float32(0.5), "steps": np.int64(7)}
    path = tmp_path / "file.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    if old and not zipped:  # numpy 1 gave its module another name
        path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    found, digest = read_torch(path)
    assert torch.equal(found.pop("a"), content["a"])
    assert found == {"rate": 0.25, "small": 0.5, "steps": 7}
    assert [type(value) for value in found.values()] == [float, float, int]
    assert len(digest) == 64


class Called:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call

    def __str__(self) -> str:  # the same in each process that collects the tests
        return f"{self.call[0].__name__} called"


@pytest.mark.parametrize(
    "value",
    [
        np.array([1.0]),
        np.datetime64("2020-01-01"),
        np.str_("a"),
        Called(print, "printed"),
        Called(np.dtype, "O"),
        Called(np.frombuffer, b"12345678"),
        Path("a"),
    ],
    ids=str,
)
def test_nothing_else_is_read(tmp_path: Path, value: object, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save([value], tmp_path / "file.pt")
    with pytest.raises(ImportRefused, match="holds more than tensors and numbers"):
        read_torch(tmp_path / "file.pt")
    (tmp_path / "file.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(ImportRefused, match="holds more than tensors and numbers"):
        read_torch(tmp_path / "file.pkl")
    assert not capsys.readouterr().out


def test_what_is_allowed_here_is_allowed_nowhere_else(tmp_path: Path) -> None:
    torch.save([np.float64(1)], tmp_path / "file.pt")
    read_torch(tmp_path / "file.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "file.pt", weights_only=True)


@pytest.mark.parametrize("content", ["", "[]", "3", "{", "{'a': 1}", "[" * 100_000, " " * 2**23])
def test_a_file_that_is_no_json_object(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ImportRefused, match=r"config\.json is no") as refusal:
        read_json(tmp_path / "config.json")
    assert "\n" not in str(refusal.value)


def test_a_name_loses_the_prefixes_of_wrappers_alone() -> None:
    assert unwrapped("module._orig_mod.module.weight") == "weight"
    assert unwrapped("modules.weight") == "modules.weight"
    assert unwrapped("block.module.weight") == "block.module.weight"


@pytest.mark.parametrize("value", [1, None, torch.arange(3), torch.zeros(2).to_sparse(), torch.zeros(2, device="meta")])
def test_what_is_no_weight(value: object) -> None:
    with pytest.raises(ImportRefused, match=r"file\.pt: a is no tensor"):
        weights_of({"a": value}, Path("file.pt"))
