import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import numpy as np
import pytest
import torch
from torch import Tensor

from models.card import ModelCard
from models.images import Pixels
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.follow_scores import FollowScores
from models.samplers.heun import Heun
from models.samplers.plan import plan
from models.samplers.settings import SamplerSettings
from models.sampling.execution import Execution
from models.sampling.sample import sample
from models.score import ScoreModel
from models.store import ModelStore
from worker.device import state
from worker.device.batch import Batch, NoRoom, Refused
from worker.device.lane import DeviceFailed, Lane, Part
from worker.queue.requests import InpaintRequest, SampleRequest
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


def test_with_several_rows_a_step_the_images_and_what_is_told_of_them_are_the_same(
    batch: Batch, tiny_card: ModelCard, tiny_model: ScoreModel
) -> None:
    told: list[tuple[int, int]] = []
    batch.on_step = lambda card, image_steps, evaluations, seconds: told.append((image_steps, evaluations))
    long, short = request(tiny_card, 3, 1), request(tiny_card, 2, 2, AnnealedLangevin(levels=2, steps_per_level=1))
    parts = [batch.admit(r, 0, r.count) for r in (long, short)]
    parts[0].lane.engine.rows = 8
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
    with pytest.raises(Refused, match="no model tiny version 9"):
        batch.admit(request(tiny_card, 1).model_copy(update={"version": 9}), 0, 1)
    inpaint = InpaintRequest.model_construct(
        **{**dict(request(tiny_card, 1)), "kind": "inpaint"}, image=b"\0" * 63, mask=b"\1" * 64
    )
    with pytest.raises(Refused, match="image has 63 pixels; tiny takes 64"):
        batch.admit(inpaint, 0, 1)


def poison(part: Part) -> None:
    """Makes the first image of a part NaN."""
    engine = part.lane.engine
    engine._x[engine.chains.index(part.chains[0])] = float("nan")


def test_an_image_that_is_not_finite_is_seen_on_its_way_and_leaves_alone(
    batch: Batch, tiny_card: ModelCard, tiny_model: ScoreModel
) -> None:
    r = request(tiny_card, 2)
    good, bad = batch.admit(r, 0, 2), batch.admit(request(tiny_card, 2, 2), 0, 2)
    batch.step()
    poison(bad)
    assert batch.diverged() == [bad]
    assert bad.fault is not None
    assert "image 0 became NaN or infinite within 1 of 7" in bad.fault
    assert batch.parts == [good]
    assert np.array_equal(run(batch)[good], sample(tiny_model, plan(r.sampler, tiny_card)[1], 2, 1))
    assert good.fault is None


def test_an_image_that_is_not_finite_at_its_end_is_a_fault(batch: Batch, tiny_card: ModelCard) -> None:
    good, bad = batch.admit(request(tiny_card, 1), 0, 1), batch.admit(request(tiny_card, 1, 2), 0, 1)
    for _ in range(6):
        batch.step()
    poison(bad)
    assert set(batch.step()) == {good, bad}
    assert good.fault is None
    assert bad.fault is not None
    assert "NaN" in bad.fault


def break_network(part: Part, monkeypatch: pytest.MonkeyPatch, when: Callable[[Tensor], bool]) -> None:
    """Makes the network of a part's lane throw whenever `when` says so of its input."""
    network = part.lane.engine.model.network
    real = network.forward

    def forward(x: Tensor, condition: Tensor) -> Tensor:
        if when(x):
            raise RuntimeError("illegal instruction")
        return real(x, condition)

    monkeypatch.setattr(network, "forward", forward)


