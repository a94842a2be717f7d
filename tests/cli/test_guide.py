"""`scoreserve guide`: what it says. The guided model is tested in tests/models/training/test_guidance.py."""

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


def test_without_the_guide_nothing_is_published(store: Path) -> None:
    result = guide(store, "--by", "worse")
    assert result.exit_code == 1
    assert result.stderr == "error: no model worse; there is: tiny\n"
    assert ModelStore(store).versions("tiny") == [1]
