"""`scoreserve import`: what it says. Importing itself is tested in tests/models/importing."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app

OFFICIAL = Path(__file__).parents[2] / "data" / "official"
V2, V2_CONFIG = str(OFFICIAL / "v2_cifar10_mini.pth"), str(OFFICIAL / "v2_cifar10_mini_config.yml")

CHECKPOINTS = Path(__file__).parents[2] / "data" / "checkpoints"
EDM = str(CHECKPOINTS / "edm" / "edm-ncsnpp-16" / "network-snapshot-002560.pkl")
SCORE_SDE = str(CHECKPOINTS / "score_sde" / "ve-ncsnpp-16" / "checkpoint_7.pth")
ADM = str(CHECKPOINTS / "guided_diffusion" / "adm-cond-32" / "ema_0.9999_250000.pt")
ADM_FLAGS = str(CHECKPOINTS / "guided_diffusion" / "adm-cond-32" / "flags.json")
DIFFUSERS = str(CHECKPOINTS / "diffusers" / "ddim-v-cond-28")
SCORE_SDE_CONFIG = str(CHECKPOINTS / "score_sde" / "ve-ncsnpp-16" / "config.json")


def ncsn(*arguments: str, store: Path | None = None) -> Result:
    environment = {"COLUMNS": "300", "SCORESERVE_MODELS_DIR": str(store) if store else None}
    return CliRunner(env=environment).invoke(app, ["import", "ncsn", *arguments])


def test_a_checkpoint_becomes_a_model_of_the_store_that_is_served(tmp_path: Path) -> None:
    result = ncsn(V2, "--config", V2_CONFIG, "--name", "ncsn-cifar10", store=tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stderr == f"published ncsn-cifar10 version 1 in {tmp_path / 'ncsn-cifar10' / '1'}\n"
    card = json.loads((tmp_path / "ncsn-cifar10" / "1" / "card.json").read_text())
    assert card["provenance"]["weights"].startswith("exponential moving average")


def test_raw_weights_into_another_store(tmp_path: Path) -> None:
    result = ncsn(V2, "--config", V2_CONFIG, "--name", "ncsn-cifar10", "--raw", "--store", str(tmp_path / "other"))
    assert result.exit_code == 0, result.output
    card = json.loads((tmp_path / "other" / "ncsn-cifar10" / "1" / "card.json").read_text())
    assert card["provenance"]["weights"].startswith("of the last step")


def test_a_refusal_is_one_line(tmp_path: Path) -> None:
    result = ncsn(V2_CONFIG, "--config", V2_CONFIG, "--name", "ncsn-cifar10", store=tmp_path)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    (line,) = [line for line in result.stderr.splitlines() if line.strip()]
    assert line.startswith(f"error: {V2_CONFIG} cannot be read")
    assert not list(tmp_path.iterdir())


def test_without_a_store_it_says_how_to_name_one() -> None:
    result = ncsn(V2, "--config", V2_CONFIG, "--name", "ncsn-cifar10")
    assert result.exit_code == 2
    assert "--store" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("edm", EDM),
        ("score_sde", SCORE_SDE, "--config", SCORE_SDE_CONFIG, "--raw"),
        ("guided-diffusion", ADM, "--flags", ADM_FLAGS),
        pytest.param(
            ("diffusers", DIFFUSERS),
            marks=pytest.mark.skipif(find_spec("diffusers") is None, reason="the extra diffusers is not installed"),
        ),
    ],
    ids=lambda a: a[0],
)
def test_checkpoints_of_other_families(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    environment = {"COLUMNS": "300", "SCORESERVE_MODELS_DIR": str(tmp_path)}
    command = ["import", *arguments, "--name", "model", "--licence", "mine"]
    result = CliRunner(env=environment).invoke(app, command)
    assert result.exit_code == 0, result.output
    card = json.loads((tmp_path / "model" / "1" / "card.json").read_text())
    family = arguments[0].replace("-", "_")
    assert (card["provenance"]["family"], card["provenance"]["licence"]) == (family, "mine")
    again = CliRunner(env=environment).invoke(app, ["import", *arguments, "--name", "Model!"])
    assert again.exit_code == 1
    assert again.stderr.startswith("error: name is 'Model!'")
    assert len(again.stderr.strip().splitlines()) == 1


NETWORK = """
from torch import nn


