"""The command as a whole: help without torch, and options that reach the settings."""

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from cli.help import EXAMPLES
from cli.main import app
from service.settings import ServiceSettings
from worker.settings import WorkerSettings

COMMANDS = (
    "up",
    "api",
    "worker",
    "train",
    "distill",
    "guide",
    "republish",
    "sample",
    "inpaint",
    "upscale",
    "colorize",
    "jobs",
    "cancel",
    "models",
    "samplers",
    "doctor",
    "import",
)


def test_help_is_quick_and_without_torch() -> None:
    code = (
        "import sys\ntry:\n    from cli.main import app\n    app(['--help'])\nfinally:\n    print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    words, _, modules = done.stdout.rpartition("[")
    assert all(f" {command} " in words for command in COMMANDS)
    extras = ("torch", "safetensors", "fastapi", "uvicorn", "pydantic", "redis", "rq")
    for heavy in (*extras, "numpy", "models", "service", "worker"):
        assert f"'{heavy}'" not in modules


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"scoreserve {version('scoreserve')}\n")


def test_without_a_command_it_says_what_one_does_first() -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0
    first = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("  scoreserve ")]
    assert first == ["up", "sample", "doctor"]


@pytest.mark.parametrize(
    ("words", "meant"), [(["sampel"], "sample"), (["sample", "--cuont", "3"], "--count"), (["keys", "creat"], "create")]
)
def test_what_does_not_exist_is_answered_with_what_may_be_meant(words: list[str], meant: str) -> None:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, words)
    assert result.exit_code == 2
    assert meant in result.stderr.partition("Error")[2]


def test_every_command_has_an_example_that_could_be_run() -> None:
    found = dict(_commands(typer.main.get_command(app), ""))
    assert found.keys() == EXAMPLES.keys()
    for name, command in found.items():
        assert EXAMPLES[name] in command.epilog
        words = shlex.split(EXAMPLES[name])
        count = len(name.split()) + 1
        assert words[:count] == ["scoreserve", *name.split()]
        command.make_context(name, words[count:], resilient_parsing=True)


def _commands(group: Any, before: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "--" in result.stdout
    assert "range>" not in result.stdout, "give it a metavar: so long a type leaves no room to say what the option does"


def test_a_port_of_metrics_that_is_taken_is_said_in_one_line(service_url: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        environment = {"SCORESERVE_REDIS_URL": service_url, "SCORESERVE_API_METRICS_PORT": port}
        result = CliRunner(env=environment).invoke(app, ["api"])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: metrics cannot be served on 127.0.0.1:{port} (Address already in use)")


def test_options_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[ServiceSettings | WorkerSettings] = []
    monkeypatch.setattr("service.app.create_app", started.append)
    monkeypatch.setattr("uvicorn.Server.run", lambda server: setattr(server, "started", True))
    monkeypatch.setattr("worker.process.run", lambda settings, _: started.append(settings))
    environment = {
        "SCORESERVE_REDIS_URL": "redis://environment:1",
        "SCORESERVE_PORT": "1234",
        "SCORESERVE_SLOTS": "3",
        "SCORESERVE_SHARD_SIZE": "7",
    }
    runner = CliRunner(env=environment)
    for arguments in (["api"], ["api", "--port", "4321", "--redis-url", "redis://option:1"]):
        assert runner.invoke(app, arguments).exit_code == 0
    for arguments in (["worker"], ["worker", "--slots", "5", "--device", "cuda:1"]):
        assert runner.invoke(app, arguments).exit_code == 0
    api, other_api, worker, other_worker = started
    assert (api.redis_url, api.port, api.shard_size) == ("redis://environment:1", 1234, 7)
    assert (other_api.redis_url, other_api.port, other_api.host) == ("redis://option:1", 4321, "127.0.0.1")
    assert (worker.slots, worker.device, worker.shard_size) == (3, "cpu", 7)
    assert (other_worker.slots, other_worker.device) == (5, "cuda:1")


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [(["api"], "SCORESERVE_MAX_BODY_BYTES", "lots"), (["worker"], "SCORESERVE_LEASE_SECONDS", "0")],
)
def test_a_setting_that_is_impossible_is_told_in_one_line(arguments: list[str], name: str, value: str) -> None:
    result = CliRunner(env={name: value, "COLUMNS": "200"}).invoke(app, arguments)
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), "an exception came through"
    assert name.lower() in result.stderr.lower() or name.removeprefix("SCORESERVE_").lower() in result.stderr


def test_a_worker_without_redis_says_so(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/none"
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["worker", "--redis-url", address])
    assert result.exit_code == 1
    assert f"error: no Redis at {address}" in result.stderr


@pytest.mark.parametrize("command", ["api", "worker", "up", "doctor", "keys list"])
def test_an_address_of_no_redis_is_told_in_one_line_and_without_its_password(command: str) -> None:
    done = CliRunner(env={"SCORESERVE_REDIS_URL": "http://me:secret@somewhere/"}).invoke(app, command.split())
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "http://me:***@somewhere/" in done.stderr
    long = CliRunner().invoke(app, command.split(), env={"SCORESERVE_REDIS_URL": f"http://me:{80 * 'x'}@somewhere/"})
    assert "xx" not in long.stderr, "though it is too long to be shown whole"
    assert "redis://" in done.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("up", "--help"), ("sample", "--help"), ("train", "--help")])
def test_help_is_told_where_the_output_is_ascii(arguments: tuple[str, ...]) -> None:
    asked = [sys.executable, "-m", "cli.main", *arguments]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    ran = subprocess.run(asked, capture_output=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr[-300:]
    assert b"Usage" in ran.stdout


@pytest.mark.parametrize("name", ["SCORESERVE_PORT", "SCORESERVE_METRICS_PORT"])
@pytest.mark.parametrize(("value", "kept"), [("tcp://10.0.0.1:8000", "None"), ("8000", "8000")])
def test_addresses_that_kubernetes_names_like_settings_are_none(name: str, value: str, kept: str) -> None:
    code = f"import cli.main, os; print(os.environ.get({name!r}))"
    environment = {**os.environ, name: value}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == kept
