"""`scoreserve evaluate`: what it says. The figures are tested in tests/models/evaluation."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from cli.commands.evaluate import notes, table
from cli.main import app
from models.evaluation.inception import InceptionFigures
from models.evaluation.record import Record


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 8 x 8 pixels: dark and bright."""
    path = tmp_path_factory.mktemp("data") / "shades.npz"
    labels = np.arange(512) % 2
    images = np.random.default_rng(0).integers(0, 100, (512, 8, 8), dtype=np.uint8)
    images += (150 * labels)[:, None, None].astype(np.uint8)
    np.savez(path, x_train=images, y_train=labels, x_test=images[:100], y_test=labels[:100])
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier is kept for all tests here."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def options(data: Path, cache: Path, models_dir: Path, tmp_path: Path) -> list[str]:
    places = {"--data": data, "--cache": cache, "--store": models_dir, "--out": tmp_path / "out"}
    return ["--count", "12", *(str(part) for pair in places.items() for part in pair)]


def evaluate(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["evaluate", "tiny", *arguments])


def check_failed(result: Result, code: int, said: str) -> None:
    assert result.exit_code == code, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.strip()]
    assert line.startswith("error: ")
    assert said in line


def test_it_shows_a_table_and_says_where_the_rest_is(options: list[str], tmp_path: Path) -> None:
    result = evaluate(*options, "--sampler", '{"name": "heun", "levels": 3}', "--sampler", "consistent_annealed")
    assert result.exit_code == 0, result.output
    record = Record.read(tmp_path / "out")
    assert record is not None
    header, *rows = result.stdout.splitlines()
    assert header.split()[:4] == ["sampler", "evaluations", "samples", "distance"]
    names = [row.split("  ")[0] for row in rows if row.strip()]
    assert [name.split()[0] for name in names] == ["consistent_annealed", "heun", "real", "real"]
    heun = record.entries[1]
    assert names[1] == "heun levels=3 sigma=10..0.01"
    (row,) = (row for row in rows if row.startswith("heun"))
    assert row.split()[3:6] == ["5", "12", f"{heun.figures.distance:.3f}"]
    said = result.stderr
    assert f"figures and pictures are in {tmp_path / 'out'}" in said
    assert "comparable with no FID" in said
    assert "copies would be far below 1" in said
    assert "heun levels=3 sigma=10..0.01: 100 %" in said


def test_budgets_are_numbers_with_commas_or_repeated(options: list[str], tmp_path: Path) -> None:
    result = evaluate(*options, "--sampler", "euler", "--evaluations", "3, 5", "--evaluations", "4")
    assert result.exit_code == 0, result.output
    record = Record.read(tmp_path / "out")
    assert record is not None
    assert [entry.evaluations for entry in record.entries] == [3, 4, 5]


def test_entries_of_different_counts_are_marked(options: list[str]) -> None:
    assert "distance of" not in evaluate(*options, "--sampler", "euler", "--evaluations", "3").stdout
    result = evaluate(*options, "--sampler", "euler", "--evaluations", "4", "--count", "10")
    assert "distance of 10" in result.stdout
    assert "12 *" in result.stdout
    assert "* has more samples than the fewest" in result.stderr


def test_what_cannot_start_is_one_line(options: list[str], tmp_path: Path) -> None:
    check_failed(evaluate(*options, "--sampler", "heun", "--evaluations", "1"), 1, "heun with 1 evaluations")
    check_failed(evaluate(*options, "--data", str(tmp_path)), 1, f"no labelled data in {tmp_path}")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--sampler", "magic", "--sampler magic: there is no sampler magic; allowed: annealed_langevin, "),
        ("--sampler", '{"name": "heun", "levels": 0}', "levels is 0; allowed: at least 1"),
        ("--sampler", '{"name": "heun"', "--sampler is not JSON"),
        ("--sampler", "{}", "sampler has no name"),
        ("--evaluations", "20;35", "--evaluations 20;35: whole numbers from 1 on, such as 20,35,100"),
        ("--evaluations", "20,0", "--evaluations 0: whole numbers"),
    ],
)
def test_an_option_that_is_impossible(options: list[str], option: str, value: str, said: str) -> None:
    check_failed(evaluate(*options, option, value), 2, said)


def test_fid_says_how_many_images_it_would_need(options: list[str], tmp_path: Path) -> None:
    evaluate(*options, "--sampler", "euler", "--evaluations", "3")
    record = Record.read(tmp_path / "out")
    assert record is not None
    found = InceptionFigures(images=12, fid=3.14159, score=2.5, score_deviation=0.25)
    record.entries = [record.entries[0].model_copy(update={"inception": found})]
    shown = io.StringIO()
    Console(file=shown, width=300).print(table(record))
    assert shown.getvalue().splitlines()[1].split()[-4:] == ["3.14", "2.50", "±", "0.25"]
    assert notes(record)[-1] == "FID to all training images, of 12 samples: it needs 50,000, and is larger of fewer"


def test_of_classes_it_shows_how_many_are_named_as_asked_and_each_ones_distance(
    data: Path, cache: Path, tmp_path: Path, publish_labelled: Callable[..., Path]
) -> None:
    places = (
        "--data",
        str(data),
        "--cache",
        str(cache),
        "--store",
        str(publish_labelled("shades", ("dark", "bright"))),
    )
    told = (
        "--count",
        "12",
        "--sampler",
        '{"name": "heun", "levels": 3}',
        "--guidance",
        "1,2",
        "--out",
        str(tmp_path / "out"),
    )
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["evaluate", "shades", *places, *told])
    assert result.exit_code == 0, result.output
    assert "named as asked" in result.stdout.splitlines()[0]
    assert "guidance=2" in result.stdout
    assert "guidance=2: distances of the classes, each to real test images of it: " in result.stderr
    check_failed(evaluate("--data", str(data), "--guidance", "much"), 2, "--guidance much: numbers from 0 to 100")
    check_failed(evaluate("--data", str(data), "--execution", "float16"), 2, "--execution 'float16': eager or")


def test_restoring_is_told_as_a_table(options: list[str]) -> None:
    settings = '{"name": "repaint", "levels": 2, "resamples": 2}'
    found = CliRunner().invoke(app, ["evaluate", "tiny", "--restore", "--sampler", settings, *options])
    assert found.exit_code == 0, found.output
    for words in ("right half", "enlarged by 4", "same class", "recognised", "repaint levels=2"):
        assert words in found.output
    refused = CliRunner().invoke(app, ["evaluate", "tiny", "--restore", "--into-card", *options])
    assert refused.exit_code == 2
    assert "--restore goes without --into-card" in refused.output
    told = ["--task", "right half", "--sampler", settings, *options]
    found = CliRunner().invoke(app, ["evaluate", "tiny", "--restore", *told])
    assert found.exit_code == 0, found.output
    assert "right half" in found.output
    assert "enlarged" not in found.output
    refused = CliRunner().invoke(app, ["evaluate", "tiny", *told])
    assert refused.exit_code == 2
    assert "--task goes with --restore" in refused.output
