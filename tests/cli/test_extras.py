"""Extras: what a command says where one is missing, and that they are those of the package."""

import re
import tomllib
from collections.abc import Callable
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

from cli.extras import EXTRAS

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    ("arguments", "missing", "wanted"),
    [
        ("up", {"torch", "redis"}, "server,worker"),
        ("api", {"fastapi"}, "server"),
        ("worker", {"torch"}, "worker"),
        ("train toy2d --out x", {"torch"}, "train"),
        ("evaluate mnist --data x", {"torch"}, "train"),
        ("keys list", {"redis"}, "queue"),
        ("republish mnist --store x", {"pydantic"}, "queue"),
        ("doctor", {"rq"}, "queue"),
        ("import ncsn x --config x --name x --store x", {"yaml"}, "worker"),
        ("study plane --out x", {"torch"}, "train"),
    ],
)
def test_a_command_says_which_extra_it_needs(
    command: Callable, failed: Callable, monkeypatch: pytest.MonkeyPatch, arguments: str, missing: set, wanted: str
) -> None:
    monkeypatch.setattr("cli.extras.find_spec", lambda name: None if name in missing else find_spec(name))
    said = f"{', '.join(sorted(missing))} not installed"
    failed(command(*arguments.split()), said, f"pip install 'scoreserve[{wanted}]'", code=2)


@pytest.mark.parametrize("extra", ["queue", "server", "worker"])
def test_an_extra_brings_what_its_commands_need(extra: str) -> None:
    distributions = packages_distributions()
    assert {_name(distributions[module][0]) for module in EXTRAS[extra]} == _required(extra)


def test_the_client_alone_brings_nothing_of_the_service() -> None:
    assert {_name(one) for one in PROJECT["dependencies"]} == {"httpx", "numpy", "pillow", "rich", "typer"}


def _required(extra: str) -> set[str]:
    names = set()
    for one in PROJECT["optional-dependencies"][extra]:
        own = re.match(r"scoreserve\[(\w+)\]", one)
        names |= _required(own[1]) if own else {_name(one)}
    return names


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")
