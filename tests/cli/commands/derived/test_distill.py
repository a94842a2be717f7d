"""`scoreserve distill`: what it says. tests/models/training/distillation tests the rest."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from models.store import ModelStore


def test_it_publishes_a_model_of_few_evaluations(
    labelled_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labelled").symlink_to(labelled_dir / "labelled")
    monkeypatch.setattr("sys.argv", ["/bin/scoreserve", "distill", "labelled"])
    small = ["--flows", "64", "--levels", "3", "--epochs", "2", "--batch", "16", "--precision", "float32"]
    arguments = ["distill", "labelled/1", "--out", str(tmp_path / "run"), "--store", str(tmp_path), *small]
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "64 of 64 flows" in result.stderr
    assert f"published labelled-fast version 1 in {tmp_path / 'labelled-fast' / '1'}" in result.stderr
    card = ModelStore(tmp_path).card("labelled-fast")
    assert (card.sampler.name, card.classes) == ("multistep_consistency", ("shirt", "shoe", "7"))
    assert card.provenance["command"] == "scoreserve distill labelled"
    assert (card.provenance["flows"]["count"], card.provenance["flows"]["levels"]) == (64, 3)
    assert card.provenance["training"]["epochs"] == 2
    assert (tmp_path / "run" / "grid-000008.png").exists()


def test_what_cannot_be_is_told_in_a_line(tmp_path: Path) -> None:
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["distill", "nothing", "--out", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert "no model nothing" in result.stderr
