"""How long an address is not read for what it has cost, at times that are made up."""

import pytest

from service import effort
from service.effort import FREE_SECONDS, MOST_KNOWN, TIMES, Effort


def test_what_is_worth_its_bytes_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.009, 0.009, 0.011])
    monkeypatch.setattr(effort.time, "thread_time", lambda: next(clock))
    found = Effort()
    with found.spent("a", worth := [0.006]):
        worth.append(0.004)
    assert found._until == {}
    with found.spent("a", [0.001]):
        pass
    assert found._until["a"] == pytest.approx(effort.time.monotonic() + TIMES * 0.001, abs=60)


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


def test_few_addresses_are_remembered() -> None:
    found = Effort()
    for number in range(2 * MOST_KNOWN):
        found.charge(f"address{number}", 1.0, 0.0)
        found.charge("mallory", 1.0, 0.0)
    assert len(found._until) == MOST_KNOWN
    assert found.wait("mallory", 0.0) > 0
