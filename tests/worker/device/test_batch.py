from pathlib import Path

import numpy as np
import pytest

from models.card import ModelCard
from models.plan import plan
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.follow_scores import FollowScores
from models.sampling.execution import Execution
from models.sampling.sample import sample
from models.score import ScoreModel
from models.store import ModelStore
from tests.worker.device.parts import SHORT, request, run
from worker.device import state
from worker.device.batch import Batch, Lacking, Refused
from worker.device.lane import Lane
from worker.queue.requests import InpaintRequest, SampleRequest


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


def test_with_several_rows_a_step_the_images_and_what_is_told_of_them_are_the_same(
    batch: Batch, tiny_card: ModelCard, tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(Lane, "rows", lambda _lane, _images: 8)
    batch.on_step = lambda card, image_steps, evaluations, seconds: told.append((image_steps, evaluations))
    long, short = request(tiny_card, 3, 1), request(tiny_card, 2, 2, AnnealedLangevin(levels=2, steps_per_level=1))
    parts = [batch.admit(r, 0, r.count) for r in (long, short)]
    assert batch.step() == [parts[1]]
    done = {parts[1]: parts[1].pixels()} | run(batch)
    for part, r in zip(parts, (long, short), strict=True):
        assert np.array_equal(done[part], sample(tiny_model, plan(r.sampler, tiny_card)[1], r.count, r.seed))
    rows = len(parts[1].chains[0].table)
    assert told == [(5 * rows, rows), (3 * (7 - rows), 7 - rows)]


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
    with pytest.raises(Lacking, match="no model tiny version 9"):
        batch.admit(request(tiny_card, 1).model_copy(update={"version": 9}), 0, 1)
    inpaint = InpaintRequest.model_construct(
        **{**dict(request(tiny_card, 1)), "kind": "inpaint"}, image=b"\0" * 63, mask=b"\1" * 64
    )
    with pytest.raises(Refused, match="image has 63 pixels; tiny takes 64"):
        batch.admit(inpaint, 0, 1)


@pytest.mark.parametrize("steps", [0, 1, 3, 4, 9, 12])
def test_saved_state_is_gone_on_from_in_another_batch(
    batch: Batch, tiny_card: ModelCard, tiny_model: ScoreModel, steps: int
) -> None:
    """Seven images on five slots: some are finished, some on their way, some not begun. Heun carries a row."""
    r = request(tiny_card, 7)
    part = batch.admit(r, 0, 7)
    for _ in range(steps):
        batch.step()
    batch.drop(part)
    saved = state.pack(part.chains, part.lane.arithmetic)
    other = Batch(batch.store, slots=2, device="cpu")
    again = other.admit(r, 0, 7, saved)
    assert again.image_steps_done == part.image_steps_done == min(5, 7) * min(steps, 7) + 2 * max(0, steps - 7)
    assert np.array_equal(run(other)[again], sample(tiny_model, plan(r.sampler, tiny_card)[1], 7, 1))
    assert other.image_steps == 7 * 7 - part.image_steps_done


def test_a_shard_whose_images_were_all_saved_needs_no_step(batch: Batch, tiny_card: ModelCard) -> None:
    part = batch.admit(request(tiny_card, 2), 0, 2)
    pixels = run(batch)[part]
    other = Batch(batch.store, slots=2, device="cpu")
    again = other.admit(request(tiny_card, 2), 0, 2, state.pack(part.chains, part.lane.arithmetic))
    assert other.step() == [again]
    assert np.array_equal(again.pixels(), pixels)
    assert other.image_steps == 0


def test_state_that_does_not_fit_is_not_gone_on_from(
    batch: Batch, tiny_card: ModelCard, tiny_model: ScoreModel, caplog: pytest.LogCaptureFixture
) -> None:
    r = request(tiny_card, 2)
    part = batch.admit(r, 0, 2)
    batch.step()
    batch.drop(part)
    saved = state.pack(part.chains, part.lane.arithmetic)
    for wrong in (saved[:-1], b"", state.pack(part.chains[:1], part.lane.arithmetic)):
        caplog.clear()
        again = batch.admit(r, 0, 2, wrong)
        assert again.image_steps_done == 0
        assert "does not fit" in caplog.text
        assert np.array_equal(run(batch)[again], sample(tiny_model, plan(r.sampler, tiny_card)[1], 2, 1))


def test_state_of_another_arithmetic_is_not_gone_on_from(
    batch: Batch, tiny_card: ModelCard, caplog: pytest.LogCaptureFixture
) -> None:
    """A chain of a GPU, or of bfloat16, would have the bits of neither way."""
    r = request(tiny_card, 2)
    part = batch.admit(r, 0, 2)
    batch.step()
    batch.drop(part)
    assert part.lane.arithmetic.startswith("eager float32 on ")
    for arithmetic, cursor in ((part.lane.arithmetic, 2), ("eager float32 on another device", 0)):
        again = batch.admit(r, 0, 2, state.pack(part.chains, arithmetic))
        assert again.image_steps_done == cursor
        batch.drop(again)
    assert "would go on in eager float32" in caplog.text


@pytest.mark.parametrize("of_card", [True, False])
def test_one_execution_is_fixed_by_the_operator_or_the_card(
    batch: Batch, tiny_card: ModelCard, tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch, of_card: bool
) -> None:
    name = "channels_last bfloat16"
    if of_card:
        card = tiny_card.model_copy(update={"execution": name})
        monkeypatch.setattr(batch.store, "card", lambda *_: card)
    else:
        batch = Batch(batch.store, slots=5, device="cpu", execution=Execution.named(name))
    parts = [batch.admit(request(tiny_card, count), 0, count) for count in (1, 4)]
    pixels = run(batch)
    assert batch.arithmetics["tiny"].startswith(f"{name} on ")
    assert np.array_equal(pixels[parts[0]][0], pixels[parts[1]][0]), "the same bits in any company"
    in_float32 = sample(tiny_model, plan(request(tiny_card, 4).sampler, tiny_card)[1], 4, 1)
    assert not np.array_equal(pixels[parts[1]], in_float32), "and not those of float32"


def test_labels_that_a_model_does_not_know_are_refused(batch: Batch, tiny_card: ModelCard) -> None:
    for told in ({"labels": (0,)}, {"guidance": 2.0}):
        with pytest.raises(Refused, match="tiny knows no classes"):
            batch.admit(request(tiny_card, 1).model_copy(update=told), 0, 1)
    assert batch.parts == []


def test_guided_images_are_counted_as_they_are_made(labelled_dir: Path, labelled_card: ModelCard) -> None:
    told: list[tuple[int, int]] = []
    batch = Batch(ModelStore(labelled_dir), slots=5, device="cpu")
    batch.on_step = lambda _card, image_steps, evaluations, _seconds: told.append((image_steps, evaluations))
    asked = SampleRequest(
        model="labelled", version=1, count=3, seed=1, sampler=plan(SHORT, labelled_card)[0], labels=(0, 1), guidance=2.0
    )
    part = batch.admit(asked, 0, 3)
    assert [chain.label for chain in part.chains] == [0, 1, 0]
    run(batch)
    assert part.image_steps_done == batch.image_steps == 3 * 2 * 7
    assert told == [(6, 1)] * 7


def test_a_long_part_does_not_lock_out_a_short_one_in_another_lane(batch: Batch, tiny_card: ModelCard) -> None:
    long = batch.admit(request(tiny_card, 4, sampler=FollowScores(name="follow_scores", steps=50)), 0, 4)
    short = batch.admit(request(tiny_card, 1), 0, 1)
    for _ in range(7):
        finished = batch.step()
    assert finished == [short]
    assert long.image_steps_done == 28