def test_a_part_that_breaks_the_step_is_found_and_the_others_go_on(
    batch: Batch, tiny_card: ModelCard, tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    r = request(tiny_card, 1)
    parts = [batch.admit(r, index, 1) for index in range(3)]
    batch.step()
    poison(parts[1])
    break_network(parts[0], monkeypatch, lambda x: bool(x.isnan().any()))
    assert batch.step() == [parts[1]]
    assert parts[1].fault == "it cannot be sampled: illegal instruction"
    assert [part.image_steps_done for part in parts] == [2, 1, 2]
    done = run(batch)
    whole = sample(tiny_model, plan(r.sampler, tiny_card)[1], 3, 1)
    for index in (0, 2):
        assert np.array_equal(done[parts[index]], whole[[index]])


def test_an_error_that_passes_costs_nothing(
    batch: Batch, tiny_card: ModelCard, tiny_model: ScoreModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    r = request(tiny_card, 4)
    parts = [batch.admit(r, 0, 2), batch.admit(r, 2, 2)]
    errors = iter([False, True])
    break_network(parts[0], monkeypatch, lambda _: next(errors, False))
    done = run(batch)
    whole = sample(tiny_model, plan(r.sampler, tiny_card)[1], 4, 1)
    assert np.array_equal(np.concatenate([done[part] for part in parts]), whole)


def test_a_device_that_fails_at_everything_is_told_from_a_bad_part(
    batch: Batch, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = batch.admit(request(tiny_card, 1), 0, 1)
    break_network(part, monkeypatch, lambda _: True)
    with pytest.raises(DeviceFailed, match="illegal instruction"):
        batch.step()


@pytest.mark.parametrize("where", ["diverged", "look_for_faults", "pixels", "estimates"])
def test_a_device_that_fails_is_told_wherever_the_host_hears_of_it(
    batch: Batch, tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A GPU tells of an error in a step when the host next waits for it, which may be anywhere."""
    part = batch.admit(request(tiny_card, 1), 0, 1)
    batch.watch([part])
    batch.step()
    batch.pause(part)
    hear = {
        "diverged": batch.diverged,
        "look_for_faults": part.look_for_faults,
        "pixels": part.pixels,
        "estimates": lambda: part.estimates(1),
    }[where]

    def fail(*_: object) -> NoReturn:
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr("torch.Tensor.isfinite", fail)
    monkeypatch.setattr("torch.isfinite", fail)
    monkeypatch.setattr("worker.device.lane.to_pixels", fail)
    if where == "estimates":  # of an image in its slot
        batch._fill()
        batch.step()
    with pytest.raises(RuntimeError, match="illegal memory"):  # something else than the device is at fault
        hear()
    monkeypatch.setattr("worker.device.lane.works", lambda _: False)
    with pytest.raises(DeviceFailed, match="illegal memory"):
        hear()


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
    with pytest.raises(Refused, match="replaced by other weights after the job was accepted"):
        Batch(ModelStore(directory), slots=5, device="cpu").admit(asked, 0, 1)


def test_a_damaged_checkpoint_is_refused_with_its_reason(
    tiny_card: ModelCard, models_dir: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "models"
    shutil.copytree(models_dir, directory)
    weights = directory / "tiny" / "1" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    batch = Batch(ModelStore(directory), slots=5, device="cpu")
    with pytest.raises(Refused, match="its card says"):
        batch.admit(request(tiny_card, 1), 0, 1)
    weights.unlink()
    with pytest.raises(Refused, match="cannot be read"):
        batch.admit(request(tiny_card, 1), 0, 1)


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


def test_a_model_whose_network_is_not_here_is_refused_with_what_there_is(
    tiny_card: ModelCard, models_dir: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "models"
    shutil.copytree(models_dir, directory)
    card = tiny_card.model_copy(update={"network": tiny_card.network.model_copy(update={"kind": "theirs"})})
    (directory / "tiny" / "1" / "card.json").write_text(card.model_dump_json())
    batch = Batch(ModelStore(directory), slots=5, device="cpu")
    with pytest.raises(Refused, match=r"network 'theirs' is unknown here; there is .*guided-unet"):
        batch.admit(request(tiny_card, 1), 0, 1)


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


def test_a_long_part_does_not_lock_out_a_short_one_in_another_lane(batch: Batch, tiny_card: ModelCard) -> None:
    long = batch.admit(request(tiny_card, 4, sampler=FollowScores(name="follow_scores", steps=50)), 0, 4)
    short = batch.admit(request(tiny_card, 1), 0, 1)
    for _ in range(7):
        finished = batch.step()
    assert finished == [short]
    assert long.image_steps_done == 28


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
    with pytest.raises(Refused, match="other"):
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
    with pytest.raises(Refused, match="other version 1 cannot be run on cpu: division"):
        batch.admit(of("other", tiny_card), 0, 1)
    monkeypatch.setattr("worker.device.batch.works", lambda _: False)
    with pytest.raises(DeviceFailed, match="other version 1"):
        batch.admit(of("other", tiny_card), 0, 1)
