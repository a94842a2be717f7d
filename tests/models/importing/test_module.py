"""Networks of one's own: what comes out is the score, and what cannot be used is refused."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from models import networks
from models.card import ImageShape
from models.importing.module import Contract, import_exported, import_module
from models.importing.publishing import Target
from models.importing.reading import ImportRefused
from models.plan import plan
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.sample import run
from models.score import ScoreModel
from models.store import BrokenModel, ModelStore

SOURCE = '''
import torch
from torch import nn


class Net(nn.Module):
    """Returns what is best for pictures N(mean, 0.5^2) in each pixel, in units of -1 to 1, shifted by its class."""

    def __init__(self, predicts, mean=0.0, classes=0):
        super().__init__()
        self.predicts = predicts
        self.mean = nn.Parameter(torch.tensor([mean]))
        self.register_buffer("steps", torch.tensor(7))
        self.shift = nn.Embedding(classes + 1, 1) if classes else None

    def forward(self, x, sigma, label=None):
        sigma = sigma[:, None, None, None]
        mean = self.mean + (0 if label is None else self.shift(label)[:, :, None, None])
        if self.predicts == "v":
            x = x * (1 + sigma**2).sqrt()
        score = (mean - x) / (0.25 + sigma**2)
        denoised, noise = x + sigma**2 * score, -sigma * score
        if self.predicts == "v":
            return (noise - sigma * denoised) / (1 + sigma**2).sqrt()
        return {"denoised": denoised, "noise": noise, "score": score}[self.predicts]


def flat(**arguments):
    class Flat(Net):
        def forward(self, x, sigma):
            return super().forward(x, sigma).flatten(1)
    return Flat(**arguments)


def fails():
    raise OSError("no disk,\\nno net")


def number():
    return 5


class Linear(Net):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.mix = nn.Linear(24, 24)

    def forward(self, x, sigma):
        return super().forward(x + self.mix(x.flatten(1)).reshape(x.shape), sigma)


def undefined(**arguments):
    class Undefined(Net):
        def forward(self, x, sigma):
            return super().forward(x, sigma) / 0
    return Undefined(**arguments)
'''
IMAGE = ImageShape(channels=2, height=4, width=3)
CONTRACT = Contract(IMAGE, "denoised", (0.02, 20.0), (-1, 1))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a module that can be imported."""
    directory = tmp_path_factory.mktemp("own")
    (directory / "networks_of_my_own.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(directory)
        yield "networks_of_my_own"


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(ModelStore(tmp_path / "store"), "own")


def saved(path: Path, content: Any = None) -> Path:
    state = {"mean": torch.tensor([0.25]), "steps": torch.tensor(7)} if content is None else content
    if path.suffix == ".safetensors":
        path.write_bytes(safetensors.torch.save(state))
    else:
        torch.save(state, path)
    return path


def expected(x: Tensor, sigma: float, mean: float = 0.25) -> Tensor:
    """The score of pictures N((mean + 1) / 2, 0.25^2), in [0, 1] units."""
    return ((mean + 1) / 2 - x) / (0.25**2 + sigma**2)


@pytest.mark.parametrize("predicts", ["denoised", "noise", "score", "v"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_it_predicts_becomes_the_score(
    own: str, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, predicts: Any, suffix: str
) -> None:
    weights = saved(tmp_path / f"weights{suffix}")
    contract = replace(CONTRACT, predicts=predicts, mean=0.25)
    card, _ = import_module(f"{own}:Net", weights, contract, target, {"predicts": predicts})
    assert (card.sigma_min, card.sigma_max, card.network.data_mean) == (0.01, 10, 0.625)
    assert card.network.kind == f"{own}:Net"
    with pytest.raises(BrokenModel, match=f"SCORESERVE_NETWORKS={own}:Net"):
        ScoreModel.load(target.store, card)
    monkeypatch.setenv(networks.SETTING, f"{own}:Net")
    model = ScoreModel.load(target.store, card)
    assert model.needs_one_width
    x = torch.rand(5, *IMAGE.chw)
    for sigma in (0.01, 0.3, 10.0):
        assert torch.allclose(model.score(x, sigma), expected(x, sigma), rtol=1e-3, atol=1e-3 / sigma)


def test_classes_are_told(own: str, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"mean": torch.zeros(1), "steps": torch.tensor(7), "shift.weight": torch.tensor([[0.5], [-0.5], [0.0]])}
    arguments = {"predicts": "denoised", "classes": 2}
    contract = replace(CONTRACT, classes=("cat", "dog"))
    card, _ = import_module(f"{own}:Net", saved(tmp_path / "w.pt", state), contract, target, arguments)
    assert card.classes == ("cat", "dog")
    assert not card.needs_label
    monkeypatch.setenv(networks.SETTING, f"{own}:Net")
    model, x = ScoreModel.load(target.store, card), torch.rand(2, *IMAGE.chw)
    for label, mean in ((0, 0.5), (1, -0.5), (None, 0.0)):
        assert torch.allclose(model.score(x, 1.0, label), expected(x, 1.0, mean), atol=1e-5)


def test_an_image_has_the_same_bits_alone_and_in_company(
    own: str, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    mix = {"mix.weight": 0.1 * torch.randn(24, 24), "mix.bias": torch.zeros(24)}
    state = {"mean": torch.tensor([0.25]), "steps": torch.tensor(7), **mix}
    weights = saved(tmp_path / "w.pt", state)
    card, _ = import_module(f"{own}:Linear", weights, CONTRACT, target, {"predicts": "denoised"})
    monkeypatch.setenv(networks.SETTING, f"{own}:Linear")
    model, (_, table) = ScoreModel.load(target.store, card), plan(None, card)

    def results(indices: range, slots: int) -> dict[int, Tensor]:
        chains = [Chain(table, 1, index) for index in indices]
        run(Engine(model, slots), chains)
        return {chain.index: chain.x for chain in chains if chain.x is not None}

    together = results(range(7), 7)
    for index in (0, 3, 6):
        assert torch.equal(results(range(index, index + 1), 1)[index], together[index])


@pytest.mark.parametrize("key", ["ema", "state.model"])
def test_the_state_dict_may_lie_deeper_and_be_wrapped(own: str, target: Target, tmp_path: Path, key: str) -> None:
    state = {"module._orig_mod.mean": torch.tensor([0.25]), "module._orig_mod.steps": torch.tensor(7)}
    weights = saved(tmp_path / "w.pt", {"ema": state, "state": {"model": state, "step": 3}, "step": 3})
    card, _ = import_module(f"{own}:Net", weights, CONTRACT, target, {"predicts": "denoised"}, key)
    assert set(safetensors.torch.load(target.store.weights(card))) == {"mean", "steps"}
    for wrong in (None, "model"):
        with pytest.raises(ImportRefused, match=r"the keys of those in it \(--key\): ema, state.model"):
            import_module(f"{own}:Net", weights, CONTRACT, target, {"predicts": "denoised"}, wrong)


def test_a_network_of_ours_and_one_with_condition_is_used_as_it_is(target: Target, tmp_path: Path) -> None:
    torch.manual_seed(0)
    arguments = {"image_channels": 2, "channels": [8], "blocks": [1], "attention": [False], "patch": 1, "groups": 4}
    network = networks.load("unet")(**arguments)
    contract = replace(CONTRACT, image=ImageShape(channels=2, height=4, width=4))
    card, _ = import_module("unet", saved(tmp_path / "w.pt", network.state_dict()), contract, target, arguments)
    assert not ScoreModel.load(target.store, card).needs_one_width


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (":Nothing", "cannot be imported (AttributeError"),
        (":fails", ":fails does not make a network: OSError: no disk, no net"),
        (":number", ":number does not make a network: AttributeError"),
        (":flat", "it returned (2, 24)"),
        (":undefined", "it returned what is not finite"),
    ],
)
def test_code_that_does_not_do_what_it_should(
    own: str, target: Target, tmp_path: Path, network: str, said: str
) -> None:
    arguments = {} if network in (":fails", ":number") else {"predicts": "denoised"}
    refused(said, lambda: import_module(own + network, saved(tmp_path / "w.pt"), CONTRACT, target, arguments), target)


def refused(said: str, run: Callable[[], Any], target: Target) -> None:
    """It is refused with one line, and nothing is written."""
    with pytest.raises(ImportRefused) as refusal:
        run()
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not target.store.directories[0].exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"mean": torch.zeros(1)}, "steps is missing, expected ()"),
        ({"mean": torch.zeros(2), "steps": torch.tensor(7)}, "mean is (2,), expected (1,)"),
        ({"mean": torch.zeros(1), "steps": torch.tensor(7), "more": torch.zeros(1)}, "more is (1,), expected none"),
        ({"mean": torch.full((1,), torch.nan), "steps": torch.tensor(7)}, "some weights are not finite"),
        ({"mean": 1.0}, "is no state dict itself; the keys of those in it (--key): none"),
        ([torch.zeros(1)], "is no state dict itself"),
    ],
    ids=range(6),
)
def test_weights_that_do_not_fit(own: str, target: Target, tmp_path: Path, content: Any, said: str) -> None:
    weights = saved(tmp_path / "w.pt", content)
    refused(said, lambda: import_module(f"{own}:Net", weights, CONTRACT, target, {"predicts": "denoised"}), target)


