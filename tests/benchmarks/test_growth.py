"""What grows as work grows is measured from end to end, in small."""

import json
from pathlib import Path

import pytest

from benchmarks import growth


def test_it_measures_slots_the_share_of_the_engine_models_and_the_queue(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "growth.json"
    options = ["--repeat", "2", "--slots", "1,4", "--models", "3", "--waiting", "5", "--images", "40"]
    monkeypatch.setattr("sys.argv", ["growth", *options, "--json", str(path)])
    growth.main()
    found = json.loads(path.read_text())
    for what in ("cpu", "gpu, a row a step", "gpu, 8 rows a step"):
        assert set(found["engine"][what]["milliseconds"]) == {"1", "4"}
        assert set(found["engine"][what]["powers"]) == {"1 to 4"}
    assert found["own_share"]["milliseconds_of_the_network"] > 0
    assert set(found["models"]) == {"1", "3"}
    assert all(figure > 0 for figures in found["models"].values() for figure in figures.values())
    life = ["accept", "GET /jobs/ID", "take", "start", "beat", "store", "cancel"]
    assert {count: list(of) for count, of in found["waiting"].items()} == {"1": [*life, "depth"], "5": [*life, "depth"]}
    assert {count: list(of) for count, of in found["images"].items()} == {"1": life, "40": life}
    out = capsys.readouterr().out
    assert "POST /samples" in out
    assert "store, ms; images: ms" in out
