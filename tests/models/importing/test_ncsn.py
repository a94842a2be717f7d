"""Imported networks against the official code's own numbers, and every file that is not what it should be."""

import math
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.card import ModelCard, NetworkSpec
from models.importing.ncsn import import_ncsn
from models.importing.publishing import Target
from models.importing.reading import ImportRefused
from models.plan import plan
from models.samplers.annealed_langevin import AnnealedLangevin
from models.sampling.chain import Chain
from models.sampling.engine import Engine, advance
from models.sampling.sample import run
from models.score import ScoreModel, build_network
from models.store import ModelStore

OFFICIAL = Path(__file__).parents[2] / "data" / "official"
V1, V1_CONFIG = OFFICIAL / "v1_mnist_mini.pth", OFFICIAL / "v1_mnist_mini_config.yml"
V2, V2_CONFIG = OFFICIAL / "v2_cifar10_mini.pth", OFFICIAL / "v2_cifar10_mini_config.yml"


@dataclass(frozen=True)
class Imported:
    card: ModelCard
    model: ScoreModel


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    return ModelStore(tmp_path_factory.mktemp("imported"))


def imported(store: ModelStore, checkpoint: Path, config: Path, name: str, raw: bool = False) -> Imported:
    card, path = import_ncsn(checkpoint, config, Target(store, name), raw)
    assert path == store.path(name)
    assert store.card(name) == card
    return Imported(card, ScoreModel.load(store, card))


@pytest.fixture(scope="module")
def v1(store: ModelStore) -> Imported:
    return imported(store, V1, V1_CONFIG, "v1")


@pytest.fixture(scope="module")
def v2(store: ModelStore) -> Imported:
    return imported(store, V2, V2_CONFIG, "v2")


@pytest.fixture(scope="module")
def v2_raw(store: ModelStore) -> Imported:
    return imported(store, V2, V2_CONFIG, "v2-raw", raw=True)


def arrays(name: str) -> dict[str, Tensor]:
    with np.load(OFFICIAL / name) as file:
        return {key: torch.from_numpy(file[key]) for key in file}


def check_scores(model: ScoreModel, x: Tensor, sigmas: list[float], expected: Tensor) -> None:
    """Every image's score within 1e-5 of the largest in it."""
    for score, image in zip(model.score(x, sigmas), expected, strict=True):
        assert (score - image).abs().max() < 1e-5 * image.abs().max()


def test_scores_of_ncsn_are_those_of_the_official_code(v1: Imported) -> None:
    io = arrays("v1_mnist_mini_io.npz")
    assert v1.card.sigmas is not None
    check_scores(v1.model, io["x"], [v1.card.sigmas[label] for label in io["labels"].tolist()], io["score"])


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_scores_of_ncsnv2_are_those_of_the_official_code(v2: Imported, v2_raw: Imported, weights: str) -> None:
    io = arrays("v2_cifar10_mini_io.npz")
    model = {"ema": v2.model, "raw": v2_raw.model}[weights]
    check_scores(model, io["x"], io["sigmas"][io["labels"]].tolist(), io[f"score_{weights}"])
    assert (io["score_ema"] - io["score_raw"]).abs().max() > 1e-2


def test_the_official_annealed_langevin_dynamics_is_followed_step_by_step(v1: Imported) -> None:
    ald = arrays("v1_mnist_mini_ald.npz")
    steps, step_size = int(ald["n_steps_each"]), 2 * float(ald["step_lr"])
    assert v1.card.sigmas is not None
    table = AnnealedLangevin.table(v1.card.sigmas, steps, step_size, denoise=False, initial_std=None)
    assert len(table) == len(ald["z"]) == 20
    x, previous = ald["x0"], torch.zeros_like(ald["x0"])
    for row, z, clamped in zip(table.rows, ald["z"], ald["clamped_before_each_step"], strict=True):
        assert (x.clamp(0, 1) - clamped).abs().max() < 1e-4
        assert ((clamped > 0) & (clamped < 1)).float().mean() > 0.3  # most of the proof is not lost in clamping
        score = v1.model.score(x, float(row[0]))
        drift, carry, noise = (torch.full((len(x), 1, 1, 1), float(value)) for value in row[1:4])
        x, previous = advance(x, score, previous, drift, carry, noise, z)


