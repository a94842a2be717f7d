"""The study of the trivial implementation: its ways and its errors by hand, and all of it once, small."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.card import ImageShape
from models.parametrisation import Score
from models.processes import VarianceExploding
from models.score import ScoreModel
from models.study.digits import exact, trivial, trivial_report
from models.study.digits.trivial import ALL, LARGE, SMALL, Found, Network, Trivial, compared, norms, points
from models.study.hyperparameters import diversity
from models.training.data.formats import DataError

SMALLEST = Trivial(small=0.1, large=1.0, levels=3, epochs=0.25, samples=12, steps=1)
IMAGES = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Times(torch.nn.Module):
    """A network whose score is a multiple of the exact one."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def condition(self, sigma: torch.Tensor) -> torch.Tensor:
        return sigma[:, None]

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return self.factor * exact.score(x, float(condition[0, 0]), IMAGES)


def model_of(factor: float) -> ScoreModel:
    shape = ImageShape(channels=1, height=8, width=8)
    return ScoreModel(Times(factor), Score(process=VarianceExploding(label="sigma")), shape)


@pytest.mark.parametrize(("factor", "error", "angle"), [(1.0, 0, 0), (0.0, 1, 90), (0.25, 0.75, 0), (-1.0, 2, 180)])
def test_an_error_is_in_parts_of_the_exact_score(factor: float, error: float, angle: float) -> None:
    x = points(IMAGES, 0.3)
    found = compared(model_of(factor), x, 0.2, exact.score(x, 0.2, IMAGES))
    assert found == (pytest.approx(error, abs=1e-4), pytest.approx(angle, abs=0.1))


def test_points_have_the_noise_that_they_are_asked_for() -> None:
    clean = IMAGES.float() / 255
    assert float((points(IMAGES, 0.3) - clean).std()) == pytest.approx(0.3, rel=0.05)
    assert torch.allclose(points(IMAGES, 0.6) - clean, 2 * (points(IMAGES, 0.3) - clean), atol=1e-5)
    uniform = points(IMAGES, None)
    assert uniform.shape == clean.shape
    assert (float(uniform.mean()), float(uniform.std())) == pytest.approx((0.5, 1 / math.sqrt(12)), abs=0.02)


def test_the_norm_of_a_score_is_that_of_a_pixel() -> None:
    model = model_of(1.0)
    (norm,) = norms(Network("", [0.001], model, 0, 0), IMAGES).values()
    assert norm == pytest.approx(1000, rel=0.05)  # at a tiny level all is noise


def test_all_ways_begin_uniform_and_take_as_many_steps() -> None:
    ways = SMALLEST.ways()
    assert all(way.table.initial_std is None for way in ways)
    assert [len(way.table) for way in ways] == [3, 4, 3, 4, 4, 4]
    follow, langevin, large, _, at_small, annealed = (way.table for way in ways)
    assert follow.rows[0, :4].tolist() == pytest.approx([0.1, 0.1**2 / 2, 0, 0])
    assert langevin.rows[0, 3] == pytest.approx(0.1)
    assert large.rows[0, 0] == 1.0
    assert at_small.rows.tolist() == langevin.rows.tolist()
    assert annealed.column("sigma").tolist() == pytest.approx([1, math.sqrt(0.1), 0.1, 0.1])


@pytest.fixture(scope="module")
def once(
    tmp_path_factory: pytest.TempPathFactory, labelled: Callable[[int], Path], classifiers: Path
) -> tuple[Path, Found, dict[str, list[tuple[int, int]]]]:
    """The whole study, small: where it is kept, what it found, and what it told."""
    directory = tmp_path_factory.mktemp("trivial")
    told: dict[str, list[tuple[int, int]]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trivial, "POINTS", 8)
        found = SMALLEST.study(
            labelled(28), directory, classifiers, "cpu", lambda what, *at: told.setdefault(what, []).append(at)
        )
    return directory, found, told


