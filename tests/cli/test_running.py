"""What `scoreserve up` writes down, and who finds it."""

import os
import sys
from pathlib import Path

import pytest

from cli.running import FILE, Running, default_data_dir, nothing_runs, told

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


def test_a_network_of_ones_own_is_found_by_who_joins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SCORESERVE_DEFAULT_MODEL", "SCORESERVE_DEVICE", "SCORESERVE_EXECUTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCORESERVE_NETWORKS", "my_net:Net")
    monkeypatch.setenv("SCORESERVE_MODELS_DIR", "my-models")
    monkeypatch.setenv("PYTHONPATH", f"nets{os.pathsep}/abs")
    settings = told()
    assert settings == {
        "SCORESERVE_NETWORKS": "my_net:Net",
        "SCORESERVE_MODELS_DIR": str(tmp_path / "my-models"),  # which who joins from elsewhere finds, too
        "PYTHONPATH": f"{tmp_path / 'nets'}{os.pathsep}/abs",
    }
    running = Running(17, "", "unix:///q", settings)
    monkeypatch.setattr(sys, "path", ["/abs"])
    running.share()
    assert sys.path == ["/abs"], "the environment decides"
    for name in settings:
        monkeypatch.setenv(name, "")
    running.share()
    assert os.environ["SCORESERVE_NETWORKS"] == "my_net:Net"
    assert sys.path == ["/abs", str(tmp_path / "nets")]
    assert running.options == {"redis_url": "unix:///q", "models_dir": str(tmp_path / "my-models")}


def test_what_another_user_wrote_is_not_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    held = RUNNING.write_down(tmp_path)
    assert held is not None
    if os.getuid() == 0:
        os.fchown(held, 12345, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert Running.find(tmp_path) is None
    os.close(held)


def test_where_was_looked_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert str(tmp_path) in nothing_runs(tmp_path)
    monkeypatch.setenv("SCORESERVE_DATA_DIR", "/data/of/it")
    assert "/data/of/it" in nothing_runs(None)
    held = RUNNING.write_down(tmp_path)
    monkeypatch.setenv("SCORESERVE_DATA_DIR", str(tmp_path))
    assert Running.find() == RUNNING
    assert held is not None
    os.close(held)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": 1, "colour": "red"}'])
def test_what_cannot_be_read_is_nothing(tmp_path: Path, text: str) -> None:
    held = RUNNING.write_down(tmp_path)
    assert held is not None
    (tmp_path / FILE).write_text(text)
    assert Running.find(tmp_path) is None
    os.close(held)


def test_nobody_has_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCORESERVE_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_data_dir() == Path("/state/scoreserve")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(OSError, match="no home directory"):
        default_data_dir()
    assert Running.find() is None
