"""`scoreserve train`: what it says when it cannot start. Training itself is tested in tests/models/training."""

from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app


def train(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["train", *arguments])


def check_failed(result: Result, *said: str) -> None:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = [line for line in result.stderr.splitlines() if line.strip()]
    assert line.startswith("error: ")
    assert [words for words in said if words not in line] == [], line


def test_data_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "digits [old]"
    result = train("mnist", "--data", str(missing), "--out", str(tmp_path / "run"))
    check_failed(result, f"no data in {missing}", "expected one of", "train-images-idx3-ubyte", "CIFAR-10")
    assert not (tmp_path / "run").exists()


def test_data_that_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"words")
    result = train("mnist", "--data", str(tmp_path), "--out", str(tmp_path / "run"))
    check_failed(result, "train-images-idx3-ubyte", "not an idx file")


def test_a_preset_that_is_not_there(tmp_path: Path) -> None:
    check_failed(train("paintings", "--data", str(tmp_path), "--out", str(tmp_path / "run")), "paintings", "mnist")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--epochs", "-1", "epochs"),
        ("--batch", "0", "batch"),
        ("--decay", "stairs", "cosine"),
        ("--precision", "int4", "bfloat16"),
    ],
)
def test_a_setting_that_is_impossible(tmp_path: Path, option: str, value: str, said: str) -> None:
    check_failed(train("mnist", "--data", str(tmp_path), "--out", str(tmp_path / "run"), option, value), said)


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    data = Path(__file__).parents[1] / "data" / "mnist"
    result = train("mnist", "--data", str(data), "--out", str(tmp_path / "run"), "--device", "abacus")
    check_failed(result, "abacus")
