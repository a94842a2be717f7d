import pytest

from models.samplers.follow_scores import FollowScores
from models.samplers.langevin import Langevin
from models.samplers.table import Table


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        (FollowScores.table(0.3, 20, 0.01), 20),
        (Langevin.table(0.3, 20, 0.01, denoise=False), 20),
        (Langevin.table(0.3, 20, 0.01, denoise=True), 21),
    ],
    ids=["follow_scores", "langevin", "langevin, denoised"],
)
def test_it_starts_uniform_and_stays_at_its_level(table: Table, rows: int) -> None:
    assert table.initial_std is None
    assert set(table.column("sigma")) == {0.3}
    assert table.column("known").tolist() == [0.3] * (rows - 1) + [0.0]
