"""The soak: what counts as growth, and a few jobs of it."""

import json
import random
from pathlib import Path

import pytest

from benchmarks import soak


def test_a_leak_is_growth_and_noise_is_not() -> None:
    rng = random.Random(1)
    jobs = list(range(1000, 20_000, 10))
    flat = [100_000_000 + rng.randrange(2_000_000) for _ in jobs]
    leaking = [used + 300 * number for used, number in zip(flat, jobs, strict=True)]
    assert abs(soak.growth(jobs, flat)) < 0.005
    assert 0.05 < soak.growth(jobs, leaking) < 0.07
    assert soak.growth(jobs, [*flat[:-1], 10**9]) < 0.005, "one peak is no growth"


def test_a_few_jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, picture = tmp_path / "soak.json", tmp_path / "soak.png"
    monkeypatch.setattr(soak, "EVERY_SECONDS", 0.02)
    options = ["--jobs", "60", "--clients", "4", "--warm", "5", "--ttl", "1"]
    monkeypatch.setattr("sys.argv", ["soak", *options, "--json", str(path), "--plot", str(picture)])
    soak.main()
    figures = json.loads(path.read_text())
    assert figures["totals"]["jobs_accepted"] == 60
    assert figures["totals"]["jobs_finished"] + figures["totals"].get("jobs_cancelled", 0) == 60
    last = figures["samples"][-1]
    assert 0 < last["jobs"] <= 60
    assert last["redis"] < last["service"] < last["worker"]
    assert set(figures["verdict"]) == {"worker", "service", "redis"}
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "Redis, used" in capsys.readouterr().out
