import numpy as np
import pytest

from models.card import ModelCard
from models.plan import plan
from models.samplers import NAMES
from models.samplers.settings import bare
from models.samplers.table import Table, snapshots


@pytest.fixture(params=NAMES)
def table(request: pytest.FixtureRequest, tiny_card: ModelCard, consistency_card: ModelCard) -> Table:
    """Of each sampler, as it is by default."""
    settings = bare(request.param)
    return plan(settings, consistency_card if settings.of_consistency else tiny_card, settings.needs_known)[1]


def test_known_pixels_end_exact_and_rows_cannot_be_changed(table: Table) -> None:
    assert table.column("known")[-1] == 0
    assert np.all(table.column("known")[:-1] > 0)
    assert np.all(table.column("sigma") > 0)
    with pytest.raises(ValueError, match="read-only"):
        table.rows[0, 0] = 1.0


def test_a_table_starts_uniform_or_from_its_first_level(table: Table) -> None:
    assert table.initial_std in (None, pytest.approx(table.rows[0, 0]))


@pytest.mark.parametrize(("rows", "count"), [(13, 5), (35, 35), (35, 1), (100, 64), (7, 3)])
def test_snapshots_are_even_and_end_with_the_result(rows: int, count: int) -> None:
    found = snapshots(rows, count)
    assert len(found) == len(set(found)) == count
    assert list(found) == sorted(found)
    assert found[0] >= 1
    assert found[-1] == rows
    steps = {after - before for before, after in zip((0, *found), found, strict=False)}
    assert max(steps) - min(steps) <= 1


def test_no_snapshots_are_none() -> None:
    assert snapshots(13, 0) == ()