def test_three_networks_are_trained_that_differ_in_their_levels_alone(
    once: tuple[Path, Found, dict[str, list[tuple[int, int]]]],
) -> None:
    _, found, told = once
    assert [(n.name, len(n.sigmas)) for n in found.networks] == [(SMALL, 1), (LARGE, 1), (ALL, 3)]
    assert len({n.parameters for n in found.networks}) == len({n.seen for n in found.networks}) == 1
    assert len({n.sha256 for n in found.networks}) == 3
    assert all(told[f"training, {n.name}"][-1] == (1, 1) for n in found.networks)
    assert [told[f"{d.way.sampler}, {d.way.network}"][-1] for d in found.drawn] == [
        (12 * rows, 12 * rows) for rows in (3, 4, 3, 4, 4, 4)
    ]


def test_scores_are_held_against_the_exact_ones_at_every_distance(
    once: tuple[Path, Found, dict[str, list[tuple[int, int]]]],
) -> None:
    _, found, _ = once
    sigmas = found.networks[-1].sigmas
    assert {(a.network, a.noise) for a in found.asked} == {
        (name, noise) for name in (SMALL, LARGE, ALL) for noise in [*sigmas, None]
    }
    assert {a.sigma for a in found.asked if a.network == LARGE} == {1.0}
    assert [a.noise for a in found.asked if a.network == ALL and a.sigma == sigmas[1]] == [sigmas[1]]
    assert list(found.norms) == sigmas


def test_the_tables_and_the_figures_say_what_was_found(
    once: tuple[Path, Found, dict[str, list[tuple[int, int]]]],
) -> None:
    _, found, _ = once
    samples, scores = trivial_report.sections(found)
    networks, judged = samples.tables
    assert [row[1] for row in networks.rows] == ["0.1", "1", "3, 1 to 0.1"]
    assert [row[:3] for row in judged.rows[::5]] == [
        [SMALL, "following the scores", "3"],
        [ALL, "annealed Langevin", "4"],
    ]
    assert judged.rows[-1][0] == "real training images"
    errors, sizes = scores.tables
    told = replace(found, asked=[replace(asked, error=float(i)) for i, asked in enumerate(found.asked)])
    by_hand = [told.at(*at).error for at in ((SMALL, 0.1, None), (ALL, 0.1, None), (LARGE, 1.0, None))]
    assert len(set(by_hand)) == 3
    assert [float(cell.split(",")[0]) for cell in trivial_report.errors_table(told).rows[-1][1:4]] == by_hand
    assert [row[0] for row in errors.rows] == ["0.1", "0.316", "1", "uniform"]
    assert errors.rows[0][2] == errors.rows[0][4]  # asked for the small level at points of that noise, twice
    assert errors.rows[-1][4] == ""
    assert [row[0] for row in sizes.rows] == ["0.1", "0.316", "1"]
    numbers = trivial_report.figures(found)
    assert numbers["drawn"][5]["diversity"] == pytest.approx(diversity(found.drawn[5].figures.classes))
    assert len(numbers["errors"]) == len(found.asked) == 3 * 4 + 2


def test_what_was_trained_and_drawn_is_kept(
    once: tuple[Path, Found, dict[str, list[tuple[int, int]]]],
    labelled: Callable[[int], Path],
    classifiers: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory, found, _ = once
    kept = {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}
    monkeypatch.setattr(trivial, "POINTS", 8)
    again = SMALLEST.study(labelled(28), directory, classifiers, "cpu", lambda *_: None)
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()} == kept
    assert trivial_report.figures(again) == trivial_report.figures(found)


def test_data_of_another_shape_are_refused(tmp_path: Path, labelled: Callable[[int], Path], classifiers: Path) -> None:
    with pytest.raises(DataError, match="1 x 8 x 8"):
        SMALLEST.study(labelled(8), tmp_path, classifiers, "cpu", lambda *_: None)
