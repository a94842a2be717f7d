"""What `scoreserve up` writes down, and who finds it."""

import os
from pathlib import Path

import pytest

from cli.running import FILE, Running, default_data_dir

SETTINGS = {"SCORESERVE_MODELS_DIR": "/m", "SCORESERVE_DEVICE": "cuda:0"}
RUNNING = Running(17, "http://127.0.0.1:9000", "unix:///q/valkey.sock", SETTINGS)


def test_what_runs_is_found_until_it_ends(tmp_path: Path) -> None:
    assert Running.find(tmp_path) is None
    held = RUNNING.write_down(tmp_path)
    assert held is not None
    assert Running.find(tmp_path) == RUNNING
    assert Running.find(tmp_path / "another") is None
    assert Running(18, "", "", {}).write_down(tmp_path) is None, "the first is not overwritten while it runs"
    assert Running.find(tmp_path) == RUNNING
    os.close(held)  # as when the process ends, however it does
    assert Running.find(tmp_path) is None
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600, "an address may hold a password"


def test_what_runs_decides_unless_the_environment_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SCORESERVE_MODELS_DIR", "SCORESERVE_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    assert RUNNING.options == {"redis_url": "unix:///q/valkey.sock", "models_dir": "/m", "device": "cuda:0"}
    monkeypatch.setenv("SCORESERVE_DEVICE", "cpu")
    assert "device" not in RUNNING.options


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": 1, "colour": "red"}'])
def test_what_cannot_be_read_is_nothing(tmp_path: Path, text: str) -> None:
    held = RUNNING.write_down(tmp_path)
    assert held is not None
    (tmp_path / FILE).write_text(text)
    assert Running.find(tmp_path) is None
    os.close(held)


def test_nobody_has_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_data_dir() == Path("/state/scoreserve")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(OSError, match="no home directory"):
        default_data_dir()
    assert Running.find() is None
