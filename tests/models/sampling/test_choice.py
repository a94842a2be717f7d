"""Which execution is taken, and when: by bits, by nearness and by time."""

import json
import time
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from models.card import ImageShape, ModelCard
from models.parametrisation import Edm
from models.plan import plan
from models.samplers.euler import Euler
from models.sampling.choice import Choice, Probe, Remembered, _widths, choose, key
from models.sampling.execution import Execution
from models.sampling.sample import sample
from models.schedules import karras
from models.score import ScoreModel

TABLE = Euler.table(karras(10, 0.01, 8, 7))
OTHER = Execution("channels_last")
THIRD = Execution("eager", "bfloat16")


class Slow(nn.Module):
    """A network of known scores, which takes some time, and may depend on the width of the batch."""

    def __init__(self, width: float = 0.0) -> None:
        super().__init__()
        self.width = width

    def condition(self, noise_level: Tensor) -> Tensor:
        return noise_level[:, None]

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        time.sleep(0.004)
        return 0.5 * x + self.width * len(x)


class Other(nn.Module):
    """The same, run in another way: `seconds` long and wrong by `error`."""

    def __init__(
        self, network: nn.Module, seconds: float = 0.0, error: float = 0.0, only_at: int | None = None
    ) -> None:
        super().__init__()
        self.network, self.seconds, self.error, self.only_at = network, seconds, error, only_at

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        time.sleep(self.seconds)
        out = 0.5 * x + self.network.width * len(x)  # type: ignore[operator]
        return out + self.error * torch.sign(x) if self.only_at in (None, len(x)) else out


def model_of(network: nn.Module) -> ScoreModel:
    return ScoreModel(network, Edm(data_mean=0.5, data_std=0.3), ImageShape(channels=1, height=4, width=4))


def choose_among(
    monkeypatch: pytest.MonkeyPatch, others: dict[Execution, Other], exact: bool, network: Slow | None = None
) -> tuple[ScoreModel, Choice]:
    model = model_of(network or Slow())
    for other in others.values():
        other.network = model.network
    monkeypatch.setattr(Execution, "of", lambda self, _: others[self])
    return model, choose(model, TABLE, slots=8, exact=exact, among=[Execution(), *others])


@pytest.mark.parametrize("exact", [True, False])
def test_the_fastest_with_the_same_bits_is_taken(monkeypatch: pytest.MonkeyPatch, exact: bool) -> None:
    others = {OTHER: Other(nn.Identity(), 0.001), THIRD: Other(nn.Identity(), 0.0)}
    model, choice = choose_among(monkeypatch, others, exact)
    assert (choice.execution, choice.widths) == (THIRD, None)
    assert model.executed is others[THIRD]
    assert choice.time_ratios[str(THIRD)] < choice.time_ratios[str(OTHER)] < 1


def test_what_is_not_faster_than_the_network_as_it_is_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    model, choice = choose_among(monkeypatch, {OTHER: Other(nn.Identity(), 0.012)}, exact=True)
    assert choice.execution == Execution()
    assert choice.time_ratios[str(OTHER)] > 1
    assert model.executed is None


@pytest.mark.parametrize("only_at", [None, 2, 3])
def test_one_with_other_bits_at_any_width_is_only_taken_where_bits_do_not_matter(
    monkeypatch: pytest.MonkeyPatch, only_at: int | None
) -> None:
    others = {OTHER: Other(nn.Identity(), error=1e-5, only_at=only_at)}
    assert choose_among(monkeypatch, others, exact=True)[1].execution == Execution()
    assert choose_among(monkeypatch, others, exact=False)[1].execution == OTHER


