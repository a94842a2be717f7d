import gc
import json
import platform
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from models.plan import plan
from models.sampling.sample import sample
from models.score import ScoreModel
from models.store import ZOO, ModelStore
from models.training.checkpoint import BEFORE, CHECKPOINT
from models.training.data.formats.idx import load_mnist
from models.training.data.images import images_sha256
from models.training.job import LOCK, TrainingFailed, TrainingJob, TrainingStopped
from models.training.levels import NoiseLevels
from models.training.settings import TrainingSettings
from models.training.trainer import Trainer

FIRST = max(ModelStore(ZOO).versions("mnist")) + 1  # that a run publishes, past those that ship
MNIST = Path(__file__).parents[2] / "data" / "mnist"
TINY = {"channels": [8, 16], "blocks": [1, 1], "attention": [False, False], "embedding": 16, "groups": 4}
OVERRIDES: dict[str, Any] = {
    "network": TINY,
    "batch": 8,
    "epochs": 0.1,
    "execution": {},  # what is measured may differ from run to run
    "warmup_steps": 2,
    "seed": 3,
}
STEPS = 12  # a tenth of 1000 / 8


def job(tmp_path: Path, data: Path = MNIST, **changes: Any) -> TrainingJob:
    values = {
        "preset": "mnist",
        "data": data,
        "out": tmp_path / "run",
        "store": tmp_path / "models",
        "overrides": OVERRIDES,
        "device": "cpu",
        "save_every": 5,
        "grid_every": 100,
        "command": "scoreserve train --preset mnist",
    }
    return TrainingJob.model_validate(values | changes)


def ignore(*_: object) -> None:
    pass


def test_a_run_publishes_a_model_that_samples_and_says_how_it_was_made(tmp_path: Path) -> None:
    steps: list[int] = []
    started: list[Trainer] = []
    published = job(tmp_path, grid_every=6).run(started.append, lambda trainer, _: steps.append(trainer.step))
    assert published is not None
    card, path = published
    assert steps == list(range(1, STEPS + 1))
    assert started[0].steps == STEPS

    store = ModelStore(tmp_path / "models")
    assert store.card("mnist") == card
    assert path == tmp_path / "models" / "mnist" / str(FIRST)
    _, table = plan(None, card.model_copy(update={"sampler": card.sampler.model_copy(update={"levels": 5})}))
    pixels = sample(ScoreModel.load(store, card), table, count=2, seed=0)
    assert pixels.shape == (2, 28, 28, 1)

    made = card.provenance
    images, _ = load_mnist(MNIST)
    assert made["command"] == "scoreserve train --preset mnist"
    assert made["training"]["seed"] == 3
    assert made["training"]["network"] == TINY
    assert (made["images"], made["images_sha256"]) == (1000, images_sha256(images))
    assert made["steps"] == STEPS
    assert made["wall_seconds"] >= 0
    assert made["versions"]["python"] == platform.python_version()
    assert made["versions"]["torch"] == torch.__version__
    assert [point[0] for point in made["loss_curve"]] == list(range(1, STEPS + 1))
    assert card.image.chw == (1, 28, 28)
    assert card.network.data_mean == pytest.approx(float(images.float().mean()) / 255, abs=1e-4)

    out = tmp_path / "run"
    pictures = ["grid-000006.png", "grid-000012.png", "loss.png"]
    found = sorted(p.name for p in out.iterdir())
    assert found == [LOCK, BEFORE, CHECKPOINT, *pictures, "run.json", "tensorboard"]
    with Image.open(out / "grid-000012.png") as grid:
        assert grid.size == (8 * 30 + 2, 8 * 30 + 2)
        assert np.asarray(grid).max() > 0
    assert json.loads((out / "run.json").read_text()) == made


def test_the_grid_shows_each_class_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def remember(*_: object, labels: Any, count: int, **__: object) -> NDArray[np.uint8]:
        asked.append(labels)
        return np.zeros((count, 28, 28, 1), np.uint8)

    monkeypatch.setattr("models.training.job.sample", remember)
    job(tmp_path).run(ignore, ignore)
    job(tmp_path / "plain", overrides=OVERRIDES | {"classes": False}).run(ignore, ignore)
    assert asked == [range(10), None]


PRESET = """
model = {name = "levels", sigma_min = 0.02, sampler = {name = "annealed_langevin", steps_per_level = 1}}
[training]
objective = "denoising"
batch = 8
epochs = 0.02
clip_norm = 1000.0
levels = {sigma_min = 0.02}
network = {kind = "KIND", ngf = 4}
"""


