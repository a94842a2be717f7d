"""docker/torch.sh and docker/install.sh: which index torch comes from."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CPU = "https://download.pytorch.org/whl/cpu"


def run(tmp_path: Path, *command: str, fails: bool = False, **environment: str) -> tuple[list[str], str]:
    """What a script asks of pip, a line a call, and what it says; a pip that `fails` has nothing at an --index-url."""
    pip = tmp_path / "pip"
    refuse = 'case "$*" in *--index-url*) exit 1;; esac' if fails else ""
    pip.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n{refuse}\n')
    pip.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    cleared = {name: value for name, value in os.environ.items() if name not in ("TORCH_INDEX_URL", "VARIANT")}
    done = subprocess.run(
        ["sh", *command],
        cwd=ROOT / "docker",
        env={**cleared, **environment, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    asked = tmp_path / "asked"
    return (asked.read_text().splitlines() if asked.exists() else []), done.stderr


def test_without_an_index_of_its_own_nothing_is_installed_ahead(tmp_path: Path) -> None:
    assert run(tmp_path, "torch.sh", "pip", TORCH_INDEX_URL="") == ([], "")


def test_torch_alone_comes_from_its_index(tmp_path: Path) -> None:
    (asked,), said = run(tmp_path, "torch.sh", "pip", TORCH_INDEX_URL="https://torch.example")
    assert "--no-deps" in asked
    assert asked.endswith("--index-url https://torch.example torch")
    assert not said


@pytest.mark.parametrize(
    ("environment", "index"),
    [
        ({"VARIANT": "cpu"}, CPU),
        ({"VARIANT": "cpu", "TORCH_INDEX_URL": "https://torch.example"}, "https://torch.example"),
        ({"VARIANT": "cpu", "TORCH_INDEX_URL": ""}, None),
        ({"VARIANT": "cuda"}, None),
        ({}, None),
    ],
    ids=["cpu", "named", "none", "cuda", "api"],
)
def test_an_image_takes_the_index_of_its_device(tmp_path: Path, environment: dict[str, str], index: str | None) -> None:
    asked, _ = run(tmp_path, "install.sh", ".[worker]", **environment)
    assert [line.split("--index-url ")[1].split()[0] for line in asked if "--index-url" in line] == [
        found for found in [index] if found
    ]
    assert any(line.endswith(".[worker]") for line in asked)


def test_where_the_index_does_not_answer_the_ordinary_one_is_used(tmp_path: Path) -> None:
    asked, said = run(tmp_path, "install.sh", ".[worker]", fails=True, VARIANT="cpu")
    assert any(line.endswith(".[worker]") for line in asked)
    assert f"{CPU} has no torch" in said