class Net(nn.Module):
    def __init__(self, classes=0):
        super().__init__()
        self.scale = nn.Parameter(__import__("torch").ones(1 + classes))

    def forward(self, x, sigma, label=None):
        return self.scale[0] * x
"""
SHAPE = ("--image", "1x8x6", "--predicts", "denoised", "--sigma", "0.02", "20", "--range", "-1,1")


def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str, classes: int = 0) -> Result:
    """Runs `import module my_own_network:Net` or another subcommand."""
    (tmp_path / "my_own_network.py").write_text(NETWORK)
    torch.save({"ema": {"scale": torch.ones(1 + classes)}, "step": 1}, tmp_path / "weights.pt")
    monkeypatch.syspath_prepend(tmp_path)
    environment = {"COLUMNS": "300", "SCORESERVE_MODELS_DIR": str(tmp_path / "store")}
    return CliRunner(env=environment).invoke(app, ["import", *arguments, "--name", "mine"])


def module(tmp_path: Path, *arguments: str) -> tuple[str, ...]:
    return "module", "my_own_network:Net", str(tmp_path / "weights.pt"), "--key", "ema", *SHAPE, *arguments


def test_a_network_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = imported(tmp_path, monkeypatch, *module(tmp_path, "--mean", "-0.5"))
    assert result.exit_code == 0, result.output
    published, told = result.stderr.splitlines()
    assert published.startswith("published mine version 1 in")
    assert "SCORESERVE_NETWORKS=my_own_network:Net" in told
    card = json.loads((tmp_path / "store" / "mine" / "1" / "card.json").read_text())
    assert card["image"] == {"channels": 1, "height": 8, "width": 6}
    assert (card["sigma_min"], card["sigma_max"], card["network"]["data_mean"]) == (0.01, 10, 0.25)


@pytest.mark.parametrize(("said", "names"), [("3", ["0", "1", "2"]), ("cat,dog,owl", ["cat", "dog", "owl"])])
def test_its_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, names: list[str]) -> None:
    more = ("--classes", said, "--needs-label", "--arguments", '{"classes": 3}')
    result = imported(tmp_path, monkeypatch, *module(tmp_path, *more), classes=3)
    assert result.exit_code == 0, result.output
    card = json.loads((tmp_path / "store" / "mine" / "1" / "card.json").read_text())
    assert (card["classes"], card["needs_label"], card["network"]["arguments"]) == (names, True, {"classes": 3})


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--image", "28x28", "error: --image 28x28: expected channels x height x width, such as 1x28x28"),
        ("--image", "1x0x8", "error: --image 1x0x8: expected"),
        ("--range", "-1", "error: --range -1: expected two numbers, the lower first, such as 0,1 or -1,1"),
        ("--range", "1,-1", "error: --range 1,-1: expected two numbers, the lower first"),
        ("--mean", "nan", "error: --mean nan: expected a finite number; leave it out where the mean is not known"),
        ("--mean", "-inf", "error: --mean -inf: expected a finite number"),
        ("--arguments", '{"classes": NaN}', "error: arguments: all numbers must be finite, since JSON has no others"),
        ("--arguments", "[1]", "error: --arguments [1]: expected a JSON object"),
        ("--arguments", '{"width": 3}', "error: my_own_network:Net does not make a network: TypeError"),
        ("--key", "model", "error: {weights} is no state dict by the key model; the keys of those in it (--key): ema"),
    ],
)
def test_what_cannot_be_meant_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str, said: str
) -> None:
    result = imported(tmp_path, monkeypatch, *module(tmp_path, f"{option}={value}"))
    assert result.exit_code == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith(said.format(weights=tmp_path / "weights.pt"))
    assert not (tmp_path / "store").exists()


def test_a_program_comes_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return x / (1 + sigma[:, None, None, None])

    n = torch.export.Dim("n", min=2)
    example = torch.rand(2, 1, 8, 6), torch.rand(2)
    program = torch.export.export(Net(), example, dynamic_shapes={"x": {0: n}, "sigma": {0: n}})
    torch.export.save(program, tmp_path / "net.pt2")
    result = imported(tmp_path, monkeypatch, "exported", str(tmp_path / "net.pt2"), *SHAPE)
    assert result.exit_code == 0, result.output
    warning, published, told = result.stderr.splitlines()
    assert warning.startswith(f"warning: {tmp_path / 'net.pt2'} is code, and is run now")
    assert published.startswith("published mine version 1")
    assert "SCORESERVE_NETWORKS=exported" in told
