"""The study of hyper-parameters: what it samples, and what it makes of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models import schedules
from models.card import ModelCard
from models.evaluation.figures import Figures
from models.evaluation.samples import Samples
from models.evaluation.settings import setting
from models.samplers.sampler import SamplerRefused
from models.sampling.sample import sample
from models.score import ScoreModel
from models.store import ModelNotFound, ModelStore
from models.study import hyperparameters, hyperparameters_report
from models.study.hyperparameters import (
    BASE,
    LINES,
    PLANE,
    SEED,
    Found,
    Judged,
    Point,
    diversity,
    extremes,
    study,
    wanted,
)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two points of a parameter at most, and cheap ones."""
    lines = {
        "step_factor": [Point(0.5, 1, 3), Point(1.0, 1, 3)],
        "steps": [Point(1.0, 1, 3), Point(1.0, 2, 3)],
        "levels": [Point(1.0, 1, 2), Point(1.0, 1, 3)],
        "sigma_max": [Point(1.0, 1, 3, 1.0), Point(1.0, 1, 3)],
    }
    monkeypatch.setattr(hyperparameters, "LINES", lines)
    monkeypatch.setattr(hyperparameters, "PLANE", [Point(100.0, 1, 3)])


def run(models_dir: Path, data: Path, directory: Path, classifiers: Path, told: list[tuple[int, int]]) -> Found:
    return study(
        "tiny", models_dir, data, 10, directory, classifiers, "cpu", lambda _, done, of: told.append((done, of))
    )


def test_along_a_line_one_parameter_alone_changes_and_the_base_is_on_every_line() -> None:
    for parameter, line in LINES.items():
        assert BASE in line
        for point in line:
            same = [name for name in LINES if getattr(point, name) == getattr(BASE, name)]
            assert set(same) >= set(LINES) - {parameter}
    assert len(set(PLANE)) == 4 * 5


@pytest.mark.parametrize("point", [BASE, Point(steps=1), Point(levels=5), Point(sigma_max=1.0)])
def test_the_step_size_is_a_factor_of_technique_4_at_the_same_levels_and_steps(
    tiny_card: ModelCard, point: Point
) -> None:
    chosen = setting(wanted(point, None), tiny_card)
    sigmas = schedules.geometric(point.sigma_max, tiny_card.sigma_min, point.levels)
    expected = schedules.langevin_step_size(sigmas, point.steps)
    assert hyperparameters.step_size(chosen) == pytest.approx(expected)
    assert len(chosen.table) == point.levels * point.steps + 1


@pytest.mark.usefixtures("short")
def test_every_point_is_judged_once_and_a_point_that_diverges_is_told_of(
    tmp_path: Path, models_dir: Path, labelled: Callable[[int], Path], classifiers: Path
) -> None:
    told: list[tuple[int, int]] = []
    found = run(models_dir, labelled(8), tmp_path, classifiers, told)
    assert set(found.judged) == {
        Point(0.5, 1, 3),
        Point(1.0, 1, 3),
        Point(1.0, 2, 3),
        Point(1.0, 1, 2),
        Point(1.0, 1, 3, 1.0),
    }
    half, whole = found.judged[Point(0.5, 1, 3)], found.judged[Point(1.0, 1, 3)]
    assert half.step_size == pytest.approx(whole.step_size / 2)
    assert whole.evaluations == 4
    assert "diverge" in found.refused[Point(100.0, 1, 3)]
    assert told[-1] == (10 * (4 + 4 + 7 + 3 + 4),) * 2
    assert len({j.figures.distance for j in found.judged.values()}) == 5

    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    assert run(models_dir, labelled(8), tmp_path, classifiers, told) == found
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")} == kept


@pytest.mark.usefixtures("short")
def test_images_are_of_one_class_after_another_where_a_client_gets_such(
    tmp_path: Path,
    labelled_dir: Path,
    needy_card: ModelCard,
    labelled: Callable[[int], Path],
    classifiers: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    side = needy_card.image.height
    monkeypatch.setattr(hyperparameters, "LINES", {"levels": [Point(1.0, 1, 3)]})
    study("needy", labelled_dir, labelled(side), 10, tmp_path, classifiers, "cpu", lambda *_: None)
    (kept,) = (Samples(path) for path in (tmp_path / "samples").iterdir())
    network = ScoreModel.load(ModelStore(labelled_dir), needy_card)
    table = setting(wanted(Point(1.0, 1, 3), None), needy_card).table
    assert np.array_equal(kept.read(10).pixels, sample(network, table, 10, SEED, labels=[0, 1, 2]))


def test_what_cannot_be_followed_at_all_is_one_line(
    tmp_path: Path,
    models_dir: Path,
    labelled: Callable[[int], Path],
    classifiers: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise SamplerRefused("levels", "it knows 10", "10")

    monkeypatch.setattr(hyperparameters, "setting", refuse)
    with pytest.raises(ValueError, match="tiny can follow none of these settings: levels: it knows 10"):
        run(models_dir, labelled(8), tmp_path, classifiers, [])


def test_a_model_that_is_not_there(tmp_path: Path, labelled: Callable[[int], Path], classifiers: Path) -> None:
    with pytest.raises(ModelNotFound, match="no model tiny"):
        run(tmp_path, labelled(8), tmp_path, classifiers, [])


def test_diversity_is_the_number_of_classes_that_are_alike_often() -> None:
    assert diversity([0.25] * 4) == pytest.approx(4)
    assert diversity([0.5, 0.5, 0.0]) == pytest.approx(2)
    assert 1 < diversity([0.9, 0.1]) < 2


def judged(point: Point, distance: float) -> Judged:
    return Judged(point, 1e-4, 101, Figures(distance, 0.5, 0.25, 0.75, 0.01, [0.5, 0.5]))


def test_the_tables_say_what_was_found() -> None:
    points = dict.fromkeys([*(p for line in LINES.values() for p in line), *PLANE])
    distances = {point: float(i + 2) for i, point in enumerate(points)}
    missing = Point(step_factor=3.0, steps=1)
    known = {point: judged(point, distance) for point, distance in distances.items() if point != missing}
    found = Found("tiny version 1", 10, known, {missing: "it diverges"}, judged(BASE, 1.0).figures)
    (section,) = hyperparameters_report.sections(found)
    lines, plane, extreme = section.tables
    assert lines.rows[0] == ["step size (factor)", "0.25", "101", "2.00", "75.0% ± 1.0%", "25%", "2.0"]
    assert [row[1] for row in lines.rows if "(base)" in row[1]] == ["1 (base)", "5 (base)", "20 (base)", "5 (base)"]
    assert plane.rows[0][0] == "1"
    assert plane.rows[0][-1] == "diverges"
    assert plane.rows[2][1:] == [row[3] for row in lines.rows[:5]]  # T of the base
    best, worst = extremes(found.line("step_factor"))
    assert (best.point.step_factor, worst.point.step_factor) == (0.25, 3.0)
    assert extreme.rows[0] == ["step size (factor)", "0.25: 2.00", "3: 6.00", "3.0"]
    assert np.isclose(hyperparameters_report.figures(found)["judged"][0]["distance"], 2.0)
