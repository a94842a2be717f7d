"""EDM's checkpoints against what its code gave, read without running theirs; and every file of something else."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.card import ModelCard
from models.importing.edm import BLOCK, import_edm
from models.importing.edm_pickle import Container, Module
from models.networks.adm import ADM
from models.parametrisation import Edm, Epsilon, OverSigma
from models.plan import plan
from models.processes import VarianceExploding, VariancePreserving
from models.samplers.heun import Heun
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.sample import run
from models.score import ScoreModel
from models.store import ModelStore
from tests.models.importing.edm_files import Change, imported


@pytest.fixture(scope="session")
def model(edm_store: ModelStore, edm_card: ModelCard) -> ScoreModel:
    return ScoreModel.load(edm_store, edm_card)


def test_scores_are_those_of_the_official_code(model: ScoreModel, arrays: Any, check_images: Any) -> None:
    record = arrays("edm/edm-ncsnpp-16_io.npz")
    check_images(model.score(record["score_x"], record["score_sigma"].tolist()), record["score01"], 2e-5)
    for x, s, denoised in zip(record["x"], record["sigma"].tolist(), record["denoised"], strict=True):
        check_images(2 * model.denoise(x[None] / 2 + 0.5, s / 2) - 1, denoised[None], 2e-5)


def test_the_official_sampler_is_the_model_s_own(
    model: ScoreModel, edm_card: ModelCard, arrays: Any, follow: Any, check_images: Any
) -> None:
    record = arrays("edm/edm-ncsnpp-16_heun18.npz")
    settings, table = plan(None, edm_card)
    assert isinstance(settings, Heun)
    assert np.allclose(table.column("sigma")[::2], record["sigmas"][:-1] / 2)
    states = follow(model, table.rows, 0.5 + table.rows[0, 0] * record["latents"])
    assert len(states) == 36
    for found, expected in zip([states[0], *states[2::2], states[-1]], record["x"], strict=True):
        check_images(found, expected / 2 + 0.5, 1e-4)


def test_the_card_says_what_was_imported(edm_card: ModelCard) -> None:
    assert edm_card.image.chw == (3, 16, 16)
    assert edm_card.network.kind == "ncsnpp"
    assert edm_card.network.parametrisation == Edm(pixels=(-1, 1), data_std=0.5)
    assert (edm_card.sigma_min, edm_card.sigma_max) == (0.001, 40)
    assert edm_card.classes is None
    said = edm_card.provenance
    assert (said["family"], said["licence"]) == ("edm", "CC BY-NC-SA 4.0")
    assert said["checkpoint"] == "network-snapshot-002560.pkl"
    assert len(said["checkpoint_sha256"]) == 64
    assert said["arguments"]["augment_dim"] == 9
    assert said["parameters"] == 82_499 - 9 * 16 + 8  # no augmentation, and the frequencies, which are a buffer there


def test_an_image_has_the_same_bits_alone_and_in_company(model: ScoreModel, edm_card: ModelCard) -> None:
    _, table = plan(Heun(name="heun", levels=3), edm_card)

    def images(indices: list[int]) -> list[Tensor]:
        chains = [Chain(table, 5, index) for index in indices]
        run(Engine(model, 5), chains)
        return [chain.x for chain in chains if chain.x is not None]

    company = images([0, 1, 2, 3, 4, 5, 6])
    for index in (0, 3, 6):
        (alone,) = images([index])
        assert torch.equal(alone, company[index])


# Files that are written as EDM writes them, of other content.


def test_what_is_written_as_edm_does_is_read_again(edm_card: ModelCard, write_edm: Any, tmp_path: Path) -> None:
    assert imported(write_edm(), tmp_path)[0].weights_sha256 == edm_card.weights_sha256


def kind(name: str) -> Change:
    def change(content: dict[str, Any]) -> None:
        content["ema"] = Module(name, content["ema"].state)

    return change


def test_vp_preconditioning(write_edm: Any, tmp_path: Path, arrays: Any, check_images: Any, model: ScoreModel) -> None:
    card, vp = imported(write_edm(whole=kind("VPPrecond")), tmp_path)
    process = VariancePreserving(beta_min=0.1, beta_max=20, times=999)
    assert card.network.parametrisation == Epsilon(pixels=(-1, 1), process=process)
    x, sigma = arrays("edm/edm-ncsnpp-16_io.npz")["score_x"][:1], 0.7
    s = 2 * sigma
    t = (math.sqrt(0.1**2 + 2 * 19.9 * math.log1p(s**2)) - 0.1) / 19.9
    condition = model.network.condition(torch.tensor([999 * t], dtype=torch.float32))  # type: ignore[operator]
    output = model.network((2 * x - 1) / math.sqrt(1 + s**2), condition)
    check_images(vp.score(x, sigma), -output / sigma, 1e-5)


def test_ve_preconditioning(write_edm: Any, tmp_path: Path, arrays: Any, check_images: Any, model: ScoreModel) -> None:
    card, ve = imported(write_edm(whole=kind("VEPrecond")), tmp_path)
    assert card.network.parametrisation == OverSigma(pixels=(-1, 1), process=VarianceExploding(per=2))
    assert (card.sigma_min, card.sigma_max) == (0.01, 50)
    x, sigma = arrays("edm/edm-ncsnpp-16_io.npz")["score_x"][:1], 0.7
    condition = model.network.condition(torch.tensor([math.log(sigma)]))  # type: ignore[operator]
    check_images(ve.score(x, sigma), model.network(2 * x - 1, condition) / sigma, 1e-5)


@pytest.mark.parametrize("dropout", [0, 0.1])
def test_classes(write_edm: Any, tmp_path: Path, dropout: float) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(16, 3), torch.randn(16)

    def with_classes(state: dict[str, Any]) -> None:
        state["_modules"]["map_label"] = Module("Linear", {"_parameters": {"weight": weight, "bias": bias}})

    def told(state: dict[str, Any]) -> None:
        state["_init_kwargs"].update(label_dim=3, label_dropout=dropout)
        state["_modules"]["model"].state["_init_kwargs"].update(label_dim=3, label_dropout=dropout)

    card, model = imported(write_edm(told, with_classes), tmp_path)
    assert card.classes == ("0", "1", "2")
    assert card.needs_label == (dropout == 0)
    rows = model.network.embed_class.weight  # type: ignore[union-attr]
    for label in range(3):
        one_hot = math.sqrt(3) * torch.eye(3)[label]
        assert torch.allclose(rows[label], weight @ one_hot + bias)  # type: ignore[index]
    assert torch.equal(rows[3], bias)  # type: ignore[index]


def dhariwal(network: ADM, classes: int) -> Module:
    """A network as EDM writes its DhariwalUNet."""

    def of(tensors: dict[str, Tensor]) -> Module:
        return Module("Any", {"_parameters": tensors})

    def holding(modules: dict[str, Module], made: Module) -> Module:
        made.state = {"_modules": modules}
        return made

    names = {ours: theirs for theirs, ours in BLOCK.items()}
    state = network.state_dict()

    def block(prefix: str) -> Module:
        layers: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            layer, _, last = name.removeprefix(f"{prefix}.").rpartition(".")
            if name.startswith(f"{prefix}.") and layer in names:
                parts = 3 if layer == "attention.qkv" else 1
                sorted_ = tensor.reshape(parts, -1, *tensor.shape[1:]).transpose(0, 1).flatten(0, 1)
                layers.setdefault(names[layer], {})[last] = sorted_
        return holding({name: of(tensors) for name, tensors in layers.items()}, Module("UNetBlock", {}))

    def plain(prefix: str) -> Module:
        return of({last: state[f"{prefix}.{last}"] for last in ("weight", "bias")})

    down = ["16x16_block0", "8x8_down", "8x8_block0"]
    up = ["8x8_block0", "8x8_block1", "16x16_up", "16x16_block0", "16x16_block1"]
    encoder = {"16x16_conv": plain("conv_in")} | {name: block(f"down.{i}") for i, name in enumerate(down)}
    decoder = {f"8x8_in{i}": block(f"middle.{i}") for i in range(2)}
    decoder |= {name: block(f"up.{i}") for i, name in enumerate(up)}
    modules = {
        "map_noise": Module("PositionalEmbedding", {}),
        "map_augment": of({"weight": torch.zeros(64, 9)}),
        "map_layer0": plain("embed.0"),
        "map_layer1": plain("embed.2"),
        "map_label": of({"weight": state["embed_class.weight"].T}),
        "enc": holding(encoder, Container()),
        "dec": holding(decoder, Container()),
        "out_norm": plain("norm_out"),
        "out_conv": plain("conv_out"),
    }
    arguments = {"model_channels": 64, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [8]}
    return Module("DhariwalUNet", {"_modules": modules, "_init_kwargs": arguments | {"label_dim": classes}})


def test_the_network_of_dhariwal_and_nichol(write_edm: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ADM(
        channels=64, multipliers=[1, 2], blocks=1, attention=[False, True], classes=5, group_channels=4
    ).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))

    def whole(content: dict[str, Any]) -> None:
        content["ema"].state["_modules"]["model"] = dhariwal(network, 5)
        content["ema"].state["_init_kwargs"].update(label_dim=5)

    card, model = imported(write_edm(whole=whole), tmp_path)
    assert card.network.kind == "adm"
    assert (card.classes, card.needs_label) == (("0", "1", "2", "3", "4"), True)
    x, level, label = torch.randn(2, 3, 16, 16), torch.tensor([0.3, -1.0]), torch.tensor([4, 1])
    with torch.inference_mode():
        expected = network(x, network.condition(level, label))
        found = model.network(x, model.network.condition(level, label))  # type: ignore[operator]
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def parameters(state: dict[str, Any], *names: str) -> dict[str, Any]:
    """The parameters of an inner module."""
    for name in names:
        state = state["_modules"][name].state
    found: dict[str, Any] = state["_parameters"]
    return found


@pytest.mark.parametrize(
    ("change", "inner", "said"),
    [
        (None, lambda s: parameters(s, "enc", "8x8_down", "conv0").pop("bias"), "down.1.conv_in.bias is missing"),
        (
            None,
            lambda s: parameters(s, "map_layer0").update(more=torch.zeros(2)),
            "embed.0.more is (2,), expected none",
        ),
        (None, lambda s: parameters(s).update(more=torch.zeros(2)), "more is (2,), expected none"),
        (
            None,
            lambda s: parameters(s, "map_layer1").update(bias=torch.zeros(31)),
            "embed.2.bias is (31,), expected (32,)",
        ),
        (None, lambda s: parameters(s, "map_layer1")["bias"].data.fill_(math.nan), "some weights are not finite"),
        (None, lambda s: parameters(s, "map_layer1").update(bias=3), "bias is no tensor"),
        (None, lambda s: s["_modules"].update(enc=3), "enc is no module"),
        (None, lambda s: parameters(s, "dec", "4x4_in0", "qkv").update(weight=torch.zeros(4, 4)), "rows of attention"),
        (lambda s: s["_init_kwargs"].update(img_channels=1), None, "expected (8, 1, 3, 3)"),
        (lambda s: s["_init_kwargs"].update(img_channels=7), None, "img_channels is 7; allowed: at most 4"),
        (lambda s: s["_init_kwargs"].pop("img_resolution"), None, "img_resolution"),
        (lambda s: s["_init_kwargs"].update(img_resolution=18), None, "cannot be halved 2 times"),
        (lambda s: s["_init_kwargs"].update(label_dim=10), None, "embed_class.weight is missing"),
        (lambda s: s["_init_kwargs"].update(sigma_data=0), None, "sigma_data is 0; allowed: above 0"),
        (lambda s: s["_modules"].pop("model"), None, "no network inside its EDMPrecond"),
        (
            None,
            lambda s: s["_init_kwargs"].update(num_blocks=2),
            "(16, 8, 3, 3), expected (8, 8, 3, 3) (150 such differences)",
        ),
        (None, lambda s: s["_init_kwargs"].update(num_blocks=10**9), "num_blocks is 1000000000; allowed: at most 64"),
        (None, lambda s: s["_init_kwargs"].update(resample_filter=[1, 1]), "is not the filter [1.0, 1.0]"),
        (
            None,
            lambda s: s["_init_kwargs"].update(encoder_type="odd"),
            "there is no encoder_type odd; allowed: standard",
        ),
    ],
)
def test_a_network_that_is_not_what_it_says(
    write_edm: Any, check_refused: Any, change: Any, inner: Any, said: str
) -> None:
    path = write_edm(change, inner)
    check_refused(lambda target: import_edm(path, target), said)


@pytest.mark.parametrize(
    ("whole", "said"),
    [
        (lambda c: c.pop("ema"), "there is no network `ema`"),
        (lambda c: c.update(ema=3), "there is no network `ema`"),
        (kind("iDDPMPrecond"), "iDDPMPrecond is not served; those are EDMPrecond, VPPrecond and VEPrecond"),
        (
            lambda c: c["ema"].state["_modules"].update(model=Module("Other", {})),
            "Other is not served; those are SongUNet",
        ),
    ],
)
def test_a_file_of_something_else(write_edm: Any, check_refused: Any, whole: Any, said: str) -> None:
    path = write_edm(whole=whole)
    check_refused(lambda target: import_edm(path, target), said)


def test_arguments_that_a_card_cannot_have_are_left_out(write_edm: Any, tmp_path: Path) -> None:
    path = write_edm(lambda state: state["_init_kwargs"].update(odd=torch.zeros(2), whole=math.inf))
    arguments = imported(path, tmp_path)[0].provenance["arguments"]
    assert "odd" not in arguments
    assert arguments["channel_mult"] == [1, 2, 2]


def test_a_name_that_is_none(edm_checkpoint: Path, check_refused: Any) -> None:
    check_refused(lambda target: import_edm(edm_checkpoint, target), "name is '../up'", "../up")


def test_a_file_that_is_not_there(tmp_path: Path, check_refused: Any) -> None:
    check_refused(lambda target: import_edm(tmp_path / "gone.pkl", target), "gone.pkl cannot be read: No such file")
