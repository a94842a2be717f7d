"""The benchmark of turns: what it measures, and what is made of the figures."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import turns


def test_grids_are_measured_alone_and_behind_both_kinds_of_long_chains(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "SLICES", {"making way": "0.2", "not making way": "1000000000"})
    monkeypatch.setattr(turns, "time", SimpleNamespace(sleep=lambda _: None, perf_counter=time.perf_counter))
    path = tmp_path / "turns.json"
    options = ["--models-dir", str(models_dir), "--model", "tiny", "--grids", "1", "--evaluations", "1000"]
    monkeypatch.setattr("sys.argv", ["turns", *options, "--repeat", "1", "--json", str(path)])
    turns.main()
    found = json.loads(path.read_text())
    assert found["model"]["name"] == "tiny"
    assert set(found["seconds"]) == {"alone", "behind its own", "making way", "not making way"}
    assert 0 < found["ratio"] < 1
    assert found["seconds"]["behind its own"]["median"] < found["seconds"]["not making way"]["median"]


def test_the_ratio_is_that_of_the_medians() -> None:
    found = turns.figures({"alone": [1.0], "making way": [2.0, 3.0, 40.0], "not making way": [6.0, 5.0, 12.0]})
    assert found["ratio"] == 0.5
    assert found["seconds"]["making way"] == {"median": 3.0, "lowest": 2.0, "highest": 40.0}
