"""The benchmark of training runs from end to end."""

import json
from pathlib import Path

import pytest

from benchmarks import training


def test_it_times_the_trainer_against_a_plain_loop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "training.json"
    monkeypatch.setattr(training, "IMAGES", 64)
    options = ["--preset", "mnist-guide", "--batch", "4", "--steps", "2", "--json", str(path)]
    monkeypatch.setattr("sys.argv", ["training", *options])
    training.main()
    figures = json.loads(path.read_text())
    ratio = figures["speed_ratio_to_textbook"]
    assert 0 < ratio["lowest"] <= ratio["median"] <= ratio["highest"]
    said = capsys.readouterr().out
    assert "Trainer, images/s" in said
    assert f"the Trainer's step: {figures['execution']}" in said
