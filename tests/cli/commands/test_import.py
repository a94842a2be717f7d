"""`scoreserve import`: what it says. Importing itself is tested in tests/models/importing."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app

OFFICIAL = Path(__file__).parents[2] / "data" / "official"
V2, V2_CONFIG = str(OFFICIAL / "v2_cifar10_mini.pth"), str(OFFICIAL / "v2_cifar10_mini_config.yml")

CHECKPOINTS = Path(__file__).parents[2] / "data" / "checkpoints"
EDM = str(CHECKPOINTS / "edm" / "edm-ncsnpp-16" / "network-snapshot-002560.pkl")
SCORE_SDE = str(CHECKPOINTS / "score_sde" / "ve-ncsnpp-16" / "checkpoint_7.pth")
SCORE_SDE_CONFIG = str(CHECKPOINTS / "score_sde" / "ve-ncsnpp-16" / "config.json")


def ncsn(*arguments: str, store: Path | None = None) -> Result:
    environment = {"COLUMNS": "300", "SCORESERVE_MODELS_DIR": str(store) if store else None}
    return CliRunner(env=environment).invoke(app, ["import", "ncsn", *arguments])


def test_a_checkpoint_becomes_a_model_of_the_store_that_is_served(tmp_path: Path) -> None:
    result = ncsn(V2, "--config", V2_CONFIG, "--name", "cifar10", store=tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stderr == f"published cifar10 version 1 in {tmp_path / 'cifar10' / '1'}\n"
    card = json.loads((tmp_path / "cifar10" / "1" / "card.json").read_text())
    assert card["provenance"]["weights"].startswith("exponential moving average")


def test_raw_weights_into_another_store(tmp_path: Path) -> None:
    result = ncsn(V2, "--config", V2_CONFIG, "--name", "cifar10", "--raw", "--store", str(tmp_path / "other"))
    assert result.exit_code == 0, result.output
    card = json.loads((tmp_path / "other" / "cifar10" / "1" / "card.json").read_text())
    assert card["provenance"]["weights"].startswith("of the last step")


def test_a_refusal_is_one_line(tmp_path: Path) -> None:
    result = ncsn(V2_CONFIG, "--config", V2_CONFIG, "--name", "cifar10", store=tmp_path)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    (line,) = [line for line in result.stderr.splitlines() if line.strip()]
    assert line.startswith(f"error: {V2_CONFIG} cannot be read")
    assert not list(tmp_path.iterdir())


def test_without_a_store_it_says_how_to_name_one() -> None:
    result = ncsn(V2, "--config", V2_CONFIG, "--name", "cifar10")
    assert result.exit_code == 2
    assert "--store" in result.output


@pytest.mark.parametrize(
    "arguments", [("edm", EDM), ("score_sde", SCORE_SDE, "--config", SCORE_SDE_CONFIG, "--raw")], ids=lambda a: a[0]
)
def test_checkpoints_of_other_families(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    environment = {"COLUMNS": "300", "SCORESERVE_MODELS_DIR": str(tmp_path)}
    command = ["import", *arguments, "--name", "model", "--licence", "mine"]
    result = CliRunner(env=environment).invoke(app, command)
    assert result.exit_code == 0, result.output
    card = json.loads((tmp_path / "model" / "1" / "card.json").read_text())
    assert (card["provenance"]["family"], card["provenance"]["licence"]) == (arguments[0], "mine")
    again = CliRunner(env=environment).invoke(app, ["import", *arguments, "--name", "Model!"])
    assert again.exit_code == 1
    assert again.stderr.startswith("error: name = 'Model!'")
    assert len(again.stderr.strip().splitlines()) == 1
