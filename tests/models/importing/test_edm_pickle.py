"""EDM's pickles are read without running what is in them, and every other pickle is refused."""

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.card import ModelCard
from models.importing.edm import import_edm
from models.importing.edm_pickle import Container, Module
from tests.models.importing.edm_files import Change, imported


class Hostile:
    """Pickled, a call of a function with arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_source_in_a_file_is_not_run(write_edm: Any, tmp_path: Path, edm_card: ModelCard) -> None:
    marker = tmp_path / "marker"
    path = write_edm(source=f"import pathlib; pathlib.Path({str(marker)!r}).touch()")
    assert str(marker).encode() in path.read_bytes()
    assert imported(path, tmp_path)[0].weights_sha256 == edm_card.weights_sha256
    assert not marker.exists()


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        ("os.system", ("touch marker",), "posix.system"),
        ("builtins.eval", ("open('marker', 'w')",), "builtins.eval"),
        ("pickle.loads", (b"",), "_pickle.loads"),
        ("collections.Counter", (), "collections.Counter"),
        ("torch.load", ("file",), "torch.serialization.load"),
    ],
)
def test_a_pickle_with_one_more_name_is_refused_and_runs_nothing(
    write_edm: Any,
    check_refused: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    function: str,
    arguments: Any,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    module, _, attribute = function.rpartition(".")
    called = getattr(__import__(module, fromlist=[attribute]), attribute)
    path = write_edm(whole=lambda content: content.update(more=Hostile(called, *arguments)))
    check_refused(lambda target: import_edm(path, target), f"it names {name}, which no checkpoint of EDM needs")
    assert not (tmp_path / "marker").exists()


def test_a_pickle_cannot_change_what_reads_it(tmp_path: Path, check_refused: Any) -> None:
    """A state for a function, or for a class."""
    name = b"ctorch._utils\n_rebuild_parameter\n"
    for state in (b"}Vfunction\nNs", b"N}V__call__\nNs\x86"):
        path = tmp_path / "hostile.pkl"
        path.write_bytes(b"\x80\x02" + name + state + b"b.")
        check_refused(lambda target, path=path: import_edm(path, target), "a function cannot be changed")
    path.write_bytes(b"\x80\x02ctorch.nn.modules.container\nModuleDict\nN}V__init__\nNs\x86b.")
    check_refused(lambda target: import_edm(path, target), "")
    assert Container().state == {}


def test_a_file_that_is_cut_anywhere(edm_checkpoint: Path, tmp_path: Path, check_refused: Any) -> None:
    path, whole = tmp_path / "cut.pkl", edm_checkpoint.read_bytes()
    for size in {0, 1, 2, 20, len(whole) - 1, *range(100, len(whole), len(whole) // 50)}:
        path.write_bytes(whole[:size])
        check_refused(lambda target: import_edm(path, target), f"{path} cannot be read")


def within_one_another(state: dict[str, Any]) -> None:
    """Thirty modules, each in the next one twice."""
    inner = Module("Any", {"_parameters": {"weight": torch.zeros(1)}})
    for _ in range(30):
        inner = Module("Any", {"_modules": {"a": inner, "b": inner}})
    state["_modules"]["more"] = inner


def in_itself(state: dict[str, Any]) -> None:
    inner = Container()
    inner.state = {"_modules": {"a": inner}}
    state["_modules"]["more"] = inner


@pytest.mark.parametrize("change", [within_one_another, in_itself])
def test_modules_within_one_another(write_edm: Any, check_refused: Any, change: Change) -> None:
    path = write_edm(inner=change)
    check_refused(lambda target: import_edm(path, target), "has been there before")


def test_a_list_of_lists_that_would_never_end_is_not_written_out(write_edm: Any, check_refused: Any) -> None:
    value: Any = [0]
    for _ in range(40):
        value = [value, value]
    path = write_edm(lambda state: state["_init_kwargs"].update(img_channels=value))
    check_refused(lambda target: import_edm(path, target), "img_channels is a list; allowed: a whole number")


@pytest.mark.parametrize("opcode", [b"r\xff\xff\xff\x7f", b"p2147483647\n"])
def test_a_pickle_that_asks_for_room_is_refused(tmp_path: Path, check_refused: Any, opcode: bytes) -> None:
    path = tmp_path / "large.pkl"
    path.write_bytes(b"\x80\x02}" + opcode + b".")
    check_refused(lambda target: import_edm(path, target), "no pickle that anybody writes")


@pytest.mark.parametrize("content", [[1, 2], {"ema": 1}, Counter(a=1)], ids=str)
def test_a_pickle_of_something_else(tmp_path: Path, check_refused: Any, content: object) -> None:
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps(content))
    check_refused(lambda target: import_edm(path, target), str(path))


def test_containers_where_networks_should_be(write_edm: Any, check_refused: Any) -> None:
    path = write_edm(whole=lambda content: content["ema"].state["_modules"].update(model=Container()))
    check_refused(lambda target: import_edm(path, target), "ModuleDict is not served")
    path = write_edm(whole=lambda content: content.update(ema=nn.ModuleDict()))
    check_refused(lambda target: import_edm(path, target), "has no network inside its ModuleDict")


def test_a_container_that_is_never_filled(tmp_path: Path, check_refused: Any) -> None:
    path = tmp_path / "empty.pkl"
    path.write_bytes(b"\x80\x02}X\x03\x00\x00\x00emactorch.nn.modules.container\nModuleDict\n)\x81s.")
    check_refused(lambda target: import_edm(path, target), "has no network inside its ModuleDict")


def test_a_module_that_is_changed(tmp_path: Path, check_refused: Any) -> None:
    described = b"}(X\x0a\x00\x00\x00class_nameX\x01\x00\x00\x00AX\x05\x00\x00\x00state}u"
    module = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n" + described + b"\x85R"
    path = tmp_path / "changed.pkl"
    path.write_bytes(b"\x80\x02}X\x03\x00\x00\x00ema" + module + b"}X\x05\x00\x00\x00stateK\x01sbs.")
    check_refused(lambda target: import_edm(path, target), "a module cannot be changed")


def test_a_pickle_of_the_protocol_before(
    edm_checkpoint: Path, write_edm: Any, tmp_path: Path, edm_card: ModelCard
) -> None:
    """In which sets are a name that is called."""
    path = write_edm(lambda state: state.update(_non_persistent_buffers_set={"a"}), protocol=3)
    assert b"cbuiltins\nset\n" in path.read_bytes()
    assert imported(path, tmp_path)[0].weights_sha256 == edm_card.weights_sha256
