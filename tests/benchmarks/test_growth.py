"""What grows as work grows is measured from end to end, in small."""

import json
from pathlib import Path

import pytest

from benchmarks import growth


def test_it_measures_slots_the_share_of_the_engine_and_models(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "growth.json"
    options = ["--repeat", "2", "--slots", "1,4", "--models", "3", "--json", str(path)]
    monkeypatch.setattr("sys.argv", ["growth", *options])
    growth.main()
    found = json.loads(path.read_text())
    for what in ("cpu", "gpu, a row a step", "gpu, 8 rows a step"):
        assert set(found["engine"][what]["milliseconds"]) == {"1", "4"}
        assert set(found["engine"][what]["powers"]) == {"1 to 4"}
    assert found["own_share"]["milliseconds_of_the_network"] > 0
    assert set(found["models"]) == {"1", "3"}
    assert all(figure > 0 for figures in found["models"].values() for figure in figures.values())
    assert "POST /samples" in capsys.readouterr().out
