"""The benchmark of the engine runs from end to end."""

import json
from pathlib import Path

import pytest

from benchmarks import engine


@pytest.mark.usefixtures("tiny_card")
def test_it_times_the_engine_against_its_baselines(
    monkeypatch: pytest.MonkeyPatch, models_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "engine.json"
    options = ["--model", "tiny", "--models-dir", str(models_dir), "--repeat", "1", "--chains", "2"]
    monkeypatch.setattr("sys.argv", ["engine", *options, "--json", str(path)])
    engine.main()
    figures = json.loads(path.read_text())
    langevin = figures["samplers"]["annealed_langevin"]
    assert langevin["evaluations"] == 13
    assert langevin["seconds_for_16_images"]["median"] > 0
    assert 0 < langevin["own_share"]["median"] < 1
    assert figures["samplers"]["heun"]["evaluations"] == 35
    assert figures["mixed_lengths"]["throughput_ratio"]["median"] > 0
    assert "engine's own share" in capsys.readouterr().out