def test_the_card_of_ncsn_has_its_levels_and_the_authors_schedule(v1: Imported) -> None:
    card = v1.card
    assert card.sigmas == pytest.approx(np.exp(np.linspace(0, math.log(0.01), 10)).tolist(), rel=1e-12)
    assert (card.sigma_max, card.sigma_min) == (1.0, 0.01)
    assert card.image.chw == (1, 28, 28)
    assert card.network == NetworkSpec(
        kind="refinenet-v1", arguments={"image_channels": 1, "ngf": 8, "stages": 4, "levels": 10}
    )
    assert card.sampler.model_dump(exclude_none=True) == {
        "name": "annealed_langevin",
        "levels": 10,
        "steps_per_level": 100,
        "step_size": 4e-5,
        "denoise": False,
    }
    assert card.provenance["weights"] == "of the last step, float32"
    assert card.provenance["steps"] is None


def test_the_card_of_ncsnv2_allows_any_level_and_has_the_schedule_of_its_configuration(
    v2: Imported, v2_raw: Imported
) -> None:
    card = v2.card
    assert card.sigmas is None
    assert (card.sigma_max, card.sigma_min) == (50, 0.01)
    assert card.network == NetworkSpec(kind="refinenet-v2", arguments={"image_channels": 3, "ngf": 8, "stages": 4})
    _, table = plan(None, card)
    assert len(table) == 232 * 5 + 1
    sigmas = arrays("v2_cifar10_mini_io.npz")["sigmas"].numpy()
    assert np.allclose(table.column("sigma")[:-1:5], sigmas, rtol=1e-6)
    assert table.column("drift")[-2] == pytest.approx(6.2e-6)  # x + step_lr score in the last level, in that code
    assert card.provenance["weights"] == "exponential moving average, float32"
    assert v2_raw.card.provenance["weights"] == "of the last step, float32"
    assert card.provenance["steps"] == 300_000


def test_the_card_says_where_the_weights_come_from(v1: Imported) -> None:
    provenance = v1.card.provenance
    assert provenance["checkpoint"] == "v1_mnist_mini.pth"
    assert provenance["checkpoint_sha256"] == "6b0ae2e5681258ad2fe3ef825975d66b482f01f6ffdc8bc975bc57cc877363c1"
    assert provenance["config"]["optim"]["lr"] == 0.001
    assert provenance["parameters"] == sum(p.numel() for p in v1.model.network.parameters())
    assert "MNIST" in v1.card.description


def test_an_imported_model_is_served_by_its_default_sampler(v1: Imported) -> None:
    _, default = plan(None, v1.card)
    _, short = plan(AnnealedLangevin(steps_per_level=2, step_size=4e-5), v1.card)
    assert len(default) == 1000
    assert np.array_equal(default.rows[::50, :4], short.rows[:, :4])  # the default's way, with fewer steps
    alone, *together = (Chain(short, seed=1, index=index) for index in (0, 0, 1, 2))
    run(Engine(v1.model, 1), [alone])
    run(Engine(v1.model, 3), together)
    assert alone.x is not None
    assert together[0].x is not None
    assert alone.x.shape == (1, 28, 28)
    assert alone.x.isfinite().all()
    assert torch.equal(alone.x, together[0].x)


def test_ncsn_knows_no_other_levels_and_ncsnv2_all(v1: Imported, v2: Imported) -> None:
    with pytest.raises(ValueError, match="no noise level of this model"):
        v1.model.score(torch.rand(2, 1, 28, 28), 0.5)
    assert v2.model.score(torch.rand(2, 3, 32, 32), 0.5).isfinite().all()


