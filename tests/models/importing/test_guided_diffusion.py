"""An imported ADM against the official network's own numbers, files of its other code, and what is refused."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from models.card import ModelCard
from models.importing.guided_diffusion import import_guided_diffusion, layout
from models.importing.guided_diffusion_flags import read_flags
from models.importing.publishing import Target
from models.importing.reading import ImportRefused
from models.networks.adm import ADM
from models.parametrisation import Edm, Epsilon
from models.plan import offered, plan
from models.processes import DiscreteVariancePreserving
from models.samplers.euler import Euler
from models.sampling import noise
from models.sampling.chain import Chain, initial
from models.sampling.engine import Engine
from models.sampling.sample import run
from models.score import ScoreModel
from models.store import ModelStore

DATA = Path(__file__).parents[2] / "data" / "checkpoints" / "guided_diffusion"
CHECKPOINT, FLAGS = DATA / "adm-cond-32" / "ema_0.9999_250000.pt", DATA / "adm-cond-32" / "flags.json"
SAID = (
    "--image_size 32 --num_channels 32 --num_res_blocks 1 --num_head_channels 16 --attention_resolutions 16 "
    "--channel_mult 1,1 --class_cond True --resblock_updown True --learn_sigma True --use_fp16 True"
)
# 64 channels, since of 32 each is a group of a norm of its own, which takes out what is added before it.
SMALL = "--image_size 16 --num_channels 64 --num_res_blocks 1 --num_heads 2 --channel_mult 1,1 "


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> "Imported":
    return imported(ModelStore(tmp_path_factory.mktemp("imported")), CHECKPOINT, str(FLAGS))


class Imported(NamedTuple):
    card: ModelCard
    model: ScoreModel


def imported(store: ModelStore, checkpoint: Path, flags: str) -> Imported:
    card, path = import_guided_diffusion(checkpoint, flags, Target(store, "adm", licence="MIT"))
    assert path == store.path("adm")
    assert store.card("adm", card.version) == card
    return Imported(card, ScoreModel.load(store, card))


def records(name: str) -> dict[str, Any]:
    with np.load(DATA / name) as file:
        return dict(file)


def worst(found: Tensor, expected: Any) -> float:
    """The largest difference, over the largest value."""
    expected = torch.as_tensor(expected)
    return float((found - expected).abs().max() / expected.abs().max())


def test_scores_of_each_class_are_those_of_the_official_code(found: Imported) -> None:
    io = records("adm-cond-32_io.npz")
    for x, sigma, label, score in zip(
        io["score_x"], io["score_sigma"], io["score_class_labels"], io["score01"], strict=True
    ):
        assert worst(found.model.score(torch.tensor(x)[None], sigma, int(label))[0], score) < 2e-5
        assert worst(found.model.score(torch.tensor(x)[None], sigma, (int(label) + 1) % 10)[0], score) > 1e-3


def test_ddim_is_our_euler_step_by_step(found: Imported) -> None:
    trace = records("adm-cond-32_ddim10.npz")
    alphas = trace["alphas_cumprod"]
    table = Euler.table(np.sqrt((1 - alphas) / alphas) / 2)
    pictures = torch.tensor(trace["x"] / np.sqrt([*alphas, 1.0])[:, None, None, None, None] / 2 + 0.5)
    x, label = pictures[0].float(), int(trace["class_labels"][0])
    for (sigma, drift), after in zip(table.rows[:, :2], pictures[1:], strict=True):
        x = x + drift * found.model.score(x, sigma, label)
        assert worst(x, after) < 1e-4


def test_the_card_says_what_it_is_and_where_it_comes_from(found: Imported) -> None:
    card = found.card
    assert card.classes == tuple("0123456789")
    assert card.needs_label
    assert card.image.chw == (3, 32, 32)
    assert isinstance(card.network.parametrisation, Epsilon)
    assert (card.sigma_min, card.sigma_max) == pytest.approx((0.0050003, 78.7036), rel=1e-5)
    settings, table = plan(None, card)
    assert (settings.name, len(table), table.column("sigma")[0]) == ("euler", 50, 40)
    assert card.provenance["family"] == "guided_diffusion"
    assert card.provenance["licence"] == "MIT"
    assert card.provenance["checkpoint_sha256"].startswith("cb7a2f5e")
    assert card.provenance["flags"]["num_head_channels"] == 16
    assert card.provenance["parameters"] == sum(p.numel() for p in found.model.network.parameters())
    assert len(card.model_dump_json()) < 4000


def test_an_image_has_the_same_bits_alone_and_in_company(found: Imported) -> None:
    x = torch.rand(7, 3, 32, 32)
    conditions = torch.stack([found.model.condition(0.1 * (i + 1), i) for i in range(7)])
    together = found.model.conditioned_score(x, conditions)
    for width in (1, 2, 3, 5):
        assert torch.equal(found.model.conditioned_score(x[:width], conditions[:width]), together[:width])


@pytest.mark.parametrize("form", ["a command line", "a file of one", "a file of JSON", "with equals signs"])
def test_flags_may_come_in_any_form(tmp_path: Path, found: Imported, form: str) -> None:
    said = SAID
    if form.startswith("a file"):
        said = str(tmp_path / "flags")
        content = SAID if form == "a file of one" else json.dumps(dict(pairs(SAID)))
        (tmp_path / "flags").write_text(content)
    if form == "with equals signs":
        said = " ".join(f"--{name}={value}" for name, value in pairs(SAID))
    assert read_flags(said).model_dump() == read_flags(SAID).model_dump()
    card, _ = import_guided_diffusion(CHECKPOINT, said, Target(ModelStore(tmp_path / "store"), "adm"))
    assert (card.network, card.weights_sha256) == (found.card.network, found.card.weights_sha256)


def pairs(said: str) -> list[tuple[str, str]]:
    words = said.split()
    return [(name.removeprefix("--"), value) for name, value in zip(words[::2], words[1::2], strict=True)]


def of_flags(said: str, classes: int | None = None) -> tuple[ADM, dict[str, Tensor]]:
    """A random network, and its weights as a file of these flags has them, but for the order of q, k and v."""
    flags = read_flags(said)
    torch.manual_seed(0)
    heads, by_channels = [flags.num_heads] * 2, flags.num_head_channels > 0
    network = ADM(
        channels=flags.num_channels,
        multipliers=flags.multipliers,
        blocks=flags.num_res_blocks,
        attention=flags.attention,
        heads=None if by_channels else heads,
        head_channels=flags.num_head_channels if by_channels else None,
        classes=classes,
        film=flags.use_scale_shift_norm,
        resample="blocks" if flags.resblock_updown else "convolutions",
    ).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    ours = network.state_dict()
    return network, {name: ours[w.ours].reshape(w.shape) for name, w in layout(network, flags).items()}


def by_head(file: dict[str, Tensor], heads: int) -> dict[str, Tensor]:
    """A file with the rows of its attention in the order (head, q k v, channel)."""
    return {
        name: tensor.unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2) if ".qkv." in name else tensor
        for name, tensor in file.items()
    }


@pytest.mark.parametrize("order", ["by head", "new"])
@pytest.mark.parametrize(
    "said",
    [
        SMALL + "--diffusion_steps 4000 --noise_schedule cosine --rescale_timesteps True --use_scale_shift_norm False",
        SMALL + "--predict_xstart True --rescale_timesteps False --diffusion_steps 200",
    ],
    ids=["improved-diffusion", "x0"],
)
def test_files_of_other_flags_are_the_same_network(tmp_path: Path, said: str, order: str) -> None:
    said += f" --use_new_attention_order {order == 'new'}"
    network, file = of_flags(said)
    torch.save(file if order == "new" else by_head(file, 2), tmp_path / "model.pt")
    card, model = imported(ModelStore(tmp_path / "store"), tmp_path / "model.pt", said)
    process = card.network.parametrisation.process  # type: ignore[union-attr]
    assert isinstance(process, DiscreteVariancePreserving)
    steps = len(process.levels)
    x, t = torch.rand(2, 3, 16, 16), steps // 2
    sigma, s = process.levels[t] / 2, process.levels[t]
    a = 1 / np.sqrt(1 + s**2)
    told = t * 1000 / steps if "--rescale_timesteps True" in said else t
    with torch.inference_mode():
        out = network(torch.as_tensor(a * (2 * x - 1)).float(), network.condition(torch.full((2,), float(told))))
    expected = (out / 2 + 0.5 - x) / sigma**2 if "xstart" in said else -out / sigma
    for image, score in zip(model.score(x, sigma), expected, strict=True):
        assert worst(image, score) < 2e-5


def test_a_denoiser_of_consistency_models_is_edms_with_another_label(tmp_path: Path) -> None:
    said = SMALL + "--training_mode edm --attention_resolutions 16,8 --class_cond True"
    network, file = of_flags(said, classes=5)
    assert file["middle_block.1.qkv.weight"].ndim == 4
    torch.save(file, tmp_path / "edm.pt")
    card, model = imported(ModelStore(tmp_path / "store"), tmp_path / "edm.pt", said)
    assert isinstance(card.network.parametrisation, Edm)
    assert (card.sigma_min, card.sigma_max, card.sampler.name) == (0.001, 40, "heun")
    x, s = torch.rand(2, 3, 16, 16), 1.4
    with torch.inference_mode():
        told = network.condition(torch.full((2,), 250 * np.log(s)), torch.tensor([3, 3]))
        u = 2 * x - 1
        out = network((u / np.hypot(s, 0.5)).float(), told)
        denoised = (0.25 * u + s * 0.5 * np.hypot(s, 0.5) * out) / (s**2 + 0.25)
    for image, clean in zip(model.denoise(x, s / 2, 3), denoised / 2 + 0.5, strict=True):
        assert worst(image, clean) < 2e-5


@pytest.mark.parametrize("mode", ["--training_mode consistency_distillation", "--distillation True"])
def test_a_consistency_model_is_sampled_by_its_own_few_steps(tmp_path: Path, mode: str) -> None:
    """Algorithm 1 of Song 2023 in its own units, from the same noise: f(x, s) = c_skip x + c_out F."""
    said = f"{SMALL}{mode} --attention_resolutions 8"
    network, file = of_flags(said)
    torch.save(file, tmp_path / "cd.pt")
    card, model = imported(ModelStore(tmp_path / "store"), tmp_path / "cd.pt", said)
    assert not card.denoises
    assert [sampler.known_as() for sampler in offered(card)] == ["multistep_consistency"]
    settings, table = plan(None, card)
    assert (settings.name, len(table), table.initial_std) == ("multistep_consistency", 2, 40)

    def f(u: Tensor, s: float) -> Tensor:
        past = s - 0.002
        out = network(u / np.hypot(s, 0.5), network.condition(torch.full((len(u),), 250 * np.log(s))))
        return 0.25 / (past**2 + 0.25) * u + 0.5 * past / np.hypot(s, 0.5) * out

    chains = [Chain(table, 3, index) for index in range(2)]
    start = initial(chains, card.image.chw)
    z = noise.normal([3, 3], [0, 1], [0, 0], noise.STEP, card.image.chw)
    run(Engine(model, 2), chains)
    found = torch.stack([chain.x for chain in chains if chain.x is not None])
    second = 2 * float(table.column("sigma")[1])
    with torch.inference_mode():
        clean = f(2 * start - 1, 80.0)
        clean = f(clean + np.sqrt(second**2 - 0.002**2) * z, second)
    for image, right in zip(found, clean / 2 + 0.5, strict=True):
        assert worst(image, right) < 1e-4


def refused(tmp_path: Path, said: str, checkpoint: Path = CHECKPOINT, flags: str = SAID) -> None:
    """The import is refused with one line, and nothing is written."""
    with pytest.raises(ImportRefused) as refusal:
        import_guided_diffusion(checkpoint, flags, Target(ModelStore(tmp_path / "store"), "adm"))
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("num_channels", "64", "time_embed.0.weight is (128, 32), expected (256, 64)"),
        ("num_res_blocks", "2", "such differences); give those that it was trained with"),
        ("attention_resolutions", "32", "input_blocks.1.1.norm.weight is missing"),
        ("attention_resolutions", "all", "flag attention_resolutions = 'all' is no list of numbers"),
        ("channel_mult", "1,2", "such differences"),
        ("channel_mult", "1,1,1,1,1,1,1", "image_size is 32; this network takes multiples of 64"),
        ("class_cond", "False", "has 10 classes (label_emb.weight), but flag class_cond is False"),
        ("learn_sigma", "False", "out.2.weight is (6, 32, 3, 3), expected (3, 32, 3, 3)"),
        ("resblock_updown", "False", "input_blocks.2.0.op.weight is missing"),
        ("num_head_channels", "12", "32 channels cannot be shared out to heads of 12"),
        ("num_head_channels", "many", "num_head_channels is 'many'; allowed: a whole number"),
        ("num_heads_upsample", "0.5", "num_heads_upsample is '0.5'; allowed: a whole number"),
        ("diffusion_steps", "4000", "flag rescale_timesteps is needed with 4000 diffusion_steps"),
        ("diffusion_steps", "1", "diffusion_steps is 1; 25 to 10000 are allowed"),
        ("num_heads", "5", "there is no network of these flags: 32 channels cannot be shared out to 5 heads"),
        ("noise_schedule", "sqrt", "there is no noise_schedule sqrt; allowed: linear or cosine"),
        ("num_classes", "1000", "has 10 classes (label_emb.weight), not 1000"),
        ("training_mode", "edm", "is a file of guided-diffusion or improved-diffusion"),
        ("large_size", "256", "there is no flag large_size; did you mean image_size?"),
        ("image_size", "40", "flag channel_mult is needed for image_size 40"),
    ],
)
def test_flags_that_do_not_fit(tmp_path: Path, flag: str, value: str, said: str) -> None:
    flags = dict(pairs(SAID)) | {flag: value}
    if flag == "image_size":
        del flags["channel_mult"]
    if flag == "num_heads":
        del flags["num_head_channels"]
    refused(tmp_path, said, flags=" ".join(f"--{name} {value}" for name, value in flags.items()))


def test_a_file_of_consistency_models_needs_its_flag(tmp_path: Path) -> None:
    _, file = of_flags(SMALL + "--training_mode edm")
    torch.save(file, tmp_path / "edm.pt")
    refused(tmp_path, "add --training_mode consistency_distillation", tmp_path / "edm.pt", SMALL)


def change(tmp_path: Path, how: Callable[[dict[str, Any]], Any]) -> Path:
    """The checkpoint, changed."""
    content = torch.load(CHECKPOINT, map_location="cpu", weights_only=True)
    torch.save(how(content) or content, tmp_path / "changed.pt")
    return tmp_path / "changed.pt"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda w: w.__delitem__("out.2.bias"), "out.2.bias is missing, expected (6,) (1 such difference)"),
        (lambda w: w.update(more=torch.zeros(2)), "more is (2,), expected none (1 such difference)"),
        (lambda w: w.update({"out.0.bias": torch.zeros(33)}), "out.0.bias is (33,), expected (32,)"),
        (lambda w: w.update({"out.0.bias": torch.full((32,), torch.nan)}), "some weights are not finite"),
        (lambda w: w.update({"out.0.bias": "zeros"}), "out.0.bias is no tensor"),
        (lambda w: w.update({"label_emb.weight": torch.tensor(1.0)}), "label_emb.weight is ()"),
        (lambda w: w.update({"input_blocks.0.0.weight": torch.zeros(2)}), "input_blocks.0.0.weight is (2,)"),
        (lambda w: w.__delitem__("input_blocks.0.0.weight"), "is no state dict of guided-diffusion"),
        (lambda w: [w], "is no state dict of guided-diffusion"),
        (lambda w: {"step": 1, **w}, "step is no tensor"),
    ],
    ids=range(10),
)
def test_a_file_that_does_not_fit(tmp_path: Path, how: Callable[[dict[str, Any]], Any], said: str) -> None:
    refused(tmp_path, said, change(tmp_path, how))


def test_a_file_that_is_cut_anywhere(tmp_path: Path) -> None:
    path, whole = tmp_path / "cut.pt", CHECKPOINT.read_bytes()
    for size in {0, 1, 20, len(whole) - 1, *range(100, len(whole), len(whole) // 50)}:
        path.write_bytes(whole[:size])
        refused(tmp_path, f"{path} cannot be read: it is truncated", path)


class Hostile:
    """Pickled, a call of `touch`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        import os  # noqa: PLC0415

        return os.system, (f"touch {self.marker}",)


def test_a_pickle_with_code_in_it_is_refused_and_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for path in (change(tmp_path, lambda w: {**w, "more": Hostile(marker)}), tmp_path / "bare.pt"):
        if path.name == "bare.pt":
            path.write_bytes(pickle.dumps(Hostile(marker)))
        refused(tmp_path, "holds more than tensors", path)
    assert not marker.exists()
