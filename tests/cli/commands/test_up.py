"""`scoreserve up --device`: a worker for each device that is named."""

import pytest
import typer

from cli.commands.up import _workers


def test_without_a_device_there_is_one_worker_that_goes_by_its_settings() -> None:
    assert _workers(None) == _workers([]) == {"worker": {}}


def test_each_device_has_a_worker() -> None:
    assert _workers(["cuda"]) == {"worker": {"SCORESERVE_DEVICE": "cuda"}}
    assert _workers(["cuda:0", "cuda:1", "cpu"]) == {
        "worker": {"SCORESERVE_DEVICE": "cuda:0"},
        "worker 2": {"SCORESERVE_DEVICE": "cuda:1"},
        "worker 3": {"SCORESERVE_DEVICE": "cpu"},
    }


@pytest.mark.parametrize("device", ["mps", "cuda:", "cuda:x", "gpu", ""])
def test_what_no_worker_can_use_is_said_at_once(device: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(typer.Exit):
        _workers(["cpu", device])
    assert "device" in capsys.readouterr().err
