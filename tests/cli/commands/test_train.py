"""`scoreserve train`: what it says, and what becomes of it when it is stopped. tests/models/training tests the rest."""

import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app
from models.training import presets
from models.training.checkpoint import CHECKPOINT
from models.training.trainer import Trainer

ROOT = Path(__file__).parents[3]
PRESET = """
[model]
name = "dots"
sigma_min = 0.02
sigma_max = 5.0

[image]
channels = 1
height = 8
width = 8

[training]
batch = 8
epochs = {epochs}
warmup_steps = 2
execution = {{pieces = 1}}
network = {{channels = [16], blocks = [1], attention = [false], embedding = 16, groups = 4, dropout = 0.1}}
"""
STEPS = 480  # more than pass between a look at the run and a signal, on any machine
FEWER_EPOCHS = 10  # of a run that no signal is to end
PATIENCE = 600  # seconds, of a machine that has much else to do


class Run:
    """The training of a tiny network, in a process of its own."""

    def __init__(self, directory: Path, epochs: int = 30) -> None:
        self.preset, self.data, self.out = directory / "dots.toml", directory / "dots.npz", directory / "run"
        self.preset.write_text(PRESET.format(epochs=epochs))
        np.savez(self.data, np.random.default_rng(0).integers(0, 256, (128, 8, 8), dtype=np.uint8))

    def start(self) -> "subprocess.Popen[str]":
        arguments = [str(self.preset), "--data", str(self.data), "--out", str(self.out), "--save-every", "3"]
        command = [sys.executable, "-m", "cli.main", "train", *arguments]
        return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def checkpoint(self) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = torch.load(self.out / CHECKPOINT, weights_only=True)
        return state

    def has_come_to(self, step: int) -> bool:
        return (self.out / CHECKPOINT).exists() and self.checkpoint()["step"] >= step

    def losses_of_a_run_that_is_left_alone(self) -> list[float]:
        torch.set_num_threads(1)  # other tests of commands may have left another number
        images = torch.from_numpy(np.load(self.data)["arr_0"])[:, None]
        trainer = Trainer(images, presets.load(str(self.preset)).training, self.out)
        trainer.train(lambda *_: None)
        return trainer.losses

    def start_ignoring(self, *signals: signal.Signals) -> "subprocess.Popen[str]":
        """As nohup starts a program (SIGHUP), or a script one with `&` (SIGINT): with signals that are ignored."""
        before = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
        try:
            return self.start()
        finally:
            for number, action in before.items():
                signal.signal(number, action)


def train(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["train", *arguments])


def check_failed(result: Result, *said: str) -> None:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = [line for line in result.stderr.splitlines() if line.strip()]
    assert line.startswith("error: ")
    assert [words for words in said if words not in line] == [], line


def test_data_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "digits [old]"
    result = train("mnist", "--data", str(missing), "--out", str(tmp_path / "run"))
    check_failed(result, f"no data in {missing}", "expected one of", "train-images-idx3-ubyte", "CIFAR-10")
    assert not (tmp_path / "run").exists()


def test_data_that_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"words")
    result = train("mnist", "--data", str(tmp_path), "--out", str(tmp_path / "run"))
    check_failed(result, "train-images-idx3-ubyte", "not an idx file")


def test_a_preset_that_is_not_there(tmp_path: Path) -> None:
    check_failed(train("paintings", "--data", str(tmp_path), "--out", str(tmp_path / "run")), "paintings", "mnist")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--epochs", "-1", "epochs"),
        ("--batch", "0", "batch"),
        ("--decay", "stairs", "cosine"),
        ("--precision", "int4", "bfloat16"),
    ],
)
def test_a_setting_that_is_impossible(tmp_path: Path, option: str, value: str, said: str) -> None:
    check_failed(train("mnist", "--data", str(tmp_path), "--out", str(tmp_path / "run"), option, value), said)


def test_a_run_that_is_stopped_saves_and_one_that_is_killed_goes_on_from_its_checkpoint(
    tmp_path: Path, until: Callable[..., None]
) -> None:
    run = Run(tmp_path)
    with run.start() as stopped:
        until(lambda: run.has_come_to(20))
        stopped.send_signal(signal.SIGTERM)
        said = stopped.communicate(timeout=PATIENCE)[1].splitlines()
    assert stopped.returncode == 0
    step = int(run.checkpoint()["step"])
    assert 20 <= step < STEPS
    assert said[-1] == f"stopped after step {step} of {STEPS}; run the same command again to go on"

    with run.start() as killed:
        until(lambda: run.has_come_to(step + random.randrange(3, 30)))
        killed.kill()
    assert killed.returncode == -signal.SIGKILL
    assert step < int(run.checkpoint()["step"]) < STEPS

    with run.start() as resumed:
        said = resumed.communicate(timeout=PATIENCE)[1].splitlines()
    assert resumed.returncode == 0, said
    assert said[0] == f"128 images of {run.data}"
    assert said[2].startswith("continuing after step ")
    assert said[-2].startswith(f"step {STEPS}/{STEPS}  loss ")
    assert said[-2].endswith(" images/s  0:00:00 left")
    assert said[-1] == f"published dots version 1 in {run.out}/models/dots/1"
    assert run.checkpoint()["losses"].tolist() == run.losses_of_a_run_that_is_left_alone()


def test_signals_that_are_ignored_where_it_was_started_stay_ignored(tmp_path: Path, until: Callable[..., None]) -> None:
    run = Run(tmp_path, FEWER_EPOCHS)
    with run.start_ignoring(signal.SIGINT, signal.SIGHUP, signal.SIGTERM) as started:
        until(lambda: run.has_come_to(5))
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            started.send_signal(number)
        said = started.communicate(timeout=PATIENCE)[1].splitlines()
    assert started.returncode == 0, said
    assert said[0] == f"started in the background, where Ctrl-C is ignored; `kill {started.pid}` saves and stops"
    assert said[-1] == f"published dots version 1 in {run.out}/models/dots/1"


@pytest.mark.parametrize(
    ("number", "code", "last"),
    [
        (signal.SIGINT, 130, "stopped; run the same command again to go on"),
        (signal.SIGHUP, 0, "stopped after step"),
    ],
)
def test_a_run_saves_when_its_terminal_ends_or_ctrl_c_is_pressed(
    tmp_path: Path, until: Callable[..., None], number: signal.Signals, code: int, last: str
) -> None:
    run = Run(tmp_path)
    with run.start() as started:
        until(lambda: run.has_come_to(5))
        started.send_signal(number)
        said = started.communicate(timeout=PATIENCE)[1].splitlines()
    assert started.returncode == code, said
    assert said[-1].startswith(last)
    assert 5 <= int(run.checkpoint()["step"]) < STEPS
