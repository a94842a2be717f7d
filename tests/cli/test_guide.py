"""`scoreserve guide`: what it says. The guided model is tested in tests/models/training/test_guidance.py."""

from pathlib import Path

from typer.testing import CliRunner

from cli.main import app


def test_it_publishes_a_version_of_the_guided_model(models_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny").symlink_to(models_dir / "tiny")
    result = CliRunner().invoke(app, ["guide", "tiny", "--by", "worse", "--store", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr == "error: no model worse; there is: tiny\n"