@pytest.mark.parametrize("exact", [True, False])
def test_a_network_that_needs_one_width_is_pinned_whatever_is_measured(
    monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    network = Slow()
    network.needs_one_width = True
    assert choose_among(monkeypatch, {}, exact, network)[1].widths == (4,)


@pytest.mark.parametrize("error", [0.1, float("nan")])
def test_one_whose_images_look_otherwise_is_never_taken(monkeypatch: pytest.MonkeyPatch, error: float) -> None:
    model, choice = choose_among(monkeypatch, {OTHER: Other(nn.Identity(), error=error)}, exact=False)
    assert choice == Choice(Execution())
    assert model.executed is None


@pytest.mark.parametrize("slots", [1, 8])
@pytest.mark.parametrize("needs_label", [False, True])
def test_one_that_takes_the_last_class_for_another_is_never_taken(
    monkeypatch: pytest.MonkeyPatch, slots: int, needs_label: bool
) -> None:
    edm, image = Edm(data_mean=0.5, data_std=0.3), ImageShape(channels=1, height=4, width=4)
    model = ScoreModel(Classes(), edm, image, classes=1000, needs_label=needs_label)
    monkeypatch.setattr(Execution, "of", lambda _self, _network: Classes(last=998))
    assert choose(model, TABLE, slots, exact=False, among=[OTHER]) == Choice(Execution())


class Classes(Slow):
    """A network that is told a class, and knows none beyond the `last`."""

    def __init__(self, last: int = 1000) -> None:
        super().__init__()
        self.last = last

    def condition(self, noise_level: Tensor, label: Tensor) -> Tensor:  # type: ignore[override]
        return torch.stack([noise_level, label], dim=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        told = condition[:, 1:, None, None]
        return 0.5 * x + 0.5 * (told != 1000) * told.clamp(max=self.last).remainder(2)


def test_one_that_fails_is_never_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(execution: Execution, network: nn.Module) -> nn.Module:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(Execution, "of", of)
    model = model_of(Slow())
    assert choose(model, TABLE, slots=3, exact=False, among=[OTHER, THIRD]) == Choice(Execution())
    assert model.executed is None


def test_where_the_width_changes_bits_all_is_evaluated_at_one_unless_bits_do_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = {OTHER: Other(nn.Identity())}
    _, choice = choose_among(monkeypatch, others, exact=True, network=Slow(width=1e-6))
    assert (choice.execution, choice.widths) == (OTHER, (4,))
    _, choice = choose_among(monkeypatch, others, exact=False, network=Slow(width=1e-6))
    assert choice.widths is None
    wrong_there = {OTHER: Other(nn.Identity(), error=1e-5, only_at=4)}
    _, choice = choose_among(monkeypatch, wrong_there, exact=True, network=Slow(width=1e-6))
    assert (choice.execution, choice.widths) == (Execution(), (4,))


class _Widths:
    """A model of a GPU, whose scores have other bits at some widths."""

    needs_one_width = False
    device = torch.device("cuda")

    def __init__(self, others: set[int]) -> None:
        self.others = others

    def conditioned_score(self, x: Tensor, conditions: Tensor) -> Tensor:
        return 0.5 * x + 1e-6 * (len(x) in self.others)


@pytest.mark.parametrize(
    ("others", "slots", "expected"),
    [
        (set(), 64, None),
        ({2, 4, 8}, 16, (12, 16, 32)),
        ({2, 4, 8, 48}, 64, (12, 16, 24, 32, 64)),
        ({2, 4, 8, 12, 16, 24, 48, 64}, 64, (32,)),
    ],
    ids=["none", "narrow", "some", "all"],
)
def test_a_gpu_has_all_recorded_widths_whose_bits_are_those_of_the_one_that_all_workers_have(
    others: set[int], slots: int, expected: tuple[int, ...] | None
) -> None:
    model, most = _Widths(others), -(-max(slots, 32) // 32) * 32
    x = torch.randn(most, 1, 4, 4)
    probe = Probe(1.0, x, torch.zeros(most, 3), 0.5 * x)
    assert _widths(cast(ScoreModel, model), [probe], slots, 32, exact=True) == expected


def test_a_device_on_which_nothing_helps_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    choose(model_of(_Positional()), TABLE, slots=2, among=[])
    assert "other last bits in another slot" in caplog.text


class _Positional(Slow):
    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return 0.5 * x + 1e-3 * torch.arange(len(x))[:, None, None, None]


def test_what_is_probed_is_halved_where_memory_does_not_last() -> None:
    class Large(Slow):
        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            if len(x) > 4:
                raise MemoryError
            return 0.5 * x

    assert choose(model_of(Large()), TABLE, slots=16, among=[]) == Choice(Execution())


def test_a_real_network_keeps_its_bits_and_its_pixels(tiny_model: ScoreModel, tiny_card: ModelCard) -> None:
    _, table = plan(None, tiny_card)
    expected = sample(tiny_model, table, 3, seed=1)
    choice = choose(tiny_model, table, slots=5)
    try:
        assert choice.widths is None
        assert (sample(tiny_model, table, 3, seed=1) == expected).all()
    finally:
        tiny_model.executed = None


def test_choices_are_remembered_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "executions.json"
    remembered, choice = Remembered(path), Choice(OTHER, (4, 8), 3, {"eager bfloat16": 0.8})
    assert remembered.get("a") is None
    remembered.put("a", choice)
    remembered.put("b", Choice(Execution()))
    assert (Remembered(path).get("a"), Remembered(path).get("b")) == (choice, Choice(Execution()))


@pytest.mark.parametrize("damaged", ["", "[]", '{"a": 1}', '{"a": {"execution": {"mood": 1}, "widths": null}}'])
def test_a_damaged_file_is_written_anew(tmp_path: Path, damaged: str) -> None:
    path = tmp_path / "executions.json"
    path.write_text(damaged)
    remembered = Remembered(path)
    assert remembered.get("a") is None
    remembered.put("a", Choice(Execution()))
    assert remembered.get("a") == Choice(Execution())
    assert json.loads(path.read_text())["a"]["execution"] == {"mode": "eager", "dtype": "float32"}


def test_a_place_that_cannot_be_written_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    Remembered(tmp_path / "file" / "executions.json").put("a", Choice(Execution()))
    assert "not remembered" in caplog.text


def test_what_a_choice_depends_on_tells_it_apart(tiny_model: ScoreModel) -> None:
    asked = [("a" * 64, 8, True), ("b" * 64, 8, True), ("a" * 64, 9, True), ("a" * 64, 8, False)]
    assert len({key(tiny_model, *one) for one in asked}) == 4
    assert torch.__version__ in key(tiny_model, *asked[0])
