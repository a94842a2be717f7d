"""Devices that are not there."""

import re

import pytest
from typer.testing import CliRunner

from cli.main import app

COMMANDS = (
    ("train", "mnist", "--data", "x", "--out", "x"),
    ("distill", "mnist", "--out", "x"),
    ("evaluate", "mnist", "--data", "x"),
    ("study", "plane", "--out", "x"),
)


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("mps", "there is no device mps; allowed: cpu, cuda, or cuda:1 for the second GPU"),
        ("cuda:", "there is no device cuda:; allowed"),
        ("cuda:3", "torch finds no cuda:3 here; there is: cpu, cuda:0, cuda:1"),
    ],
)
def test_a_command_that_computes_says_what_there_is(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], device: str, said: str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    result = CliRunner().invoke(app, [*arguments, "--device", device])
    assert result.exit_code == 2
    assert said in " ".join(re.sub("[^\x20-\x7e]", " ", result.output).split())


def test_without_a_gpu_it_says_who_knows_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    result = CliRunner().invoke(app, [*COMMANDS[0], "--device", "cuda"])
    assert result.exit_code == 2
    told = " ".join(re.sub("[^\x20-\x7e]", " ", result.output).split())
    assert "torch finds no cuda here; there is: cpu (`scoreserve doctor` says what may be wrong)" in told
