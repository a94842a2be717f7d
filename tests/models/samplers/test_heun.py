import pytest

from models.samplers.heun import Heun
from models.schedules import karras


def test_heun_of_18_levels_takes_35_evaluations() -> None:
    table = Heun.table(karras(80, 0.002, 18, 7))
    assert len(table) == 35
    assert table.initial_std == pytest.approx(80)
    assert not table.column("noise").any()