@pytest.mark.parametrize("kind", ["refinenet-v1", "refinenet-v2"])
def test_levels_that_a_preset_leaves_out_are_computed_from_the_images_and_told_by_the_card(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingJob, "_draw", ignore)
    preset = tmp_path / "levels.toml"
    preset.write_text(PRESET.replace("KIND", kind))
    published = job(tmp_path, preset=str(preset), overrides={}).run(ignore, ignore)
    assert published is not None
    card = published[0]
    images, _ = load_mnist(MNIST)
    levels = NoiseLevels(sigma_min=0.02).completed(images)
    assert card.provenance["training"]["levels"] == levels.model_dump()
    assert card.sigma_max == levels.sigma_max
    assert card.sigmas == (tuple(levels.sigmas) if kind == "refinenet-v1" else None)
    settings, table = plan(None, card)
    assert settings.levels == levels.count  # type: ignore[union-attr]
    assert list(table.column("sigma")[:-1]) == levels.sigmas
    assert ScoreModel.load(ModelStore(tmp_path / "models"), card).score(torch.rand(1, 1, 28, 28), card.sigma_max).any()


def test_a_finished_run_that_is_started_again_publishes_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingJob, "_draw", ignore)
    overrides = OVERRIDES | {"ema_decay": 0.5}
    first = job(tmp_path, overrides=overrides).run(ignore, ignore)
    assert job(tmp_path, overrides=overrides).run(ignore, ignore) == first
    assert ModelStore(tmp_path / "models").versions("mnist") == [FIRST]
    other = job(tmp_path, overrides=overrides, average=0.0).run(ignore, ignore)
    assert other is not None
    assert other[0].version == FIRST + 1


def test_a_run_may_start_from_a_model_that_ships_or_one_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingJob, "_draw", ignore)
    first = job(tmp_path).run(ignore, ignore)
    assert first is not None
    started = job(tmp_path, out=tmp_path / "next", origin=f"mnist/{FIRST}").run(ignore, ignore)
    assert started is not None
    line = started[0].provenance["from"]
    assert (line["name"], line["version"], line["weights_sha256"]) == ("mnist", FIRST, first[0].weights_sha256)
    assert line["provenance"] == first[0].provenance
    with pytest.raises(TrainingFailed, match="weights of fashion-mnist version 6 are of another network"):
        job(tmp_path, out=tmp_path / "other", origin="fashion-mnist/6").run(ignore, ignore)
    with pytest.raises(TrainingFailed, match="no model imagenet"):
        job(tmp_path, out=tmp_path / "other", origin="imagenet").run(ignore, ignore)


def test_a_run_that_has_published_the_model_it_started_from_goes_on_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingJob, "_draw", ignore)
    job(tmp_path).run(ignore, ignore)
    begun = job(tmp_path, out=tmp_path / "next", origin="mnist").run(ignore, ignore)
    assert begun is not None
    assert begun[0].version == FIRST + 1
    assert job(tmp_path, out=tmp_path / "next", origin="mnist").run(ignore, ignore) == begun
    longer = job(tmp_path, out=tmp_path / "next", origin="mnist", overrides=OVERRIDES | {"epochs": 0.2})
    published = longer.run(ignore, ignore)
    assert published is not None
    assert published[0].provenance["from"]["version"] == FIRST
    with pytest.raises(TrainingFailed, match=f"not from mnist version {FIRST + 1}; name mnist/{FIRST} to go on"):
        job(tmp_path, out=tmp_path / "next", origin=f"mnist/{FIRST + 1}").run(ignore, ignore)
    with pytest.raises(TrainingFailed, match=r"from fresh weights, not from mnist .*; leave --from out to go on"):
        job(tmp_path, origin=f"mnist/{FIRST}").run(ignore, ignore)


def test_two_runs_do_not_share_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingJob, "_draw", ignore)

    def start_another(_trainer: Trainer) -> None:
        with pytest.raises(TrainingFailed, match=r"another run is at work in .*run: wait for it, or use another --out"):
            job(tmp_path).run(ignore, lambda *_: pytest.fail("it must not train"))

    assert job(tmp_path).run(start_another, ignore) is not None
    assert job(tmp_path).run(ignore, ignore) is not None, "once it has ended there is room"


def test_an_interrupted_run_saves_and_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingJob, "_draw", ignore)

    def interrupt(trainer: Trainer, _loss: float) -> None:
        if trainer.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job(tmp_path).run(ignore, interrupt)
    assert not (tmp_path / "models").exists()
    resumed: list[int] = []
    published = job(tmp_path).run(lambda trainer: resumed.append(trainer.step), ignore)
    assert resumed == [7]

    whole = job(tmp_path / "whole").run(ignore, ignore)
    assert published is not None
    assert whole is not None
    assert published[0].weights_sha256 == whole[0].weights_sha256