def test_a_key_is_for_files_that_may_hold_more_than_one_state_dict(own: str, target: Target, tmp_path: Path) -> None:
    weights = saved(tmp_path / "w.safetensors")
    said = "w.safetensors is one state dict, as safetensors are; --key is for files of torch.save: leave it out"
    refused(said, lambda: import_module(f"{own}:Net", weights, CONTRACT, target, key="ema"), target)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_that_are_cut_anywhere(own: str, target: Target, tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"w{suffix}")
    whole = path.read_bytes()
    for size in {0, 1, 20, len(whole) - 1, *range(0, len(whole), -(-len(whole) // 50))}:
        path.write_bytes(whole[:size])
        refused("it is truncated", lambda: import_module(f"{own}:Net", path, CONTRACT, target), target)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sigma": (1.0, 0.1)}, "sigma goes from above 0 up, not from 1 to 0.1"),
        ({"sigma": (0.0, 1.0)}, "sigma goes from above 0 up"),
        ({"pixels": (1, -1)}, "must be two finite numbers, the lower first"),
    ],
)
def test_a_contract_that_cannot_be(own: str, target: Target, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    weights, contract = saved(tmp_path / "w.pt"), replace(CONTRACT, **change)
    refused(said, lambda: import_module(f"{own}:Net", weights, contract, target, {"predicts": "denoised"}), target)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        out: Tensor = self.conv(x) / (1 + sigma[:, None, None, None])
        return out


def program(network: nn.Module, path: Path, fixed: bool = False) -> Path:
    n = None if fixed else torch.export.Dim("n", min=2)
    example = (torch.randn(4, *IMAGE.chw), torch.rand(4))
    shapes = None if fixed else {"x": {0: n}, "sigma": {0: n}}
    file = io.BytesIO()
    torch.export.save(torch.export.export(network, example, dynamic_shapes=shapes), file)
    path.write_bytes(file.getvalue())
    return path


def test_a_program_is_served_only_where_code_is_allowed(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Net().eval()
    card, _ = import_exported(program(network, tmp_path / "net.pt2"), CONTRACT, target)
    assert card.network.kind == "exported"
    with pytest.raises(BrokenModel, match="SCORESERVE_NETWORKS=exported"):
        ScoreModel.load(target.store, card)
    monkeypatch.setenv(networks.SETTING, "exported")
    model, x, sigma = ScoreModel.load(target.store, card), torch.rand(3, *IMAGE.chw), 0.5
    with torch.inference_mode():
        clean = (network(2 * x - 1, torch.full((3,), 2 * sigma)) + 1) / 2
    assert torch.allclose(model.denoise(x, sigma), clean, atol=1e-6)


def test_a_program_that_takes_one_number_of_images_is_refused(target: Target, tmp_path: Path) -> None:
    path = program(Net(), tmp_path / "net.pt2", fixed=True)
    refused("the network cannot be used", lambda: import_exported(path, CONTRACT, target), target)


def test_a_file_that_is_no_program_is_refused(target: Target, tmp_path: Path) -> None:
    path = program(Net(), tmp_path / "net.pt2")
    whole = path.read_bytes()
    for content in (b"", b"program", whole[: len(whole) // 2]):
        path.write_bytes(content)
        refused("the network cannot be used", lambda: import_exported(path, CONTRACT, target), target)
