"""Checkpoints of score_sde_pytorch against what that code gave, and every file that is not what it should be."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.card import ModelCard
from models.importing.publishing import Target
from models.importing.reading import read_torch
from models.importing.score_sde import _by_our_names, _network, _process, import_score_sde
from models.importing.score_sde_config import PUBLISHED, Config, read_config
from models.parametrisation import Epsilon, OverSigma
from models.plan import plan
from models.processes import SubVariancePreserving, VarianceExploding
from models.samplers.ancestral import Ancestral
from models.samplers.heun import Heun
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.sample import run
from models.score import ScoreModel, build_network
from models.store import ModelStore


@pytest.fixture(scope="session")
def checkpoint(checkpoints: Path) -> Path:
    return checkpoints / "score_sde" / "ve-ncsnpp-16" / "checkpoint_7.pth"


@pytest.fixture(scope="session")
def config(checkpoints: Path) -> Path:
    return checkpoints / "score_sde" / "ve-ncsnpp-16" / "config.json"


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    return ModelStore(tmp_path_factory.mktemp("imported"))


@pytest.fixture(scope="session")
def card(checkpoint: Path, config: Path, store: ModelStore) -> ModelCard:
    found, path = import_score_sde(checkpoint, str(config), Target(store, "ve", licence="Apache-2.0"))
    assert path == store.path("ve")
    return found


@pytest.fixture(scope="session")
def model(store: ModelStore, card: ModelCard) -> ScoreModel:
    return ScoreModel.load(store, card)


def test_scores_are_those_of_the_official_code(model: ScoreModel, arrays: Any, check_images: Any) -> None:
    record = arrays("score_sde/ve-ncsnpp-16_io.npz")
    check_images(model.score(record["score_x"], record["score_sigma"].tolist()), record["score01"], 2e-5)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("by_sigma", [False, True])
def test_scores_are_gradients_in_our_pixels_whichever_its_own_are_and_whoever_divides_by_sigma(
    checkpoint: Path, config: Path, tmp_path: Path, model: ScoreModel, centered: bool, by_sigma: bool, check_images: Any
) -> None:
    settings = json.loads(config.read_text())
    settings["data"]["centered"], settings["model"]["scale_by_sigma"] = centered, by_sigma
    (tmp_path / "config.json").write_text(json.dumps(settings))
    target = Target(ModelStore(tmp_path / "store"), "ve")
    card, _ = import_score_sde(checkpoint, str(tmp_path / "config.json"), target)

    def theirs(x: Tensor, sigma: float) -> Tensor:
        """Their score of pixels as they were trained on, and noise in the same units: the end of NCSNpp.forward."""
        condition = model.network.condition(torch.tensor([math.log(sigma)]))  # type: ignore[operator]
        h: Tensor = model.network(x if centered else 2 * x - 1, condition.expand(len(x), -1))
        return h / sigma if by_sigma else h

    x, sigma = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0)), 0.3
    expected = 2 * theirs(2 * x - 1, 2 * sigma) if centered else theirs(x, sigma)
    check_images(ScoreModel.load(target.store, card).score(x, sigma), expected, 2e-5)


def test_the_weights_of_the_last_step_can_be_had(
    checkpoint: Path, config: Path, tmp_path: Path, card: ModelCard, arrays: Any, check_images: Any
) -> None:
    store = ModelStore(tmp_path)
    raw, _ = import_score_sde(checkpoint, str(config), Target(store, "raw"), raw=True)
    record = arrays("score_sde/ve-ncsnpp-16_io.npz")
    which = record["raw_of_images"]
    found = ScoreModel.load(store, raw).score(record["x"][which], record["sigma_or_std"][which].tolist())
    check_images(found, record["model_output_raw"], 2e-5)
    assert raw.provenance["weights"] == "of the last step, float32"
    assert card.provenance["weights"] == "exponential moving average, float32"


def test_the_official_samplers_are_followed_step_by_step(
    model: ScoreModel, arrays: Any, follow: Any, check_images: Any
) -> None:
    """The reverse-diffusion predictor of the probability flow, and the ancestral one, with its noise."""
    trace = arrays("score_sde/ve-ncsnpp-16_trace.npz")
    levels = trace["sigmas_discrete"][trace["t_index"]].tolist()
    assert np.allclose(levels, trace["sigmas_of_network"], rtol=1e-4)  # their times are in single precision
    steps = zip(levels, [*levels[1:], 0.0], strict=True)
    flow = [(high, (high**2 - low**2) / 2, 0.0, 0.0) for high, low in steps]
    for found, expected in zip(follow(model, flow, trace["flow"][0]), trace["flow"], strict=True):
        check_images(found, expected, 1e-4)
    rows = Ancestral.table(levels).rows
    states = follow(model, rows, trace["ancestral"][0], trace["ancestral_noise"])
    for found, expected in zip(states, trace["ancestral"], strict=True):
        check_images(found, expected, 1e-4)


def test_the_card_says_what_was_imported(card: ModelCard) -> None:
    assert card.image.chw == (3, 16, 16)
    assert card.network.parametrisation == OverSigma(pixels=(-1, 1), process=VarianceExploding(per=2))
    assert (card.sigma_min, card.sigma_max) == (0.01, 50)
    said = card.provenance
    assert (said["family"], said["licence"], said["checkpoint"]) == ("score_sde", "Apache-2.0", "checkpoint_7.pth")
    assert said["steps"] == 350_001
    assert said["config"]["optim"]["warmup"] == 5000
    assert said["parameters"] == 48_763


def test_an_image_has_the_same_bits_alone_and_in_company(model: ScoreModel, card: ModelCard) -> None:
    _, table = plan(Heun(name="heun", levels=3), card)

    def images(indices: list[int]) -> list[Tensor]:
        chains = [Chain(table, 5, index) for index in indices]
        run(Engine(model, 5), chains)
        return [chain.x for chain in chains if chain.x is not None]

    company = images([0, 1, 2, 3, 4, 5, 6])
    for index in (0, 3, 6):
        (alone,) = images([index])
        assert torch.equal(alone, company[index])


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_published_configuration_is_of_a_network_that_there_is(name: str) -> None:
    config = read_config(f"configs/{name}.py")
    assert config == read_config(name)
    parametrisation, (low, high), _ = _process(config)
    assert 0 < low < high
    known = parametrisation.range
    assert known[0] <= low * (1 + 1e-6)
    assert high <= known[1] * (1 + 1e-6)
    with torch.device("meta"):
        network = build_network(_network(config, parametrisation))
    assert sum(p.numel() for p in network.parameters()) > 10**7


@pytest.mark.parametrize(("sde", "label"), [("vpsde", 999.0), ("subvpsde", 999.0)])
def test_at_the_largest_level_the_time_is_the_last(sde: str, label: float) -> None:
    config = read_config("vp/cifar10_ddpmpp_continuous")
    config = config.model_copy(update={"training": config.training.model_copy(update={"sde": sde})})
    parametrisation, (_, high), _ = _process(config)
    assert parametrisation.factors(high).c_noise == pytest.approx(label)


def test_whole_times_alone(tmp_path: Path) -> None:
    parametrisation, (low, high), _ = _process(read_config("vp/cifar10_ddpmpp"))
    assert parametrisation.factors(low).c_noise == pytest.approx(0)
    assert parametrisation.factors(high).c_noise == pytest.approx(999)
    assert 2 * low == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)), rel=1e-3)


def synthetic(name: str, tmp_path: Path, **changes: Any) -> tuple[Path, Path, dict[str, Tensor]]:
    """A checkpoint of a small network of a published configuration, its configuration, and its weights by our names."""
    content = json.loads(json.dumps(PUBLISHED[name]))
    content["data"]["image_size"] = 16
    content["model"].update(nf=8, ch_mult=[1, 2], num_res_blocks=1, attn_resolutions=[8], **changes)
    config = Config.model_validate(content)
    torch.manual_seed(0)
    parametrisation = _process(config)[0]
    ours = {k: torch.randn_like(v) for k, v in build_network(_network(config, parametrisation)).state_dict().items()}
    theirs: dict[str, Tensor] = {}
    slots: dict[str, Tensor] = {}
    for number in range(200):  # find the place of each by asking where each of theirs would go
        for layer in PLACES:
            probe = torch.zeros(1)
            found = _by_our_names({f"all_modules.{number}.{layer}": probe}, config.model, 16)
            (place,) = found or {"": None}
            if place in ours:
                slots[f"all_modules.{number}.{layer}"] = ours[place]
    for name_, tensor in slots.items():
        if ".NIN_0." in name_ and tensor.shape[0] % 3 == 0:
            for i, part in enumerate(tensor.chunk(3)):
                theirs[name_.replace("NIN_0", f"NIN_{i}")] = part[:, :, 0, 0].T if part.ndim == 4 else part
        elif ".NIN_3.W" in name_:
            theirs[name_] = tensor[:, :, 0, 0].T
        else:
            theirs[name_] = tensor
    average = [value for key, value in theirs.items() if not key.endswith("all_modules.0.W")]
    checkpoint, path = tmp_path / "checkpoint.pth", tmp_path / "config.json"
    torch.save({"model": {f"module.{k}": v for k, v in theirs.items()}, "ema": {"shadow_params": average}}, checkpoint)
    path.write_text(json.dumps(content))
    return checkpoint, path, ours


PLACES = [
    f"{layer}.{last}"
    for layer in ("GroupNorm_0", "GroupNorm_1", "Conv_0", "Conv_1", "Conv_2", "Dense_0", "Conv2d_0")
    for last in ("weight", "bias")
]
PLACES += ["weight", "bias", "W", *(f"NIN_{i}.{last}" for i in (0, 3) for last in ("W", "b"))]


@pytest.mark.parametrize(
    "name", ["subvp/cifar10_ddpmpp_continuous", "ve/bedroom_ncsnpp_continuous", "vp/cifar10_ncsnpp"]
)
def test_every_weight_of_the_other_networks_has_its_place(name: str, tmp_path: Path) -> None:
    checkpoint, config, ours = synthetic(name, tmp_path)
    store = ModelStore(tmp_path / "store")
    card, _ = import_score_sde(checkpoint, str(config), Target(store, "model"))
    state = ScoreModel.load(store, card).network.state_dict()
    assert state.keys() == ours.keys()
    assert all(torch.equal(state[key], value) for key, value in ours.items())
    if name.startswith("subvp"):
        assert card.network.parametrisation == Epsilon(pixels=(-1, 1), process=SubVariancePreserving())


def test_a_checkpoint_that_is_cut_anywhere(checkpoint: Path, config: Path, tmp_path: Path, check_refused: Any) -> None:
    path, whole = tmp_path / "cut.pth", checkpoint.read_bytes()
    for size in {0, 1, 20, len(whole) - 1, *range(100, len(whole), len(whole) // 50)}:
        path.write_bytes(whole[:size])
        check_refused(lambda target: import_score_sde(path, str(config), target), f"{path} cannot be read")


@pytest.fixture
def change(checkpoint: Path, tmp_path: Path) -> Callable[..., Path]:
    def changed(how: Callable[[dict[str, Any]], Any]) -> Path:
        content, _ = read_torch(checkpoint)
        how(content)
        torch.save(content, tmp_path / "changed.pth")
        return tmp_path / "changed.pth"

    return changed


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda c: c.pop("ema"), "no averaged weights: ask for those of the last step (--raw)"),
        (lambda c: c.update(ema={}), "no averaged weights: ask for those of the last step (--raw)"),
        (lambda c: c.pop("model"), "no checkpoint of score_sde_pytorch"),
        (lambda c: c["ema"]["shadow_params"].pop(), "155 averages of 156 weights"),
        (lambda c: c["ema"]["shadow_params"].reverse(), "is not shaped as it"),
        (lambda c: c["ema"]["shadow_params"].__setitem__(3, 1.0), "is not shaped as it"),
        (lambda c: c["ema"]["shadow_params"][3].fill_(math.nan), "some weights are not finite"),
        (lambda c: c["model"].update(more=torch.zeros(3)), "156 averages of 157 weights"),
        (
            lambda c: c["model"].update({"module.sigmas": torch.ones(1000)}),
            "its noise levels (sigmas) are not the 1000",
        ),
        (lambda c: c["model"].update({"module.sigmas": torch.ones(3)}), "its noise levels (sigmas) are not the 1000"),
        (lambda c: c["model"].update({"module.all_modules.3.bias": "a"}), "all_modules.3.bias is no tensor"),
    ],
)
def test_a_file_of_something_else(change: Any, config: Path, check_refused: Any, how: Any, said: str) -> None:
    path = change(how)
    check_refused(lambda target: import_score_sde(path, str(config), target), said)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            lambda s: s.pop("module.all_modules.8.NIN_1.W"),
            "down.2.attention.qkv.weight is (32, 16, 1, 1), expected (48",
        ),
        (lambda s: s.update({"module.all_modules.8.NIN_1.W": torch.zeros(3, 4)}), "qkv.weight is missing"),
        (lambda s: s.pop("module.all_modules.6.Conv2d_0.bias"), "pictures.0.conv.bias is missing"),
        (
            lambda s: s.update({"module.all_modules.6.more": torch.zeros(1)}),
            "all_modules.6.more is (1,), expected none",
        ),
        (lambda s: s.update({"module.all_modules.99.bias": torch.zeros(1)}), "99.bias is (1,), expected none"),
        (lambda s: s.update({"module.all_modules.3.bias": torch.zeros(9)}), "conv_in.bias is (9,), expected (8,)"),
    ],
)
def test_weights_that_do_not_fit(change: Any, config: Path, check_refused: Any, how: Any, said: str) -> None:
    path = change(lambda content: how(content["model"]))
    check_refused(lambda target: import_score_sde(path, str(config), target, raw=True), said)


@pytest.mark.parametrize(
    ("section", "settings", "said"),
    [
        ("model", {"nf": 16}, "frequencies is (8,), expected (16,)"),
        ("model", {"name": "ddpm"}, "model: there is no name ddpm; allowed: ncsnpp"),
        ("model", {"resblock_type": "ddpm"}, "model: there is no resblock_type ddpm; allowed: biggan"),
        ("model", {"progressive": "residual"}, "model: there is no progressive residual; allowed: none or output_skip"),
        ("model", {"embedding_type": "positional"}, "vesde is served with embedding_type fourier alone"),
        ("model", {"fir": False}, "progressive_input residual is served with fir alone"),
        ("model", {"fir_kernel": [1, 2, 1]}, "a filter must be symmetric"),
        ("model", {"sigma_max": 51}, "its noise levels (sigmas) are not the 1000 from 51 to 0.01"),
        ("model", {"num_res_blocks": 10**9}, "model: num_res_blocks is 1000000000; 1 to 64 are allowed"),
        ("model", {"ch_mult": [1, 2, 2, 2, 2, 2]}, "cannot be halved 5 times"),
        ("training", {"continuous": False}, "vesde with training.continuous false is not served"),
        ("training", {"sde": "vpsde"}, "vpsde is served with embedding_type positional"),
        ("data", {"num_channels": 1}, "conv_in.weight is (8, 3, 3, 3), expected (8, 1, 3, 3)"),
        ("data", {"image_size": None}, "data: image_size is null; allowed: a whole number"),
    ],
)
def test_a_configuration_that_does_not_fit(
    checkpoint: Path, config: Path, tmp_path: Path, check_refused: Any, section: str, settings: Any, said: str
) -> None:
    content = json.loads(config.read_text())
    content[section].update(settings)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(content))
    check_refused(lambda target: import_score_sde(checkpoint, str(path), target), said)


def test_without_averages_the_weights_of_the_last_step_can_be_had(change: Any, config: Path, tmp_path: Path) -> None:
    path = change(lambda content: content.pop("ema"))
    store = ModelStore(tmp_path / "store")
    import_score_sde(path, str(config), Target(store, "raw"), raw=True)
    assert store.names() == ["raw"]