def test_a_second_import_is_the_next_version(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    for version in (1, 2):
        card, path = import_ncsn(V1, V1_CONFIG, Target(store, "digits"))
        assert card.version == version
        assert path == tmp_path / "digits" / str(version)


def official_names(stages: int, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict by the names of NCSNv2Deeper and NCSNv2Deepest."""
    down = {5: ["res1", "res2", "res3", "res4", "res5"], 6: ["res1", "res2", "res3", "res31", "res4", "res5"]}[stages]
    up = {
        5: ["refine1", "refine2", "refine3", "refine4", "refine5"],
        6: ["refine1", "refine2", "refine31", "refine3", "refine4", "refine5"],
    }[stages]
    renamed = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] in ("stages", "refine"):
            parts[:2] = [{"stages": down, "refine": up}[parts[0]][int(parts[1])]]
        renamed[".".join(parts)] = tensor
    return renamed


@pytest.mark.parametrize("stages", [5, 6])
@pytest.mark.parametrize("kind", ["refinenet-v1", "refinenet-v2"])
def test_the_deeper_networks_are_recognised_by_their_weights(tmp_path: Path, kind: str, stages: int) -> None:
    levels = {"levels": 232} if kind == "refinenet-v1" else {}
    spec = NetworkSpec.model_validate(
        {"kind": kind, "arguments": {"image_channels": 3, "ngf": 8, "stages": stages} | levels}
    )
    torch.manual_seed(stages)
    network = build_network(spec).eval()
    average = official_names(stages, network.state_dict())
    state = {f"module.{name}": torch.zeros_like(tensor) for name, tensor in average.items()}
    if kind == "refinenet-v2":
        state["module.sigmas"] = arrays("v2_cifar10_mini_io.npz")["sigmas"]
    torch.save([state, {}, 1, 5000, average], tmp_path / "checkpoint.pth")
    found = imported(ModelStore(tmp_path / "store"), tmp_path / "checkpoint.pth", V2_CONFIG, "deep")
    assert found.card.network == spec
    x = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        expected = network(x, network.condition(torch.tensor([3.0, 3.0])))
    sigma = found.card.sigmas[3] if found.card.sigmas else 1.0
    assert torch.equal(found.model.score(x, sigma), expected)


class Hostile:
    """Pickled, a call of `touch`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        import os  # noqa: PLC0415

        return os.system, (f"touch {self.marker}",)


def check_refused(
    tmp_path: Path, said: str, checkpoint: Path = V1, config: Path = V1_CONFIG, name: str = "model", raw: bool = False
) -> None:
    """The import is refused with one line, and the store has nothing in it."""
    store = tmp_path / "store"
    store.mkdir()
    with pytest.raises(ImportRefused) as refusal:
        import_ncsn(checkpoint, config, Target(ModelStore(store), name), raw)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "weights_only" not in str(refusal.value)
    assert not list(store.iterdir())


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    check_refused(tmp_path, "gone.pth cannot be read: No such file", tmp_path / "gone.pth")


def test_a_checkpoint_that_is_cut_anywhere(tmp_path: Path) -> None:
    path, whole = tmp_path / "checkpoint.pth", V1.read_bytes()
    for size in {0, 1, 20, len(whole) - 1, *range(100, len(whole), len(whole) // 50)}:
        path.write_bytes(whole[:size])
        with pytest.raises(ImportRefused, match=f"^{re.escape(str(path))} cannot be read: it is truncated"):
            import_ncsn(path, V1_CONFIG, Target(ModelStore(tmp_path / "store"), "model"))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("where", ["alone", "in a list", "in a file of torch.save"])
def test_a_pickle_with_code_in_it_is_refused_and_does_not_run(tmp_path: Path, where: str) -> None:
    path, marker = tmp_path / "checkpoint.pth", tmp_path / "marker"
    hostile = Hostile(marker)
    if where == "in a file of torch.save":
        torch.save([{"module.weight": torch.zeros(1)}, hostile], path)
    else:
        path.write_bytes(pickle.dumps([hostile] if where == "in a list" else hostile))
    check_refused(tmp_path, "holds more than tensors", path)
    assert not marker.exists()
    if where != "in a file of torch.save":
        pickle.loads(path.read_bytes())
        assert marker.exists()  # it would have


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"module.weight": torch.zeros(1)}, "no checkpoint of the official code"),
        ([], "no checkpoint of the official code"),
        ([{}, {}, {}], "no checkpoint of the official code"),
        ([{}, {}], "the weights of no network that is served"),
        ([{"module.conv.weight": torch.zeros(1)}, {}], "the weights of no network that is served"),
        ([{"module.normalizer.alpha": 1.0}, {}], "normalizer.alpha is no tensor"),
        ([{"module.normalizer.alpha": torch.zeros(1, dtype=torch.int32)}, {}], "normalizer.alpha is no tensor"),
        ([{"module.normalizer.alpha": torch.zeros(8).to_sparse()}, {}], "normalizer.alpha is no tensor"),
        ([{"module.normalizer.embed.weight": torch.zeros(10, 24)}, {}], "begin_conv.weight is missing"),
        ([{}, {}, 1, 5000], "no averaged weights"),
    ],
)
def test_a_file_of_something_else(tmp_path: Path, content: object, said: str) -> None:
    torch.save(content, tmp_path / "checkpoint.pth")
    check_refused(tmp_path, said, tmp_path / "checkpoint.pth")


