"""Models in a batch: which are in memory, and how they share the device."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from models.card import ModelCard
from models.samplers.follow_scores import FollowScores
from models.score import ScoreModel
from models.store import ModelStore
from tests.worker.device.parts import request, run
from worker.device.batch import Batch, Lacking, NoRoom
from worker.device.lane import DeviceFailed, Lane
from worker.queue.requests import SampleRequest


@pytest.fixture
def several(batch: Batch, tmp_path: Path, publish_other: Callable[..., ModelCard]) -> ModelStore:
    """A store of `tiny`, `other` and `third`, all of one size."""
    for name in ("other", "third"):
        publish_other(tmp_path, name, seed=len(name))
    return ModelStore(*batch.store.directories, tmp_path)


def of(model: str, card: ModelCard, count: int = 1) -> SampleRequest:
    return request(card, count).model_copy(update={"model": model})


def loaded(batch: Batch) -> set[str]:
    return {name for name, *_ in batch._lanes}


def test_warming_up_leaves_all_slots_free(batch: Batch) -> None:
    batch.warm_up("tiny")
    assert batch.free == 5
    assert batch.parts == []


def test_two_models_share_the_slots(batch: Batch, tiny_card: ModelCard, tmp_path: Path, publish_other) -> None:  # type: ignore[no-untyped-def]
    other = publish_other(tmp_path)
    both = Batch(ModelStore(*batch.store.directories, tmp_path), slots=3, device="cpu")
    first = both.admit(request(tiny_card, 2), 0, 2)
    second = both.admit(request(tiny_card, 2).model_copy(update={"model": other.name}), 0, 2)
    assert both.free == 0
    done = run(both)
    assert not np.array_equal(done[first], done[second])


def test_a_version_stays_what_it_was_while_it_is_in_use(
    tiny_card: ModelCard, models_dir: Path, tmp_path: Path, publish_other: Callable[..., ModelCard]
) -> None:
    directory = tmp_path / "models"
    shutil.copytree(models_dir, directory)
    batch = Batch(ModelStore(directory), slots=5, device="cpu")
    asked = request(tiny_card, 1).model_copy(update={"weights_sha256": tiny_card.weights_sha256})
    part = batch.admit(asked, 0, 1)
    first = run(batch)[part]
    shutil.rmtree(directory / "tiny")
    part = batch.admit(asked, 0, 1)
    assert np.array_equal(run(batch)[part], first), "its files are gone, what was loaded is not"
    publish_other(directory, "tiny", seed=5)
    part = batch.admit(asked, 0, 1)
    assert np.array_equal(run(batch)[part], first)
    with pytest.raises(Lacking, match="replaced by other weights after the job was accepted"):
        Batch(ModelStore(directory), slots=5, device="cpu").admit(asked, 0, 1)


def test_a_damaged_checkpoint_is_refused_with_its_reason(
    tiny_card: ModelCard, models_dir: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "models"
    shutil.copytree(models_dir, directory)
    weights = directory / "tiny" / "1" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    batch = Batch(ModelStore(directory), slots=5, device="cpu")
    with pytest.raises(Lacking, match="its card says"):
        batch.admit(request(tiny_card, 1), 0, 1)
    weights.unlink()
    with pytest.raises(Lacking, match="cannot be read"):
        batch.admit(request(tiny_card, 1), 0, 1)


def test_a_model_whose_network_is_not_here_is_refused_with_what_there_is(
    tiny_card: ModelCard, models_dir: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "models"
    shutil.copytree(models_dir, directory)
    card = tiny_card.model_copy(update={"network": tiny_card.network.model_copy(update={"kind": "theirs"})})
    (directory / "tiny" / "1" / "card.json").write_text(card.model_dump_json())
    batch = Batch(ModelStore(directory), slots=5, device="cpu")
    with pytest.raises(Lacking, match=r"network 'theirs' is unknown here; there is .*guided-unet"):
        batch.admit(request(tiny_card, 1), 0, 1)


def test_the_model_used_longest_ago_leaves_and_never_one_in_use(
    several: ModelStore, tiny_card: ModelCard, tmp_path: Path
) -> None:
    two = 2.5 * several.size(tiny_card)
    batch = Batch(several, slots=5, device="cpu", memory=two)
    for name in ("tiny", "other", "tiny"):
        batch.admit(of(name, tiny_card), 0, 1)
        run(batch)
    assert loaded(batch) == {"tiny", "other"}
    batch.admit(of("third", tiny_card), 0, 1)
    assert loaded(batch) == {"tiny", "third"}
    batch.admit(of("tiny", tiny_card), 0, 1)
    with pytest.raises(NoRoom, match="other version 1 beside those in use") as caught:
        batch.admit(of("other", tiny_card), 0, 1)
    assert not batch.fits(caught.value.card)
    place, aside = several.path("other", 1), tmp_path / "aside"
    shutil.move(place, aside)
    assert batch.fits(caught.value.card), "what is gone takes no room"
    with pytest.raises(Lacking, match="other"):
        batch.admit(of("other", tiny_card), 0, 1)
    shutil.move(aside, place)
    run(batch)
    assert batch.fits(caught.value.card)
    batch.admit(of("other", tiny_card), 0, 1)
    assert "other" in loaded(batch)


def test_a_model_larger_than_the_budget_may_be_there_alone(several: ModelStore, tiny_card: ModelCard) -> None:
    batch = Batch(several, slots=5, device="cpu", memory=1)
    for name in ("tiny", "other"):
        batch.admit(of(name, tiny_card), 0, 1)
        assert loaded(batch) == {name}
        run(batch)


def test_lanes_share_the_device_by_time_and_chains(
    several: ModelStore, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Batch(several, slots=6, device="cpu")
    long = FollowScores(name="follow_scores", steps=500)
    slow, quick = (
        batch.admit(request(tiny_card, 2, sampler=long).model_copy(update={"model": name}), 0, 2)
        for name in ("tiny", "other")
    )
    clock = 0.0

    def lasting(seconds: float, real: Callable[[], object]) -> Callable[[], object]:
        def step() -> object:
            nonlocal clock
            clock += seconds
            return real()

        return step

    monkeypatch.setattr("worker.device.lane.time", SimpleNamespace(perf_counter=lambda: clock))
    for part, seconds in ((slow, 1.0), (quick, 0.1)):
        monkeypatch.setattr(part.lane.engine, "step", lasting(seconds, part.lane.engine.step))
    while slow.image_steps_done < 12:
        batch.step()
    assert 5 * 2 * 10 <= quick.image_steps_done <= 6 * 2 * 10 + 2


def test_a_lane_that_ran_alone_for_long_is_not_behind_one_that_comes_later(
    several: ModelStore, tiny_card: ModelCard
) -> None:
    batch = Batch(several, slots=6, device="cpu")
    long = FollowScores(name="follow_scores", steps=500)
    first = request(tiny_card, 2, sampler=long)
    part = batch.admit(first, 0, 2)
    part.lane.turn = 3600.0
    batch.step()
    batch.drop(part)
    later = batch.admit(first.model_copy(update={"model": "other"}), 0, 2)
    part = batch.admit(first, 0, 2)
    for _ in range(20):
        batch.step()
    assert part.image_steps_done > 0
    assert later.image_steps_done > 0


@pytest.mark.parametrize("in_use", [False, True])
def test_where_memory_does_not_last_for_another_model_those_not_in_use_leave_or_it_waits(
    several: ModelStore, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch, in_use: bool
) -> None:
    batch = Batch(several, slots=6, device="cpu")
    real = Lane.measure

    def measure(lane: Lane) -> None:
        if len(loaded(batch)) == 2 or (in_use and lane.card.name == "third" and loaded(batch)):
            raise torch.OutOfMemoryError
        real(lane)

    monkeypatch.setattr(Lane, "measure", measure)
    for name in ("tiny", "other"):
        batch.admit(of(name, tiny_card), 0, 1)
        if name == "tiny" or not in_use:
            run(batch)
    if not in_use:
        batch.admit(of("third", tiny_card), 0, 1)
        assert loaded(batch) == {"third"}
        return
    with pytest.raises(NoRoom, match="third") as caught:
        batch.admit(of("third", tiny_card), 0, 1)
    assert loaded(batch) == {"other"}
    assert not batch.fits(caught.value.card), "it is not tried again before it can be alone"
    run(batch)
    assert batch.fits(caught.value.card)


def test_a_model_that_memory_lasts_for_in_part_takes_that_of_those_not_in_use(
    several: ModelStore, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Batch(several, slots=6, device="cpu")
    batch.admit(of("tiny", tiny_card), 0, 1)
    run(batch)
    real = ScoreModel.conditioned_score

    def conditioned_score(model: ScoreModel, x: Tensor, conditions: Tensor) -> Tensor:
        if len(x) > 2 and loaded(batch):
            raise torch.OutOfMemoryError
        return real(model, x, conditions)

    monkeypatch.setattr(ScoreModel, "conditioned_score", conditioned_score)
    part = batch.admit(of("other", tiny_card), 0, 1)
    assert loaded(batch) == {"other"}
    assert not part.lane.engine.narrowed


def test_a_model_that_cannot_be_run_is_refused_while_the_device_works(
    several: ModelStore, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Batch(several, slots=5, device="cpu")
    batch.admit(request(tiny_card, 1), 0, 1)
    monkeypatch.setattr(Lane, "measure", lambda _: 1 / 0)
    with pytest.raises(Lacking, match="other version 1 cannot be run on cpu: division"):
        batch.admit(of("other", tiny_card), 0, 1)
    monkeypatch.setattr("worker.device.batch.works", lambda _: False)
    with pytest.raises(DeviceFailed, match="other version 1"):
        batch.admit(of("other", tiny_card), 0, 1)
