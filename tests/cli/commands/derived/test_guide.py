"""`scoreserve guide`: what it says. The guided model is tested in tests/models/derived/test_guidance.py."""

import shutil
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app
from models.store import ModelStore


@pytest.fixture
def store(models_dir: Path, tmp_path: Path) -> Path:
    """A model store with the model `tiny`."""
    shutil.copytree(models_dir, tmp_path / "models")
    return tmp_path / "models"


def guide(store: Path, *arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["guide", "tiny", *arguments, "--store", str(store)])


def test_it_publishes_the_guided_model_as_the_next_version(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/bin/scoreserve", "guide", "tiny", "--weight", "2.5"])
    result = guide(store, "--by", "tiny", "--weight", "2.5")
    assert result.exit_code == 0, result.output
    assert result.stderr == f"published tiny version 2 in {store / 'tiny' / '2'}\n"
    card = ModelStore(store).card("tiny")
    assert (card.version, card.network.kind, card.network.arguments["weight"]) == (2, "guided-unet", 2.5)
    assert card.provenance["guidance"]["command"] == "scoreserve guide tiny --weight 2.5"


def test_an_earlier_version_can_be_guided_again(store: Path) -> None:
    card = (store / "tiny" / "1" / "card.json").read_text()
    shutil.copytree(store / "tiny", store / "worse")
    (store / "worse" / "1" / "card.json").write_text(card.replace('"tiny"', '"worse"'))
    assert guide(store, "--by", "worse", "--interval", "0.3", "2").exit_code == 0
    result = guide(store, "--by", "worse", "--weight", "3")
    assert result.exit_code == 1
    assert "only a unet can guide a unet" in result.stderr
    result = guide(store, "--by", "worse", "--weight", "3", "--version", "1")
    assert result.exit_code == 0, result.output
    models = ModelStore(store)
    arguments = [models.card("tiny", version).network.arguments for version in (2, 3)]
    assert [(a["weight"], a["interval"]) for a in arguments] == [(1.5, [0.3, 2.0]), (3.0, None)]


def test_without_the_guide_nothing_is_published(store: Path) -> None:
    result = guide(store, "--by", "worse")
    assert result.exit_code == 1
    assert result.stderr == "error: no model worse; there is: tiny\n"
    assert ModelStore(store).versions("tiny") == [1]
