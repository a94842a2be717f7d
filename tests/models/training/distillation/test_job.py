import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.card import ModelCard
from models.plan import plan
from models.samplers.settings import bare
from models.sampling.sample import sample
from models.score import ScoreModel
from models.store import ModelStore
from models.training.distillation.job import DistillationJob
from models.training.job import TrainingFailed, TrainingStopped

OVERRIDES = {"batch": 256, "epochs": 25, "learning_rate": 3e-3, "optimizer": "adam", "ema_decay": 0.98, "execution": {}}
SHORT = OVERRIDES | {"epochs": 1}


def ignore(*_: object) -> None:
    pass


def distillation(store: ModelStore, out: Path, **changes: Any) -> DistillationJob:
    values = {
        "model": "plane",
        "name": "plane-fast",
        "out": out,
        "store": out / "models",
        "overrides": SHORT,
        "flows": {"count": 1024, "levels": 8, "execution": "eager float32"},
        "device": "cpu",
        "save_every": 50,
        "grid_every": 10_000,
        "command": "scoreserve distill plane",
    }
    job = DistillationJob.model_validate(values | changes)
    if not job.store.exists():
        job.store.mkdir(parents=True)
        (job.store / "plane").symlink_to(store.path("plane", 1).parent)
    return job


def test_the_distilled_model_is_nearer_to_the_data_than_its_teacher_is_in_as_few_evaluations(
    plane: ModelStore, points: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    published = distillation(plane, tmp_path, overrides=OVERRIDES).run(ignore, ignore, say=said.append)
    assert published is not None
    store, fast = ModelStore(tmp_path / "models"), published[0]
    teacher = store.card("plane")
    assert "1,024 of 1,024 flows" in said
    assert fast.provenance["flows"]["teacher"] == "plane version 1"
    assert (fast.sampler.name, fast.denoises) == ("multistep_consistency", False)
    real = torch.from_numpy(np.load(points)).float().flatten(1)

    def apart(card: ModelCard, sampler: str, levels: int) -> float:
        _, table = plan(bare(sampler).model_copy(update={"levels": levels}), card)
        found = sample(ScoreModel.load(store, card), table, count=200, seed=0, slots=200)
        return float(torch.cdist(torch.from_numpy(found).float().flatten(1), real).min(1).values.mean())

    for evaluations in (1, 2, 4):  # of a single one Euler makes the mean of the data, and is refused
        assert apart(fast, "multistep_consistency", evaluations) < 0.7 * apart(teacher, "euler", max(2, evaluations))


def test_a_run_that_was_stopped_ends_in_the_same_weights(plane: ModelStore, tmp_path: Path) -> None:
    whole = distillation(plane, tmp_path / "whole").run(ignore, ignore)
    again = distillation(plane, tmp_path / "stopped")
    asked = iter((False, True))
    with pytest.raises(TrainingStopped, match="stopped after 64 of 1,024 flows"):
        again.run(ignore, ignore, lambda: next(asked))
    steps: list[int] = []
    with pytest.raises(TrainingStopped, match="stopped after step 3 of 4"):
        again.run(ignore, lambda trainer, _: steps.append(trainer.step), lambda: len(steps) == 2)
    resumed = again.run(ignore, ignore)
    assert whole is not None
    assert resumed is not None
    assert resumed[0].weights_sha256 == whole[0].weights_sha256


def test_a_run_whose_model_has_its_teachers_name_goes_on_by_the_same_command(plane: ModelStore, tmp_path: Path) -> None:
    shutil.copytree(plane.path("plane", 1).parent, tmp_path / "models" / "plane")
    few = {"count": 32, "levels": 2, "execution": "eager float32"}
    job = distillation(plane, tmp_path, name="plane", flows=few)
    assert job.run(ignore, ignore) == job.run(ignore, ignore)


def test_what_cannot_be_distilled_is_told_in_a_line(
    plane: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"count": 32, "levels": 2, "execution": "eager float32"}
    distillation(plane, tmp_path / "out", name="twice", flows=few).run(ignore, ignore)
    with pytest.raises(TrainingFailed, match=r"no average of decay 0\.5; there is 0\.92, 0\.98, 0\.995"):
        distillation(plane, tmp_path / "average", average=0.5).run(ignore, ignore)
    assert not (tmp_path / "average" / "flows").exists(), "it is known before they are made"
    again = distillation(plane, tmp_path / "other", model="twice").model_copy(
        update={"store": tmp_path / "out" / "models"}
    )
    with pytest.raises(TrainingFailed, match="twice is a consistency model already"):
        again.run(ignore, ignore)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingFailed, match="a distillation is one process"):
        again.run(ignore, ignore)
