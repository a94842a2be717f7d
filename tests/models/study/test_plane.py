"""The study of the plane, small: its figures, and what it must find with the exact score."""

from pathlib import Path

import pytest
import torch

from models import schedules
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.follow_scores import FollowScores
from models.samplers.langevin import Langevin
from models.samplers.table import Table
from models.study import mixture, plane
from models.study.plane import Ends, ScoreMap
from models.training.data.toy import two_gaussians

NOTHING = lambda *_: None  # noqa: E731


def ends(table: Table) -> Ends:
    return Ends("", "exact", len(table), plane.chains(mixture.exact_model(), table, 300, NOTHING))


@pytest.fixture(scope="module")
def langevin() -> Ends:
    return ends(Langevin.table(plane.SMALL, 120, plane.STEP_SIZE, denoise=False))


def test_langevin_at_one_level_finds_both_modes_alike_often(langevin: Ends) -> None:
    assert langevin.upper == pytest.approx(0.5, abs=0.1)


def test_annealed_langevin_finds_the_weights_of_the_modes() -> None:
    step_size = schedules.langevin_step_size(plane.LEVELS, 20)
    annealed = ends(AnnealedLangevin.table(plane.LEVELS, 20, step_size, False, None))
    assert annealed.upper == pytest.approx(0.8, abs=0.08)


def test_with_noise_chains_spread_as_the_data_and_without_they_collapse(langevin: Ends) -> None:
    collapsed = ends(FollowScores.table(plane.SMALL, 120, plane.STEP_SIZE))
    assert collapsed.spread < 0.05
    assert langevin.spread == pytest.approx(1, abs=0.12)


def test_the_figures_of_points_are_those_of_the_mixture_they_come_from() -> None:
    data = Ends("data", "", 0, mixture.to_points(two_gaussians(20_000).float() / 255))
    assert data.upper == pytest.approx(0.8, abs=0.01)
    assert data.spread == pytest.approx(1, abs=0.02)
    assert data.far < 0.002
    halfway = torch.tensor([[0.1, 0.1], [0.1, 0.2], [5.0, 5.0], [-5.0, -5.0]])
    assert Ends("", "", 0, halfway).far == 0.5


def test_the_error_of_a_score_is_told_in_parts_of_a_typical_one() -> None:
    exact = mixture.score(torch.tensor([[5.0, 5.0]]), 0.25)
    one_deviation_away = mixture.score(torch.tensor([[200.0, 0.0]]), 0.25) * mixture.spread(0.25) / 199
    assert float(plane.errors(exact, exact, 0.25)) == 0
    assert mixture.spread(0.25) == pytest.approx(26**0.5)
    assert float(plane.errors(one_deviation_away, torch.zeros(1, 2), 0.25)) == pytest.approx(1, abs=0.05)


def test_a_score_that_points_elsewhere_is_astray() -> None:
    exact = torch.tensor([[1.0, 0.0]] * 4)
    learnt = torch.tensor([[3.0, 0.0], [1.0, 0.9], [1.0, 1.1], [-1.0, 0.0]])
    assert ScoreMap("", 0.1, learnt, exact, 0.0).astray == 0.5


def test_a_map_of_the_exact_score_has_no_error() -> None:
    found = plane.score_map("exact", mixture.exact_model(), plane.LARGE)
    assert found.at_data < 1e-3
    assert float(found.error.max()) < 1e-3
    assert found.astray == 0


def test_the_study_draws_all_it_tells_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane, "STEPS", 20)
    told: dict[str, list[tuple[int, int]]] = {}
    found = plane.study(tmp_path, 8, 0.03, "cpu", lambda what, done, of: told.setdefault(what, []).append((done, of)))
    assert [(m.network, round(m.sigma * mixture.UNIT, 3)) for m in found.maps] == [
        ("one level", 0.2),
        ("many levels", 0.2),
        ("many levels", 5),
    ]
    assert [e.evaluations for e in found.noise] == [20, 20, 0]
    assert [e.scores for e in found.annealing] == ["exact", "exact", "learnt", "learnt", ""]
    assert len(told) == 7  # two trainings and five runs of chains
    assert all(parts[-1][0] == parts[-1][1] for parts in told.values())

    again = plane.study(tmp_path, 8, 0.03, "cpu", lambda what, done, of: told.setdefault(what, []).append((done, of)))
    assert [done for done, _ in told["training, one level"]] == [1, 2, 2]  # kept, so not trained again
    assert torch.equal(again.maps[0].learnt, found.maps[0].learnt)
