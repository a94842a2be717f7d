"""The children of `scoreserve up`: started, watched, stopped without a rest."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer

import pytest

from cli.processes import ProcessEnded, Processes, ours

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

MODULES = {
    "sleeper": "import time; time.sleep(60)",
    "stubborn": """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
""",
    "counter": """
import os, pathlib, sys
path = pathlib.Path(sys.argv[1])
path.write_text((path.read_text() if path.exists() else "") + os.environ["MARK"])
sys.exit(3)
""",
    "parent": """
import sys, time
from cli.processes import Processes
processes = Processes()
processes.start("child", [sys.executable, "-m", "sleeper"], {})
print(processes._children["child"].pid, flush=True)
time.sleep(60)
""",
    "holder": """
import pathlib, sys
from cli.processes import Processes
print(Processes().lock(pathlib.Path(sys.argv[1])))
""",
}


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that children can run."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    monkeypatch.setattr("cli.processes.RESTART_SECONDS", 0.05)


@pytest.fixture
def processes() -> Iterator[Processes]:
    made = Processes()
    yield made
    made.stop(list(made._children), 0)
    for descriptor in made._locks:
        os.close(descriptor)


def python(*module: str) -> list[str]:
    return [sys.executable, "-P", "-m", *module]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_children_are_stopped(processes: Processes) -> None:
    for name in ("one", "two"):
        processes.start(name, python("sleeper"), {})
    children = list(processes._children.values())
    assert all(alive(child.pid) for child in children)
    assert all(os.getsid(child.pid) == child.pid for child in children), "Ctrl-C must not reach them"
    processes.stop(["one", "two", "never started"], 20)
    assert [child.returncode for child in children] == [-signal.SIGTERM] * 2


def test_a_child_that_will_not_stop_is_killed(processes: Processes, tmp_path: Path, until: Callable[..., None]) -> None:
    processes.start("stubborn", python("stubborn", str(tmp_path / "up")), {})
    child = processes._children["stubborn"]
    processes.wait((tmp_path / "up").exists, 30, [])
    begun = time.monotonic()
    processes.stop(["stubborn"], 0.3)
    assert time.monotonic() - begun >= 0.3
    assert child.returncode == -signal.SIGKILL


def test_a_child_that_ended_is_started_again_as_it_was(
    processes: Processes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "count"
    stop: list[int] = []
    processes.start("worker", python("counter", str(path)), {"MARK": "x"})
    timer = Timer(0.1, lambda: _when(lambda: path.exists() and len(path.read_text()) >= 3, stop))
    timer.start()
    processes.watch(stop, restart=("worker",))
    timer.join()
    assert set(path.read_text()) == {"x"}
    assert "worker ended with code 3; starting it again" in capsys.readouterr().err


def test_a_child_that_must_not_end_ends_the_watch(processes: Processes, tmp_path: Path) -> None:
    processes.start("sleeper", python("sleeper"), {})
    processes.start("api", python("counter", str(tmp_path / "count")), {"MARK": "x"})
    with pytest.raises(ProcessEnded, match="api ended with code 3"):
        processes.watch([], restart=("worker",))
    with pytest.raises(ProcessEnded, match="api ended with code 3"):
        processes.wait(lambda: False, 30, [])


def test_waiting_ends_in_time(processes: Processes) -> None:
    processes.start("sleeper", python("sleeper"), {})
    with pytest.raises(ProcessEnded, match="sleeper: not ready after 0 seconds"):
        processes.wait(lambda: False, 0.3, [])
    processes.wait(lambda: False, 30, [signal.SIGTERM])
    processes.wait(lambda: True, 0, [])


def test_a_killed_parent_takes_its_children_along(until: Callable[..., None]) -> None:
    parent = subprocess.Popen([sys.executable, "-m", "parent"], stdout=subprocess.PIPE)
    with parent:
        child = int(parent.stdout.readline()) if parent.stdout else 0
        assert alive(child)
        parent.kill()
    until(lambda: not alive(child))


def test_a_lock_is_held_by_one_process(processes: Processes, tmp_path: Path) -> None:
    path = tmp_path / "lock"

    def other() -> str:
        command = [sys.executable, "-m", "holder", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert other().isdecimal(), "it is free, and free again when its holder has ended"
    assert processes.lock(path) is not None
    assert other() == "None"


def _when(condition: Callable[[], bool], stop: list[int]) -> None:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    stop.append(signal.SIGTERM)


@pytest.mark.parametrize("on_the_path", [False, True])
def test_what_lies_in_the_current_directory_or_on_the_path_is_no_module_of_ours(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_the_path: bool
) -> None:
    directory, marker = tmp_path / "elsewhere", tmp_path / "run"
    for name in ("cli/__init__", "cli/main", "worker", "models/__init__", "service", "scoreserve/__init__"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / f"{name}.py").write_text(f"open({str(marker)!r}, 'w')\nraise SystemExit(99)")
    if not on_the_path:
        for name in ("random", "sitecustomize"):
            (directory / f"{name}.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.chdir(directory)
    monkeypatch.setenv("PYTHONPATH", str(directory) if on_the_path else "")
    processes.start("version", ours("--version"), {})
    processes.start("worker", ours("worker", "--redis-url", f"unix://{tmp_path}/none"), {})
    processes.start("api", ours("api", "--redis-url", "nothing://"), {})
    assert processes._children["version"].wait(60) == 0
    for name in ("worker", "api"):
        assert processes._children[name].wait(60) not in (0, 99)
    assert not marker.exists()


def test_the_clients_modules_have_no_names_of_their_own_in_a_child(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file is run by its path, what lies beside it, as events.py, would come before all others of the name."""
    told = tmp_path / "told"
    (tmp_path / "sitecustomize.py").write_text(f"import sys; open({str(told)!r}, 'w').write(str(sys.flags.safe_path))")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    processes.start("version", ours("--version"), {})
    assert processes._children["version"].wait(60) == 0
    assert told.read_text() == "True"
