"""Imported pipelines of diffusers against its own numbers, repositories old and new, and what is refused."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.card import ModelCard
from models.importing.diffusers import import_diffusers
from models.importing.publishing import Target
from models.importing.reading import ImportRefused
from models.parametrisation import Score
from models.plan import plan
from models.processes import DiscreteVariancePreserving
from models.samplers.euler import Euler
from models.sampling.chain import Chain
from models.sampling.engine import Engine
from models.sampling.sample import run
from models.score import ScoreModel
from models.store import ModelStore

EPSILON, V = "diffusers/ddpm-epsilon-32", "diffusers/ddim-v-cond-28"
Change = Callable[[Path], Any]


@pytest.fixture(scope="session", autouse=True)
def diffusers() -> Any:
    """Imported only here: it takes seconds, and every process of a run collects all tests."""
    return pytest.importorskip("diffusers", reason="the extra diffusers is not installed")


@dataclass(frozen=True)
class Imported:
    card: ModelCard
    model: ScoreModel


def imported(store: Path, directory: Path, **options: Any) -> Imported:
    target = Target(ModelStore(store), "pipeline")
    card, _ = import_diffusers(directory, target, **options)
    assert target.store.card("pipeline", card.version) == card
    return Imported(card, ScoreModel.load(target.store, card))


@pytest.fixture(scope="module", params=[EPSILON, V], ids=["epsilon", "v and classes"])
def found(request, tmp_path_factory: pytest.TempPathFactory, checkpoints: Path) -> tuple[str, Imported]:
    return request.param, imported(tmp_path_factory.mktemp("store"), checkpoints / request.param)


def test_scores_are_those_of_the_official_code(
    found: tuple[str, Imported], arrays: Callable[[str], Any], check_images: Callable[..., None]
) -> None:
    name, of = found
    io = arrays(f"{name}_io.npz")
    labels = io.get("score_class_labels", [None] * len(io["score_x"]))
    for x, sigma, told, score in zip(io["score_x"], io["score_sigma"], labels, io["score01"], strict=True):
        label = None if told is None else int(told)
        check_images(of.model.score(x[None], float(sigma), label), score[None], 2e-5)
        if label is not None:
            with pytest.raises(AssertionError):
                check_images(of.model.score(x[None], float(sigma), (label + 1) % 10), score[None], 1e-4)


def test_ddim_is_our_euler_step_by_step(
    found: tuple[str, Imported],
    arrays: Callable[[str], Any],
    check_images: Callable[..., None],
) -> None:
    name, of = found
    trace = arrays(f"{name}_ddim10.npz")
    process = of.card.network.parametrisation.process  # type: ignore[union-attr]
    assert isinstance(process, DiscreteVariancePreserving)
    sigmas = [process.levels[t] / 2 for t in trace["t_index"]]
    a = torch.tensor([1 / np.hypot(1, 2 * sigma) for sigma in (*sigmas, 0.0)], dtype=torch.float32)
    pictures = trace["x"] / a[:, None, None, None, None] / 2 + 0.5
    for index, told in enumerate(trace.get("class_labels", [None] * pictures.shape[1])):
        label = None if told is None else int(told)
        x = pictures[0, index][None]
        for row, after in zip(Euler.table(sigmas).rows, pictures[1:, index], strict=True):
            x = x + float(row[1]) * of.model.score(x, float(row[0]), label)
            check_images(x, after[None], 1e-4)


def test_the_card_has_the_schedule_by_its_name_and_what_it_needs(found: tuple[str, Imported]) -> None:
    name, of = found
    card, classes = of.card, tuple("0123456789") if name == V else None
    assert (card.classes, card.needs_label) == (classes, name == V)
    process = card.network.parametrisation.process  # type: ignore[union-attr]
    assert process.betas.schedule == ("linear" if name == EPSILON else "cosine")
    assert card.network.parametrisation.name == ("epsilon" if name == EPSILON else "v")  # type: ignore[union-attr]
    settings, table = plan(None, card)
    assert (settings.name, len(table), table.column("sigma")[0]) == ("euler", 50, pytest.approx(40))
    assert card.provenance["family"] == "diffusers"
    assert card.provenance["scheduler"]["_class_name"] == ("DDPMScheduler" if name == EPSILON else "DDIMScheduler")
    assert of.model.needs_one_width


def test_an_image_has_the_same_bits_alone_and_in_company(found: tuple[str, Imported]) -> None:
    name, of = found
    _, table = plan(Euler(name="euler", levels=3, sigma_max=10.0), of.card)
    label = 3 if name == V else None

    def results(indices: list[int], slots: int) -> dict[int, Tensor]:
        chains = [Chain(table, 1, index, label=label) for index in indices]
        run(Engine(of.model, slots), chains)
        return {chain.index: chain.x for chain in chains if chain.x is not None}

    alone, together = results([2], 1), results([0, 1, 2, 3, 4, 5], 6)
    assert torch.equal(alone[2], together[2])


@pytest.fixture
def copied(tmp_path: Path, checkpoints: Path) -> Callable[[str], Path]:
    """Copies a pipeline, so that it can be changed."""

    def copy(name: str) -> Path:
        shutil.copytree(checkpoints / name, tmp_path / "copy")
        return tmp_path / "copy"

    return copy


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_repositories_of_2022_lie_flat_and_name_attention_otherwise(
    tmp_path: Path, copied: Callable[[str], Path], checkpoints: Path
) -> None:
    directory = copied(EPSILON)
    weights = load_file(directory / "unet" / "diffusion_pytorch_model.safetensors")
    for then, now in {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}.items():
        weights = {name.replace(f".{now}.", f".{then}."): tensor for name, tensor in weights.items()}
    assert any(".query." in name for name in weights)
    torch.save(weights, directory / "diffusion_pytorch_model.bin")
    for path in (directory / "unet" / "config.json", directory / "scheduler" / "scheduler_config.json"):
        path.rename(directory / path.name)
    scheduler = json.loads((directory / "scheduler_config.json").read_text())
    del scheduler["prediction_type"], scheduler["_class_name"]  # as they had none
    (directory / "scheduler_config.json").write_text(json.dumps(scheduler))
    shutil.rmtree(directory / "unet")
    old, new = imported(tmp_path / "old", directory), imported(tmp_path / "new", checkpoints / EPSILON)
    assert old.card.weights_sha256 == new.card.weights_sha256
    assert old.card.network == new.card.network


def written(diffusers: Any, directory: Path, scheduler: Any, **config: Any) -> Any:
    """A random pipeline, as diffusers writes it."""
    small = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(**small | config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    network.save_pretrained(directory / "unet")
    scheduler.save_pretrained(directory / "scheduler")
    return network


def test_ncsnpp_is_told_sigma_and_returns_the_score(
    diffusers: Any, tmp_path: Path, check_images: Callable[..., None]
) -> None:
    network = written(
        diffusers,
        tmp_path / "ve",
        diffusers.ScoreSdeVeScheduler(sigma_max=90),
        time_embedding_type="fourier",
        in_channels=3,
        out_channels=3,
        down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D"),
        up_block_types=("AttnSkipUpBlock2D", "SkipUpBlock2D"),
        block_out_channels=(32, 32),
        norm_num_groups=None,
        center_input_sample=True,
        mid_block_scale_factor=1.4142135623730951,
    )
    of = imported(tmp_path / "store", tmp_path / "ve")
    assert isinstance(of.card.network.parametrisation, Score)
    assert (of.card.sigma_min, of.card.sigma_max, of.card.sampler.name) == (0.01, 90, "ancestral")
    x = torch.rand(2, 3, 8, 8)
    for sigma in (0.02, 3.0, 80.0):
        with torch.inference_mode():
            expected = network(x, torch.full((2,), sigma)).sample
        check_images(of.model.score(x, sigma), expected, 2e-5)


def test_a_predicted_picture_and_a_predicted_variance_besides(
    diffusers: Any, tmp_path: Path, check_images: Callable[..., None]
) -> None:
    scheduler = diffusers.DDPMScheduler(
        prediction_type="sample", beta_schedule="scaled_linear", variance_type="learned_range"
    )
    network = written(diffusers, tmp_path / "x0", scheduler, out_channels=2)
    of = imported(tmp_path / "store", tmp_path / "x0")
    x, t = torch.rand(2, 1, 8, 8), 300
    a2 = float(scheduler.alphas_cumprod[t])
    sigma = np.sqrt((1 - a2) / a2) / 2
    with torch.inference_mode():
        clean = network(np.sqrt(a2) * (2 * x - 1), torch.tensor([t, t])).sample[:, :1]
    check_images(of.model.denoise(x, sigma), clean / 2 + 0.5, 1e-4)


def test_a_consistency_model_is_sampled_as_its_scheduler_does(
    diffusers: Any, tmp_path: Path, check_images: Callable[..., None]
) -> None:
    scheduler = diffusers.CMStochasticIterativeScheduler(sigma_max=60.0, clip_denoised=False)
    network = written(diffusers, tmp_path / "cm", scheduler, num_class_embeds=3)
    of = imported(tmp_path / "store", tmp_path / "cm")
    assert (of.card.denoises, of.card.sigma_min, of.card.sigma_max) == (False, 0.001, 30)
    settings, table = plan(None, of.card)
    assert (settings.name, len(table)) == ("multistep_consistency", 2)
    scheduler.set_timesteps(1)
    x = 60 * torch.randn(2, 1, 8, 8)
    with torch.inference_mode():
        t = scheduler.timesteps[0]
        out = network(scheduler.scale_model_input(x, t), t, torch.tensor([2, 2])).sample
        clean = scheduler.step(out, t, x).prev_sample
    found = x / 2 + 0.5 + 30**2 * of.model.score(x / 2 + 0.5, 30.0, 2)
    check_images(found, clean / 2 + 0.5, 1e-4)


@pytest.mark.parametrize("how", ["trained", "another schedule", "without signal at the end"])
def test_schedules_that_no_name_gives_are_listed(diffusers: Any, tmp_path: Path, how: str) -> None:
    scheduler = {
        "trained": diffusers.DDPMScheduler(trained_betas=np.linspace(0.001, 0.03, 50).tolist(), num_train_timesteps=50),
        "another schedule": diffusers.DDPMScheduler(beta_schedule="sigmoid", num_train_timesteps=50),
        "without signal at the end": diffusers.DDIMScheduler(rescale_betas_zero_snr=True, num_train_timesteps=50),
    }[how]
    written(diffusers, tmp_path / "pipeline", scheduler)
    process = imported(tmp_path / "store", tmp_path / "pipeline").card.network.parametrisation.process  # type: ignore
    assert process.betas is None
    products = scheduler.alphas_cumprod.double().numpy()
    assert np.array(process.alphas_cumprod) == pytest.approx(products[: len(process.alphas_cumprod)], rel=1e-6)
    assert len(process.alphas_cumprod) == (49 if how.startswith("without") else 50)


def test_the_last_class_may_stand_for_none(tmp_path: Path, checkpoints: Path) -> None:
    of = imported(tmp_path / "store", checkpoints / V, null_class=True)
    assert of.card.classes == tuple("012345678")
    assert not of.card.needs_label
    with_label = imported(tmp_path / "other", checkpoints / V)
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(of.model.score(x, 1.0), with_label.model.score(x, 1.0, 9))


CM = "CMStochasticIterativeScheduler"
UNET, SCHEDULER = "unet/config.json", "scheduler/scheduler_config.json"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def weights(directory: Path, how: Callable[[dict[str, Tensor]], Any]) -> None:
    content = load_file(directory / WEIGHTS)
    how(content)
    save_file(content, directory / WEIGHTS)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda d: shutil.rmtree(d / "unet"), "it has neither unet/config.json nor config.json"),
        (lambda d: (d / SCHEDULER).unlink(), "scheduler_config.json cannot be read: No such file"),
        (lambda d: (d / WEIGHTS).unlink(), "has no weights: expected diffusion_pytorch_model.safetensors or"),
        (lambda d: (d / UNET).write_text("{"), "config.json is no JSON"),
        (lambda d: change(d / "model_index.json", vqvae=["diffusers", "VQModel"]), "latents of an autoencoder (vqvae)"),
        (lambda d: change(d / UNET, _class_name="UNet2DConditionModel"), "is of a UNet2DConditionModel"),
        (lambda d: change(d / UNET, surprise=1), "config.json has surprise, which UNet2DModel does not know here"),
        (lambda d: change(d / UNET, class_embed_type="timestep"), "class_embed_type is 'timestep'"),
        (lambda d: change(d / UNET, out_channels=5), "takes 3 channels and returns 5"),
        (
            lambda d: change(d / UNET, time_embedding_type="fourier"),
            "does not go with a network of time_embedding_type",
        ),
        (lambda d: change(d / UNET, sample_size=None), "sample_size is None in config.json"),
        (lambda d: change(d / UNET, sample_size=30), "a multiple of 8 for this network"),
        (lambda d: change(d / UNET, norm_num_groups=3), "there is no such network"),
        (
            lambda d: change(d / UNET, block_out_channels=[8, 16, 16, 32]),
            "such differences); use the one that was saved",
        ),
        (lambda d: change(d / SCHEDULER, _class_name="ScoreSdeVeScheduler"), "does not go with a network of"),
        (lambda d: change(d / SCHEDULER, _class_name="FlowMatchEulerDiscreteScheduler"), "those served are DDPMSch"),
        (
            lambda d: change(d / SCHEDULER, prediction_type="flow"),
            "prediction_type is 'flow'; those served are epsilon",
        ),
        (lambda d: change(d / SCHEDULER, beta_schedule="none"), "the scheduler has no schedule"),
        (lambda d: change(d / SCHEDULER, _class_name=CM, sigma_min="low"), "s_min is 'low'; allowed: a number"),
        (lambda d: change(d / SCHEDULER, _class_name=CM, sigma_max=None), "sigma_max are 0.002 and None: expected"),
        (lambda d: weights(d, lambda w: w.pop("conv_out.bias")), "conv_out.bias is missing, expected (3,)"),
        (lambda d: weights(d, lambda w: w.update(more=torch.zeros(1))), "more is (1,), expected none"),
        (lambda d: weights(d, lambda w: w.update({"conv_out.bias": torch.zeros(4)})), "conv_out.bias is (4,)"),
        (lambda d: weights(d, lambda w: w["conv_out.bias"].fill_(torch.inf)), "some weights are not finite"),
    ],
    ids=range(24),
)
def test_what_does_not_fit(
    copied: Callable[[str], Path], check_refused: Callable[..., None], how: Change, said: str
) -> None:
    directory = copied(EPSILON)
    how(directory)
    check_refused(lambda target: import_diffusers(directory, target), said)


def test_without_classes_none_can_stand_for_none(checkpoints: Path, check_refused: Callable[..., None]) -> None:
    check_refused(lambda target: import_diffusers(checkpoints / EPSILON, target, null_class=True), "has no classes")


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_weights_that_are_cut_anywhere(tmp_path: Path, copied: Callable[[str], Path], suffix: str) -> None:
    directory = copied(V)
    path = (directory / WEIGHTS).with_suffix(suffix)
    if suffix == ".bin":
        torch.save(load_file(directory / WEIGHTS), path)
        (directory / WEIGHTS).unlink()
    whole = path.read_bytes()
    for size in {0, 1, 20, len(whole) - 1, *range(100, len(whole), len(whole) // 50)}:
        path.write_bytes(whole[:size])
        with pytest.raises(ImportRefused, match=f"^{re.escape(str(path))} cannot be read: it is truncated"):
            import_diffusers(directory, Target(ModelStore(tmp_path / "store"), "model"))
    assert not (tmp_path / "store").exists()


def test_a_pickle_with_code_in_it_does_not_run(
    tmp_path: Path, copied: Callable[[str], Path], check_refused: Callable[..., None]
) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            import os  # noqa: PLC0415

            return os.system, (f"touch {tmp_path / 'marker'}",)

    directory = copied(V)
    (directory / WEIGHTS).unlink()
    torch.save({"conv_out.bias": Hostile()}, directory / "unet" / "diffusion_pytorch_model.bin")
    check_refused(lambda target: import_diffusers(directory, target), "holds more than tensors")
    assert not (tmp_path / "marker").exists()
