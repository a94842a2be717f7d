"""The benchmark of guidance runs from end to end."""

import json
from pathlib import Path

import pytest

from benchmarks import guidance


@pytest.mark.usefixtures("tiny_card")
def test_it_measures_what_guided_images_cost(
    monkeypatch: pytest.MonkeyPatch, models_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "guidance.json"
    options = ["--model", "tiny", "--models-dir", str(models_dir), "--repeat", "1"]
    monkeypatch.setattr("sys.argv", ["guidance", *options, "--json", str(path)])
    guidance.main()
    ratios = json.loads(path.read_text())["throughput_ratios"]
    assert list(ratios) == ["guided", "half guided", "a quarter guided"]
    assert all(found["median"] > 0 for found in ratios.values())
    assert "16 images, guided: images/s over those of unguided" in capsys.readouterr().out
