"""What may be said of classes and guidance, and what is made of it."""

import pytest

from models.card import ModelCard
from models.guidance import UNGUIDED, Guidance
from models.labels import (
    MAX_DRAWN,
    LabelRefused,
    classes_in_turn,
    drawn_labels,
    guidance_of,
    labels_of,
    weight_of,
    why_unguided,
)
from models.samplers.euler import Euler

TABLE = Euler.table([10.0, 4.0, 2.0, 1.0, 0.1])


@pytest.mark.parametrize(
    ("label", "labels", "found"),
    [
        (None, None, None),
        (0, None, (0,)),
        ("shoe", None, (1,)),
        ("1", None, (1,)),
        ("7", None, (2,)),  # a name first
        (None, [2, "shirt", 2], (2, 0, 2)),
    ],
)
def test_a_label_is_an_index_or_a_name(labelled_card: ModelCard, label, labels, found) -> None:
    assert labels_of(label, labels, labelled_card) == found


def test_what_needs_a_label_makes_one_class_after_another_where_nothing_is_said(needy_card: ModelCard) -> None:
    assert labels_of(None, None, needy_card) == (0, 1, 2)
    assert labels_of(1, None, needy_card) == (1,)


def test_a_study_is_of_one_class_after_another_where_new_images_are_of_one_each(
    tiny_card: ModelCard, labelled_card: ModelCard, needy_card: ModelCard
) -> None:
    assert classes_in_turn(tiny_card) is classes_in_turn(labelled_card) is None
    assert classes_in_turn(needy_card) == (0, 1, 2)
    assert classes_in_turn(labelled_card.model_copy(update={"draws_labels": True})) == (0, 1, 2)


def test_labels_that_a_seed_draws_are_all_classes_alike_often_in_an_order_of_its_own() -> None:
    drawn = drawn_labels(7, 60, 3)
    assert [sorted(drawn[i : i + 3]) for i in range(0, 60, 3)] == [[0, 1, 2]] * 20
    assert len({drawn[i : i + 3] for i in range(0, 60, 3)}) == 6, "of twenty turns all orders"
    assert drawn_labels(7, 4, 3) == drawn[:4]
    assert drawn_labels(8, 60, 3) != drawn
    assert {drawn_labels(seed, 1, 3) for seed in range(20)} == {(0,), (1,), (2,)}


def test_labels_that_a_seed_draws_are_few_enough_for_a_record_and_still_alike_often() -> None:
    drawn = drawn_labels(0, 100_000, 10)
    assert len(drawn) == MAX_DRAWN
    assert {drawn.count(label) for label in range(10)} == {MAX_DRAWN // 10}


@pytest.mark.parametrize(
    ("label", "labels", "field", "said"),
    [
        (3, None, "label", ["has no class 3", "0 to 2", "shirt, shoe, 7"]),
        ("hat", None, "label", ["has no class 'hat'", "shirt"]),
        ("-1", None, "label", ["'-1'"]),
        (None, [0, "hat"], "labels/1", ["'hat'"]),
        (0, [0], "labels", ["not both"]),
    ],
)
def test_what_is_no_class_is_refused_with_what_there_is(labelled_card: ModelCard, label, labels, field, said) -> None:
    with pytest.raises(LabelRefused) as refused:
        labels_of(label, labels, labelled_card)
    assert refused.value.field == field
    for words in said:
        assert words in str(refused.value)


def test_what_knows_no_classes_says_so(tiny_card: ModelCard) -> None:
    with pytest.raises(LabelRefused, match="tiny knows no classes; allowed: no label"):
        labels_of(0, None, tiny_card)
    with pytest.raises(LabelRefused, match="guidance: tiny knows no classes; allowed: 1, or nothing"):
        guidance_of(2.0, None, None, tiny_card, TABLE)


def test_many_classes_are_not_all_named(labelled_card: ModelCard) -> None:
    many = labelled_card.model_copy(update={"classes": tuple(f"class {i}" for i in range(1000))})
    with pytest.raises(LabelRefused, match=r"0 to 999, or a name: class 0, .*, class 19, \.\.\.$"):
        labels_of("hat", None, many)


def test_digits_are_named_once(labelled_card: ModelCard) -> None:
    digits = labelled_card.model_copy(update={"classes": tuple("0123456789")})
    with pytest.raises(LabelRefused, match=r"allowed: 0 to 9$"):
        labels_of(12, None, digits)


@pytest.mark.parametrize(
    ("weight", "interval", "found"),
    [
        (None, None, UNGUIDED),
        (1.0, None, UNGUIDED),
        (2.0, None, Guidance(2.0)),
        (0.0, (0.5, 3.0), Guidance(0.0, 0.5, 3.0)),
    ],
)
def test_guidance_is_a_weight_and_an_interval(labelled_card: ModelCard, weight, interval, found) -> None:
    assert guidance_of(weight, interval, (0,), labelled_card, TABLE) == found


@pytest.mark.parametrize(
    ("weight", "interval", "labels", "field", "said"),
    [
        (2.0, None, None, "guidance", ["no label", "a label besides", "shirt, shoe"]),
        (None, (0.1, 1.0), (0,), "guidance_interval", ["no guidance"]),
        (1.0, (0.1, 1.0), (0,), "guidance_interval", ["no guidance"]),
        (2.0, (20.0, 30.0), (0,), "guidance_interval", ["from 20 to 30", "0.1 to 10"]),
        (2.0, (4.0, 2.0), (0,), "guidance_interval", ["lower end first"]),
    ],
)
def test_guidance_that_would_do_nothing_is_refused(
    labelled_card: ModelCard, weight, interval, labels, field, said
) -> None:
    with pytest.raises(LabelRefused) as refused:
        guidance_of(weight, interval, labels, labelled_card, TABLE)
    assert refused.value.field == field
    for words in said:
        assert words in str(refused.value)


def test_what_can_be_guided(tiny_card: ModelCard, labelled_card: ModelCard, needy_card: ModelCard) -> None:
    assert why_unguided(labelled_card) is None
    assert why_unguided(tiny_card) == "tiny knows no classes"
    assert "never trained without a label" in (why_unguided(needy_card) or "")


def test_what_was_never_trained_without_a_label_cannot_be_guided(needy_card: ModelCard) -> None:
    with pytest.raises(LabelRefused, match="needy was never trained without a label; allowed: 1, or nothing"):
        guidance_of(2.0, None, (0,), needy_card, TABLE)


@pytest.mark.parametrize(
    ("usual", "asked", "labels", "known", "weight"),
    [
        (None, None, (0,), False, None),
        (None, 1.0, (0,), False, None),
        (None, 2.0, (0,), False, 2.0),
        (3.0, None, (0,), False, 3.0),
        (3.0, 2.0, (0,), False, 2.0),
        (3.0, 1.0, (0,), False, 1.0),  # it stays: asked for again it is not taken for nothing
        (3.0, None, None, False, None),
        (3.0, None, (0,), True, None),
        (3.0, 2.0, (0,), True, 2.0),
        (3.0, 1.0, (0,), True, None),
    ],
)
def test_a_card_leads_new_images_with_a_label(labelled_card: ModelCard, usual, asked, labels, known, weight) -> None:
    card = labelled_card.model_copy(update={"guidance": usual})
    assert weight_of(asked, labels, card, known) == weight
