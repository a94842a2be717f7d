"""The benchmark of two workers: what one fulfils, and what is made of the figures."""

import json
from pathlib import Path

import pytest

from benchmarks import workers
from benchmarks.system import cores
from models.card import ModelCard
from models.store import ModelStore


def test_it_counts_what_a_worker_fulfils(models_dir: Path, tiny_card: ModelCard, tmp_path: Path) -> None:
    rate = workers.fulfilled(tmp_path / "one", ModelStore(models_dir), tiny_card, cores()[:1], seconds=1.0)
    assert rate > 0
    assert (rate * 1.0) < 1e6


def test_it_measures_the_engine_alone(models_dir: Path) -> None:
    assert workers.computed(models_dir, "tiny", cores()[:1], seconds=0.2) > 0


def test_it_tells_the_ratio(monkeypatch: pytest.MonkeyPatch, models_dir: Path, tmp_path: Path) -> None:
    rates = iter([100.0, 190.0, 180.0, 100.0, 100.0, 195.0])
    monkeypatch.setattr(workers, "fulfilled", lambda *_: next(rates))
    monkeypatch.setattr(workers, "computed", lambda _, __, on, ___: 100.0 * len(on))
    monkeypatch.setattr(workers, "cores", lambda: [0, 1])
    path = tmp_path / "workers.json"
    options = ["--models-dir", str(models_dir), "--model", "tiny", "--repeat", "3", "--json", str(path)]
    monkeypatch.setattr("sys.argv", ["workers", *options])
    workers.main()
    found = json.loads(path.read_text())
    assert found["ratio"] == {"median": 1.9, "lowest": 1.8, "highest": 1.95, "limit": 1.9, "met": True}
    assert found["ratio_of_the_engine_alone"] == 2.0
    monkeypatch.setattr(workers, "cores", lambda: [0])
    with pytest.raises(RuntimeError, match="one core"):
        workers.main()