def test_a_run_that_is_told_to_stop_has_saved_when_it_says_so(tmp_path: Path) -> None:
    steps: list[int] = []
    with pytest.raises(TrainingStopped, match="stopped after step 8 of 12"):
        job(tmp_path).run(ignore, lambda trainer, _: steps.append(trainer.step), lambda: len(steps) == 7)
    assert torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)["step"] == 8
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("stop", [False, True])
def test_what_a_failed_run_raises_does_not_keep_its_trainer(tmp_path: Path, stop: bool) -> None:
    """The trainer of one of several processes holds threads, which must end before the interpreter does."""
    trainers: list[weakref.ref[Trainer]] = []

    def fail(trainer: Trainer, _loss: float) -> None:
        raise RuntimeError("another process has gone")

    with pytest.raises((TrainingFailed, TrainingStopped)) as kept:
        job(tmp_path).run(lambda trainer: trainers.append(weakref.ref(trainer)), ignore if stop else fail, lambda: stop)
    gc.collect()
    assert trainers[0]() is None, kept.value


def test_a_disk_that_is_full_from_the_start_is_found_out_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.tmp").symlink_to("/dev/full")
    steps: list[float] = []
    with pytest.raises(TrainingFailed, match="No space left on device"):
        job(tmp_path).run(ignore, lambda _, loss: steps.append(loss))
    assert steps == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": Path("/nowhere")}, "no data in /nowhere, .*expected one of"),
        ({"preset": "imagenet"}, "no preset 'imagenet'; there is: .*mnist"),
        ({"overrides": OVERRIDES | {"batch": 0}}, "batch is 0; allowed: at least 1"),
        ({"overrides": OVERRIDES | {"learning": 1}}, "there is no field learning"),
        ({"overrides": OVERRIDES | {"network": {"chanels": [8]}}}, "chanels"),
        ({"overrides": OVERRIDES | {"network": {"channels": [8]}}}, "channels, blocks and attention"),
        ({"overrides": OVERRIDES | {"network": TINY | {"groups": 3}}}, "divisible"),
        ({"overrides": OVERRIDES | {"network": TINY | {"attention": [False, True]}}}, "must be multiples of 32"),
        ({"overrides": OVERRIDES | {"network": TINY | {"patch": 8}}}, "8"),
        ({"overrides": OVERRIDES | {"network": TINY | {"channels": [], "blocks": [], "attention": []}}}, "1 or more"),
        ({"overrides": OVERRIDES | {"network": TINY | {"blocks": [0, 0]}}}, "1 or more"),
        ({"overrides": OVERRIDES | {"network": TINY | {"patch": 8}}}, "sides are multiples of 16"),
        ({"overrides": OVERRIDES | {"epochs": float("inf")}}, "epochs is Infinity; .*finite"),
        ({"overrides": OVERRIDES | {"learning_rate": float("nan")}}, "learning_rate is NaN; .*finite"),
        ({"overrides": OVERRIDES | {"seed": 2**31}}, "seed is 2147483648; allowed: below 2147483648"),
        ({"average": 0.5}, r"no average of decay 0\.5; there is 0\.99"),
        ({"device": "abacus"}, "abacus"),
        ({"out": Path("/dev/null/run")}, "/dev/null"),
        ({"overrides": OVERRIDES | {"levels": {"sigma_min": 100.0}}}, "farther apart than .*levels.sigma_max"),
    ],
    ids=[
        "no data",
        "no preset",
        "batch",
        "no setting",
        "no argument",
        "lengths",
        "groups",
        "heads",
        "patch",
        "no channels",
        "no blocks",
        "sides",
        "epochs",
        "rate",
        "seed",
        "average",
        "device",
        "out",
        "levels",
    ],
)
def test_what_cannot_start_is_one_clear_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingFailed, match=message) as failed:
        job(tmp_path, **changes).run(ignore, ignore)
    assert "\n" not in str(failed.value).strip()
    assert list(tmp_path.iterdir()) == [], "nothing is made before it is known that all is well"


def test_a_diverged_run_publishes_nothing(tmp_path: Path) -> None:
    def break_it(trainer: Trainer, _loss: float) -> None:
        next(trainer.network.parameters()).data.fill_(float("nan"))

    with pytest.raises(TrainingFailed, match="lower the learning rate"):
        job(tmp_path).run(ignore, break_it)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04"])
def test_a_damaged_checkpoint_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CHECKPOINT).write_bytes(content)
    with pytest.raises(TrainingFailed, match=r"checkpoint\.pt"):
        job(tmp_path).run(ignore, ignore)


def test_a_checkpoint_of_another_network_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    Trainer(load_mnist(MNIST)[0], TrainingSettings.model_validate(OVERRIDES), tmp_path / "run").save()
    other = OVERRIDES | {"classes": False, "network": TINY | {"channels": [8, 32]}}
    with pytest.raises(TrainingFailed, match="another network"):
        job(tmp_path, overrides=other).run(ignore, ignore)