@pytest.mark.parametrize(
    ("checkpoint", "config", "said"),
    [
        (V1, V2_CONFIG, "begin_conv.weight is (8, 1, 3, 3), expected (8, 3, 3, 3)"),
        (V2, V1_CONFIG, "begin_conv.weight is (8, 3, 3, 3), expected (8, 1, 3, 3)"),
    ],
)
def test_a_configuration_of_another_checkpoint(tmp_path: Path, checkpoint: Path, config: Path, said: str) -> None:
    check_refused(tmp_path, said, checkpoint, config)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("ngf: 8", "ngf: 64", "begin_conv.weight is (8, 3, 3, 3), expected (64, 3, 3, 3)"),
        ("num_classes: 232", "num_classes: 231", "are not the 231 from sigma_begin to sigma_end"),
        ("sigma_begin: 50", "sigma_begin: 51", "its noise levels (sigmas)"),
        ("image_size: 32", "image_size: 33", "image_size is 33; this network takes multiples of 2"),
        ("step_lr: 6.2e-06", "step_lr: 1.0", "makes the chain diverge"),
        ("n_steps_each: 5", "n_steps_each: 5000", "network evaluations an image"),
        ("sampling: !!python/object:argparse.Namespace", "resampling: !!python/object:argparse.Namespace", "sampling"),
        ("logit_transform: false", "logit_transform: true", "data: logit_transform is true; allowed: false"),
    ],
)
def test_a_configuration_that_does_not_fit(tmp_path: Path, old: str, new: str, said: str) -> None:
    config = tmp_path / "config.yml"
    assert old in V2_CONFIG.read_text()
    config.write_text(V2_CONFIG.read_text().replace(old, new))
    check_refused(tmp_path, said, V2, config)


def changed(tmp_path: Path, change: Callable[[list[Any]], None]) -> Path:
    """The NCSNv2 checkpoint, changed."""
    content = torch.load(V2, map_location="cpu", weights_only=True)
    change(content)
    torch.save(content, tmp_path / "changed.pth")
    return tmp_path / "changed.pth"


def renamed(prefix: str) -> Callable[[list[Any]], None]:
    """Has all names of both state dicts begin with a prefix rather than with that of a DataParallel."""

    def change(content: list[Any]) -> None:
        for i in (0, 4):
            content[i] = {prefix + name.removeprefix("module."): value for name, value in content[i].items()}

    return change


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.module."])
def test_names_with_the_prefixes_of_wrappers(tmp_path: Path, v2: Imported, v2_raw: Imported, prefix: str) -> None:
    path, store = changed(tmp_path, renamed(prefix)), ModelStore(tmp_path / "store")
    for raw, expected in ((False, v2), (True, v2_raw)):
        card, _ = import_ncsn(path, V2_CONFIG, Target(store, "model"), raw)
        assert card.weights_sha256 == expected.card.weights_sha256


def test_numbers_of_numpy_in_the_optimizer_and_for_the_step(tmp_path: Path) -> None:
    def change(content: list[Any]) -> None:
        content[1]["param_groups"] = [{"lr": np.float64(0.1), "eps": np.float32(1), "amsgrad": np.bool_(True)}]
        content[3] = np.int64(5000)

    card, _ = import_ncsn(changed(tmp_path, change), V2_CONFIG, Target(ModelStore(tmp_path / "store"), "model"))
    assert card.provenance["steps"] == 5000


def test_two_weights_by_one_name(tmp_path: Path) -> None:
    def change(content: list[Any]) -> None:
        content[4]["module.begin_conv.bias"] = content[4]["begin_conv.bias"]

    check_refused(tmp_path, "two tensors by the name begin_conv.bias", changed(tmp_path, change), V2_CONFIG)


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    path = changed(tmp_path, lambda content: content[4]["begin_conv.bias"].fill_(math.nan))
    check_refused(tmp_path, "some weights are not finite", path, V2_CONFIG)


def test_weights_of_which_one_is_missing(tmp_path: Path) -> None:
    path = changed(tmp_path, lambda content: content[4].pop("refine4.msf.convs.1.bias"))
    check_refused(tmp_path, "refine.3.msf.convs.1.bias is missing", path, V2_CONFIG)


def test_ncsnv2_without_its_levels(tmp_path: Path) -> None:
    path = changed(tmp_path, lambda content: content[0].pop("module.sigmas"))
    check_refused(tmp_path, "its noise levels (sigmas)", path, V2_CONFIG)


def test_a_checkpoint_without_averages_has_its_raw_weights_taken_when_asked(tmp_path: Path, v2_raw: Imported) -> None:
    path = changed(tmp_path, lambda content: content.pop())
    check_refused(tmp_path, "no averaged weights: ask for those of the last step (--raw)", path, V2_CONFIG)
    card, _ = import_ncsn(path, V2_CONFIG, Target(ModelStore(tmp_path / "store"), "raw"), raw=True)
    assert card.weights_sha256 == v2_raw.card.weights_sha256


def test_a_name_that_is_none(tmp_path: Path) -> None:
    check_refused(tmp_path, "name is '../up'", name="../up")


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ImportRefused, match=r"the model cannot be written: .*Not a directory"):
        import_ncsn(V1, V1_CONFIG, Target(ModelStore(tmp_path / "file"), "model"))
