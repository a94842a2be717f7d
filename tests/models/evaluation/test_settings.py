import pytest

from models.card import ModelCard
from models.evaluation.settings import Told, settings_of
from models.guidance import Guidance
from models.samplers import NAMES
from models.samplers.annealed_langevin import AnnealedLangevin
from models.samplers.consistent_annealed import ConsistentAnnealed
from models.samplers.euler import Euler
from models.samplers.heun import Heun
from models.samplers.sampler import SamplerRefused


def discrete(card: ModelCard) -> ModelCard:
    values = card.model_dump() | {"sigmas": (10.0, 1.0, 0.01), "sampler": {"name": "annealed_langevin"}}
    return ModelCard.model_validate(values)


def test_without_a_wish_the_models_own_sampler_and_heun(tiny_card: ModelCard) -> None:
    own, heun = settings_of([], [], tiny_card)
    assert (own.sampler.name, len(own.table)) == ("annealed_langevin", 13)
    assert (heun.sampler.name, len(heun.table)) == ("heun", 35)
    assert [s.sampler.name for s in settings_of([], [], discrete(tiny_card))] == ["annealed_langevin"]


def test_each_sampler_with_each_budget(tiny_card: ModelCard) -> None:
    found = settings_of([Heun(name="heun"), Euler(name="euler")], [5, 9], tiny_card)
    assert [(s.sampler.name, len(s.table)) for s in found] == [("heun", 5), ("heun", 9), ("euler", 5), ("euler", 9)]


def test_budgets_alone_are_for_every_sampler_that_can_follow_them(tiny_card: ModelCard) -> None:
    of_scores = {*NAMES} - {"multistep_consistency"}
    assert {s.sampler.name for s in settings_of([], [20], tiny_card, known=True)} == of_scores
    assert {s.sampler.name for s in settings_of([], [20], tiny_card)} == of_scores - {"repaint"}
    names = {s.sampler.name for s in settings_of([], [20], discrete(tiny_card))}
    assert names == {"annealed_langevin", "consistent_annealed", "langevin", "follow_scores"}
    assert [s.sampler.name for s in settings_of([], [1], tiny_card)] == ["follow_scores"]


def test_a_sampler_that_was_asked_for_and_cannot_is_refused_with_its_name(tiny_card: ModelCard) -> None:
    with pytest.raises(SamplerRefused, match="heun with 2 evaluations: levels: a single level leads nowhere"):
        settings_of([Heun(name="heun")], [2], tiny_card)


def test_no_table_is_there_twice(tiny_card: ModelCard) -> None:
    assert len(settings_of([Heun(name="heun")], [5, 6], tiny_card)) == 1
    (one,) = settings_of([ConsistentAnnealed(name="consistent_annealed")], [20, 30], discrete(tiny_card))
    assert len(one.table) == 3


def test_a_label_tells_what_tells_settings_apart(tiny_card: ModelCard) -> None:
    listed = Euler(name="euler", sigmas=(9.0, 4.0, 0.5))
    asked = [AnnealedLangevin(sigma_max=5.0), Heun(name="heun", rho=3.0), Heun(name="heun", levels=4), listed]
    assert [s.label for s in settings_of(asked, [], tiny_card)] == [
        "annealed_langevin levels=6 steps_per_level=2 sigma=5..0.01",
        "heun levels=18 rho=3 sigma=10..0.01",
        "heun levels=4 sigma=10..0.01",
        "euler sigma=9..0.5 (3 listed)",
    ]


def test_each_is_told_of_classes(labelled_card: ModelCard) -> None:
    told = [Told((0, 1, 2)), Told((0, 1, 2), 2.0), Told((0, 1, 2), 2.0, (0.1, 5.0))]
    found = settings_of([Heun(name="heun", levels=3)], [], labelled_card, told=told)
    said = [s.label.partition(" sigma=10..0.01 ")[2] for s in found]
    assert said == ["by class", "guidance=2", "guidance=2 at 5..0.1"]
    guided = Guidance(2.0, 0.1, 5.0).image_steps(found[0].table)
    assert [s.image_steps for s in found] == [5, 10, guided]
    assert 5 < guided < 10


def test_a_guided_row_is_two_evaluations_of_a_budget(labelled_card: ModelCard) -> None:
    (found,) = settings_of([Heun(name="heun")], [35], labelled_card, told=[Told((0,), 2.0)])
    assert (len(found.table), found.image_steps) == (17, 34)
    with pytest.raises(SamplerRefused, match="heun with 1 evaluations"):
        settings_of([Heun(name="heun")], [1], labelled_card, told=[Told((0,), 2.0)])
