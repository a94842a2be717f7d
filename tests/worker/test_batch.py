import numpy as np
import pytest

from models.card import ModelCard
from models.images import Pixels
from models.sampling.plan import plan
from models.sampling.sample import sample
from models.sampling.settings import AnnealedLangevin, FollowScores, Heun, SamplerSettings
from models.score import ScoreModel
from models.store import ModelStore
from worker.batch import Batch, Part, Refused
from worker.requests import InpaintRequest, SampleRequest
from worker.settings import WorkerSettings

SHORT = Heun(name="heun", levels=4)


def request(card: ModelCard, count: int, seed: int = 1, sampler: SamplerSettings = SHORT) -> SampleRequest:
    return SampleRequest(model="tiny", version=1, count=count, seed=seed, sampler=plan(sampler, card)[0])


def run(batch: Batch) -> dict[Part, Pixels]:
    done: dict[Part, Pixels] = {}
    while batch.parts:
        done |= {part: part.pixels() for part in batch.step()}
    return done


@pytest.fixture
def batch(settings: WorkerSettings) -> Batch:
    return Batch(settings.store(), slots=5, device="cpu")


def test_parts_of_different_lengths_share_the_slots(batch: Batch, tiny_card: ModelCard, tiny_model: ScoreModel) -> None:
    asked = [
        request(tiny_card, 7, 1),
        request(tiny_card, 2, 2, AnnealedLangevin(levels=3, steps_per_level=2)),
        request(tiny_card, 3, 3),
    ]
    parts = [batch.admit(r, 0, r.count) for r in asked]
    assert batch.free == 0
    done = run(batch)
    for part, r in zip(parts, asked, strict=True):
        expected = sample(tiny_model, plan(r.sampler, tiny_card)[1], r.count, r.seed, slots=1)
        assert np.array_equal(done[part], expected)


def test_a_part_is_a_range_of_the_job(batch: Batch, tiny_card: ModelCard, tiny_model: ScoreModel) -> None:
    r = request(tiny_card, 9)
    part = batch.admit(r, 6, 3)
    whole = sample(tiny_model, plan(r.sampler, tiny_card)[1], 9, r.seed)
    assert np.array_equal(run(batch)[part], whole[6:])


def test_dropping_frees_slots_for_who_waits(batch: Batch, tiny_card: ModelCard) -> None:
    first = batch.admit(request(tiny_card, 5), 0, 5)
    second = batch.admit(request(tiny_card, 2), 0, 2)
    batch.step()
    assert second.image_steps_done == 0
    batch.drop(first)
    batch.step()
    assert second.image_steps_done == 2
    assert batch.free == 3


def test_what_cannot_be_fulfilled_is_refused(batch: Batch, tiny_card: ModelCard) -> None:
    with pytest.raises(Refused, match="no model tiny version 9"):
        batch.admit(request(tiny_card, 1).model_copy(update={"version": 9}), 0, 1)
    inpaint = InpaintRequest.model_construct(
        **{**dict(request(tiny_card, 1)), "kind": "inpaint"}, image=b"\0" * 63, mask=b"\1" * 64
    )
    with pytest.raises(Refused, match="63 and 64"):
        batch.admit(inpaint, 0, 1)


def test_images_that_are_not_finite_are_refused_alone(
    batch: Batch, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = batch.admit(request(tiny_card, 1), 0, 1), batch.admit(request(tiny_card, 1, 2), 0, 1)
    batch.step()
    engine = bad.lane.engine
    engine._x[engine.chains.index(bad.chains[0])] = float("nan")
    finished: list[Part] = []
    while batch.parts:
        finished += batch.step()
    assert good.pixels().shape == (1, 8, 8, 1)
    with pytest.raises(Refused, match="NaN"):
        bad.pixels()


def test_warming_up_leaves_all_slots_free(batch: Batch) -> None:
    batch.warm_up("tiny")
    assert batch.free == 5
    assert batch.parts == []


def test_two_models_share_the_slots(batch: Batch, tiny_card: ModelCard, tmp_path, publish_other) -> None:  # type: ignore[no-untyped-def]
    other = publish_other(tmp_path)
    both = Batch(ModelStore(*batch.store.directories, tmp_path), slots=3, device="cpu")
    first = both.admit(request(tiny_card, 2), 0, 2)
    second = both.admit(request(tiny_card, 2).model_copy(update={"model": other.name}), 0, 2)
    assert both.free == 0
    done = run(both)
    assert not np.array_equal(done[first], done[second])


def test_a_long_part_does_not_lock_out_a_short_one_in_another_lane(batch: Batch, tiny_card: ModelCard) -> None:
    long = batch.admit(request(tiny_card, 4, sampler=FollowScores(name="follow_scores", steps=50)), 0, 4)
    short = batch.admit(request(tiny_card, 1), 0, 1)
    for _ in range(7):
        finished = batch.step()
    assert finished == [short]
    assert long.image_steps_done == 28
