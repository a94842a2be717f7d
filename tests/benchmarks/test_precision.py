"""The benchmark of precisions runs from end to end."""

import json
from pathlib import Path

import pytest

from benchmarks import precision

MNIST = Path(__file__).parents[1] / "data" / "mnist"


def test_it_shows_the_loss_in_both_precisions_and_by_chance(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "precision.json"
    options = ["--data", str(MNIST), "--batch", "4", "--steps", "12", "--json", str(path)]
    monkeypatch.setattr("sys.argv", ["precision", *options])
    precision.main()
    figures = json.loads(path.read_text())
    assert [len(losses) for losses in figures["curves"].values()] == [12] * 3
    plain, rounded, _ = figures["curves"].values()
    assert plain[0] == pytest.approx(rounded[0], rel=0.05), "the same images, noise and weights"
    assert plain != rounded
    assert figures["apart"]["bfloat16"] < figures["apart"]["float32, another seed"]
    assert "apart from float32" in capsys.readouterr().out
