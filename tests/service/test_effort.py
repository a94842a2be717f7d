"""How long an address is not read for what it has cost, at times that are made up."""

import pytest

from service.effort import FREE_SECONDS, LONGEST_SECONDS, MOST_KNOWN, TIMES, Effort


def test_who_makes_it_dear_waits_a_multiple_and_no_other() -> None:
    found = Effort()
    found.charge("mallory", 0.999 * FREE_SECONDS / TIMES, 100.0)
    assert found.wait("mallory", 100.0) == 0.0, "so much is free"
    found.charge("mallory", 0.1, 100.0)
    assert found.wait("mallory", 100.0) == pytest.approx(TIMES * 0.1, rel=0.01)
    assert found.wait("mallory", 101.0) == pytest.approx(TIMES * 0.1 - 1, rel=0.01)
    assert found.wait("mallory", 103.0) == 0.0
    assert found.wait("victim", 100.0) == 0.0
    found.charge("mallory", 0.1, 110.0)
    assert found.wait("mallory", 110.0) == pytest.approx(TIMES * 0.1 - FREE_SECONDS), "what is over is forgotten"


def test_what_costs_less_gains_nothing() -> None:
    found = Effort()
    found.charge("a", -10.0, 0.0)
    found.charge("a", 0.1, 0.0)
    assert found.wait("a", 0.0) == pytest.approx(TIMES * 0.1 - FREE_SECONDS)


def test_nobody_waits_for_ever() -> None:
    found = Effort()
    found.charge("a", 1000.0, 0.0)
    assert found.wait("a", 0.0) == pytest.approx(LONGEST_SECONDS - FREE_SECONDS)


def test_few_addresses_are_remembered() -> None:
    found = Effort()
    for number in range(2 * MOST_KNOWN):
        found.charge(f"address{number}", 1.0, 0.0)
        found.charge("mallory", 1.0, 0.0)
    assert len(found._until) == MOST_KNOWN
    assert found.wait("mallory", 0.0) > 0
