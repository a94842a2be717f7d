"""`scoreserve worker`: which queue it works on."""

import gc
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import worker.process
from cli.main import app
from cli.running import Running

UP = Running(1, "http://127.0.0.1:8000", "unix:///up.sock", {"SCORESERVE_DEFAULT_MODEL": "of-up"})


@pytest.mark.parametrize(
    ("found", "arguments", "redis_url", "model"),
    [
        (UP, [], UP.redis_url, "of-up"),
        (UP, ["--redis-url", "redis://elsewhere:6379/0"], "redis://elsewhere:6379/0", "mnist"),
        (None, [], "redis://127.0.0.1:6379/0", "mnist"),
    ],
    ids=["up", "named", "alone"],
)
def test_it_joins_what_up_runs_unless_another_redis_is_named(
    monkeypatch: pytest.MonkeyPatch, found: Running | None, arguments: list[str], redis_url: str, model: str
) -> None:
    for name in ("SCORESERVE_REDIS_URL", "REDIS_URL", "SCORESERVE_DEFAULT_MODEL"):
        monkeypatch.delenv(name, raising=False)
    ran: list[Any] = []
    monkeypatch.setattr(Running, "find", classmethod(lambda cls, data_dir: found))
    monkeypatch.setattr(worker.process, "run", lambda settings, burst: ran.append(settings))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("cli.commands.worker.set_up", lambda _: None)
    result = CliRunner().invoke(app, ["worker", *arguments])
    assert result.exit_code == 0, result.output
    assert [(settings.redis_url, settings.default_model) for settings in ran] == [(redis_url, model)]


def test_garbage_is_collected_while_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    collects: list[bool] = []
    monkeypatch.setattr(worker.process, "run", lambda settings, burst: collects.append(gc.isenabled()))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("cli.commands.worker.set_up", lambda _: None)
    CliRunner().invoke(app, ["worker", "--redis-url", "redis://elsewhere:1/0"])
    assert collects == [True], "but not while all was imported"


def test_which_redis_it_works_for_is_said_where_none_was_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SCORESERVE_REDIS_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(worker.process, "run", lambda settings, burst: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("cli.commands.worker.set_up", lambda _: None)
    alone = CliRunner().invoke(app, ["worker", "--data-dir", str(tmp_path / "d")])
    assert alone.exit_code == 0
    (line,) = alone.stderr.splitlines()
    assert line.startswith("takes redis://127.0.0.1:6379/0: no Redis is named")
    assert line.endswith(f"nor does `scoreserve up` run with the data directory {tmp_path / 'd'}")
    named = CliRunner().invoke(app, ["worker", "--redis-url", "redis://elsewhere:1/0"])
    assert (named.exit_code, named.stderr) == (0, "")
    held = UP.write_down(tmp_path)
    assert held is not None
    joined = CliRunner().invoke(app, ["worker", "--data-dir", str(tmp_path)])
    os.close(held)
    assert joined.stderr == f"joins {UP}\n"


def test_what_was_looked_for_is_said_where_there_is_no_redis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SCORESERVE_REDIS_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)

    def run(settings: Any, burst: bool) -> None:
        raise worker.process.NoRedis(f"no Redis at {settings.redis_url}")

    monkeypatch.setattr(worker.process, "run", run)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("cli.commands.worker.set_up", lambda _: None)
    told = CliRunner().invoke(app, ["worker", "--data-dir", str(tmp_path / "d")])
    assert told.exit_code == 1
    assert str(tmp_path / "d") in " ".join(told.output.split()).replace(" ", "")
    assert "--data-dir" in told.output
    named = CliRunner().invoke(app, ["worker", "--redis-url", "redis://elsewhere:1/0"])
    assert "data directory" not in named.output
