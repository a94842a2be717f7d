"""`scoreserve study`: what it writes and says. tests/models/study tests what it finds."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from cli.main import app
from models.study import hyperparameters, plane
from models.study.hyperparameters import Point


def study(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["study", *map(str, arguments)])


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small labelled data set of 8 x 8 pixels, and a cache of classifiers of its own."""
    monkeypatch.setattr("models.evaluation.classifier.CACHE", tmp_path / "cache")
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (300, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(300) % 2
    np.savez(tmp_path / "data.npz", x_train=pixels, y_train=labels, x_test=pixels[:20], y_test=labels[:20])
    return tmp_path / "data.npz"


def check_failed(result: Result, *said: str) -> None:
    assert result.exit_code == 1, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert [words for words in said if words not in line] == [], line
    assert "Traceback" not in result.output


def check_pictures(out: Path, *names: str) -> None:
    for name in names:
        with Image.open(out / f"{name}.png") as picture:
            assert min(picture.size) > 300
        assert f"]({out.name}/{name}.png)" in out.with_suffix(".md").read_text()


def test_the_plane_is_drawn_and_told_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane, "STEPS", 10)
    monkeypatch.setattr("sys.argv", ["/bin/scoreserve", "study", "plane"])
    out = tmp_path / "study"
    result = study("plane", "--out", out, "--runs", tmp_path / "runs", "--points", 8, "--epochs", 0.03)
    assert result.exit_code == 0, result.output
    check_pictures(out, "plane-scores", "plane-noise", "plane-annealing")
    assert "\nscoreserve study plane\n" in (tmp_path / "study.md").read_text()
    numbers = json.loads((out / "plane.json").read_text())
    assert numbers["environment"]["command"] == "scoreserve study plane"
    assert len(numbers["scores"]) == 3
    assert "training, many levels: 100 %" in result.stderr
    assert result.stderr.splitlines()[-1] == f"wrote {tmp_path / 'study.md'}"


def test_hyper_parameters_of_a_model(
    tmp_path: Path, models_dir: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hyperparameters, "LINES", {name: [Point(1.0, 1, 2)] for name in hyperparameters.LINES})
    monkeypatch.setattr(hyperparameters, "PLANE", [Point(1.0, 1, 2)])
    out = tmp_path / "study"
    options = ["--model", "tiny", "--store", models_dir, "--samples", 10, "--runs", tmp_path / "runs"]
    result = study("hyperparameters", "--data", data, "--out", out, *options)
    assert result.exit_code == 0, result.output
    check_pictures(out, "hyperparameters")
    assert json.loads((out / "hyperparameters.json").read_text())["model"] == "tiny version 1"


def test_objectives_are_drawn_and_told_with_their_command(tmp_path: Path) -> None:
    out = tmp_path / "study"
    result = study("objectives", "--out", out, "--runs", tmp_path / "runs", "--epochs", 0.03)
    assert result.exit_code == 0, result.output
    check_pictures(out, "objectives")
    assert len(json.loads((out / "objectives.json").read_text())["networks"]) == 6 * 3


def test_noise_at_many_magnitudes(tmp_path: Path, models_dir: Path, data: Path) -> None:
    out = tmp_path / "study"
    options = ["--model", "tiny", "--store", models_dir, "--images", 10, "--levels", 5]
    result = study("noise", "--data", data, "--out", out, *options)
    assert result.exit_code == 0, result.output
    check_pictures(out, "noise")
    assert json.loads((out / "noise.json").read_text())["model"] == "tiny version 1"


def test_annealed_langevin_dynamics_on_its_way(tmp_path: Path, models_dir: Path, data: Path) -> None:
    out = tmp_path / "study"
    options = ["--model", "tiny", "--store", models_dir, "--runs", tmp_path / "runs", "--chains", 10, "--moments", 5]
    result = study("filmstrip", "--data", data, "--out", out, *options)
    assert result.exit_code == 0, result.output
    check_pictures(out, "filmstrip")
    assert len(json.loads((out / "filmstrip.json").read_text())["moments"]) == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["reproducible", "--data", "/nowhere"], ["no labelled data in /nowhere", "expected one of"]),
        (["hyperparameters", "--data", "/nowhere"], ["no labelled data in /nowhere"]),
        (["trivial", "--data", "/nowhere"], ["no labelled data in /nowhere"]),
        (["trivial", "--data", "/nowhere", "--small", "0"], ["small noise level is 0 and the large one 1; allowed"]),
        (["trivial", "--data", "/nowhere", "--small", "2"], ["small noise level is 2 and the large one 1; allowed"]),
        (["trivial", "--data", "/nowhere", "--large", "inf"], ["the large one inf; allowed"]),
        (["filmstrip", "--data", "/nowhere"], ["no labelled data in /nowhere"]),
        (["filmstrip", "--data", "/nowhere", "--model", "paintings"], ["no model paintings", "mnist"]),
        (["objectives", "--epochs", "-1"], ["epochs"]),
        (["hyperparameters", "--data", "/nowhere", "--model", "paintings"], ["no model paintings", "mnist"]),
        (["plane", "--epochs", "-1", "--points", "2"], ["epochs"]),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: list[str]
) -> None:
    monkeypatch.setattr(plane, "STEPS", 10)
    out = tmp_path / "study"
    check_failed(study(*arguments, "--out", out, "--runs", tmp_path / "runs"), *said)
    assert not out.exists()


@pytest.mark.parametrize("command", ["reproducible", "trivial"])
def test_data_of_another_shape_than_what_is_trained_on(tmp_path: Path, data: Path, command: str) -> None:
    result = study(command, "--data", data, "--out", tmp_path / "study", "--runs", tmp_path / "runs")
    check_failed(result, "1 x 8 x 8", "1 x 28 x 28")


def test_without_matplotlib_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane, "STEPS", 10)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    few = ["--points", 2, "--epochs", 0.03]
    result = study("plane", "--out", tmp_path / "study", "--runs", tmp_path / "runs", *few)
    check_failed(result, "matplotlib", "pip install 'scoreserve[train]'")
    assert not (tmp_path / "runs").exists()
