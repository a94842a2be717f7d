"""Pace: who is slowed and by how much, at times that are made up; and of which requests."""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from service import middleware
from service.access import pace
from service.access.keys import Keys
from service.access.pace import BURST, LATELY_SECONDS, LONGEST_SECONDS, MORE, MOST_KNOWN, MOST_WAITING, REST, Pace
from service.answering.problems import Problem


def begun(paced: Pace, client: str, seconds: float, start: float = 0.0, known: bool = True) -> int:
    """How many requests of a client begin in some seconds; what it is refused it asks for again."""
    number, now = 0, start
    while now < start + seconds:
        wait = paced.delay(client, now, known)
        number += math.isfinite(wait)
        now += max(wait, 0.001) if math.isfinite(wait) else 0.001
    return number


def test_who_is_alone_is_never_slowed() -> None:
    paced = Pace(10)
    assert [paced.delay("a", 0.0) for _ in range(1000)] == [0.0] * 1000
    assert paced.delay("b", 0.0) == 0.0
    assert [paced.delay("a", LATELY_SECONDS + 0.1) for _ in range(1000)] == [0.0] * 1000, "the other has gone"


def test_who_asks_much_waits_while_others_ask() -> None:
    paced = Pace(10)
    paced.delay("victim", 0.0)
    at_once = [paced.delay("mallory", 0.0) for _ in range(int(BURST))]
    assert at_once == [0.0] * int(BURST)
    waits = [paced.delay("mallory", 0.0) for _ in range(int(10 * LONGEST_SECONDS) + 5)]
    assert waits[:3] == pytest.approx([0.1, 0.2, 0.3]), "each after the other"
    assert max(wait for wait in waits if math.isfinite(wait)) == pytest.approx(LONGEST_SECONDS)
    assert waits[-5:] == [math.inf] * 5, "its turn would not come soon"
    assert paced.delay("victim", 0.0) == 0.0


def test_a_flood_begins_as_much_as_it_may_whatever_it_is_refused() -> None:
    paced = Pace(100)
    numbers = 0
    for second in range(5):
        paced.delay("victim", float(second))
        numbers += begun(paced, "mallory", 1, float(second))
    assert numbers == pytest.approx(500 + BURST, abs=2)


def test_who_asks_as_the_busiest_of_the_others_is_not_slowed() -> None:
    paced = Pace(10)
    waits = [max(paced.delay("a", tick / 100), paced.delay("b", tick / 100)) for tick in range(1000)]
    assert not any(waits[500:]), "both ask a hundred times a second"
    assert paced._pace("a", 10.0) == pytest.approx(100 * MORE, rel=0.05)


def test_of_many_who_ask_much_each_gets_ever_more_than_the_least() -> None:
    paced = Pace(10)
    first, second, now = 0, 0, 0.0
    while now < 20:
        first, second = first + (paced.delay("a", now) == 0.0), second + (paced.delay("b", now) == 0.0)
        now += 0.002
    assert min(first, second) > 4 * 20 * 10


def test_who_is_let_in_by_nobody_waits_and_makes_nobody_wait() -> None:
    paced = Pace(10)
    assert all(paced.delay("address", 0.0, known=False) == 0.0 for _ in range(100))
    assert paced.delay("a", 0.0) == 0.0
    assert begun(paced, "a", 1) > 900, "nobody else counts as being there"
    paced = Pace(10)
    paced.delay("a", 0.0)
    assert begun(paced, "address", 1, known=False) == pytest.approx(BURST + 10, abs=2)


def test_bodies_cost_turns_and_never_more_than_a_client_can_wait_for() -> None:
    paced = Pace(100)
    paced.delay("victim", 0.0)
    paced.delay("mallory", 0.0)
    paced.charge("mallory", pace.PIECE_BYTES * int(BURST - 1), 0, 0.0)
    assert paced.delay("mallory", 0.0) == pytest.approx(0.01)
    paced.charge("mallory", 0, 3 * pace.SENT_BYTES, 0.0)
    assert paced.delay("mallory", 0.0) == pytest.approx(0.05)
    paced.charge("mallory", 10**12, 10**12, 0.0)
    assert paced.delay("mallory", 0.0) <= LONGEST_SECONDS
    paced.charge("unheard", 10**12, 0, 0.0)
    assert paced.delay("unheard", 0.0) == 0.0


def test_work_of_threads_and_lines_of_headers_cost_turns() -> None:
    paced = Pace(100)
    paced.delay("victim", 0.0)
    paced.delay("mallory", 0.0)
    paced.charge("mallory", 0, 0, 0.0, worked=pace.WORKED_SECONDS * (BURST - 1))
    assert paced.delay("mallory", 0.0) == pytest.approx(0.01)
    paced.charge("mallory", 0, 0, 0.0, headers=3 * pace.HEADERS)
    assert paced.delay("mallory", 0.0) == pytest.approx(0.05)


def test_what_was_sent_to_one_who_was_alone_is_forgotten_once_others_ask() -> None:
    paced = Pace(100)
    paced.delay("alone", 0.0)
    paced.charge("alone", 10**12, 10**12, 0.0)
    paced.delay("another", 0.5)
    assert paced.delay("alone", 1.0) == 0.0


def test_few_clients_are_remembered() -> None:
    paced = Pace(10)
    for number in range(2 * MOST_KNOWN):
        paced.delay(f"client{number}", number / 1000)
    assert len(paced._lines) == MOST_KNOWN
    assert f"client{2 * MOST_KNOWN - 1}" in paced._lines


def test_what_would_wait_too_long_is_refused_after_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    paced = Pace(0.001)

    async def ask() -> None:
        await paced.turn("victim")
        for _ in range(int(BURST)):
            await paced.turn("mallory")
        with pytest.raises(Problem, match="requests a second of one client begin here") as refused:
            await paced.turn("mallory")
        assert refused.value.code == "rate-limited"
        assert refused.value.headers == {"Retry-After": "2"}
        assert slept == [LONGEST_SECONDS]
        assert paced._lines["mallory"].waiting == 0
        paced._lines["mallory"].waiting = MOST_WAITING
        with pytest.raises(Problem):
            await paced.turn("mallory")
        assert slept == [LONGEST_SECONDS], "so many wait that another does not"

    asyncio.run(ask())


def test_work_for_a_client_rests_while_others_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    paced = Pace(10)
    paced.delay("a", time.monotonic())
    asyncio.run(paced.rest("a", 1.5))
    assert slept == [], "nobody else asks"
    paced.delay("b", time.monotonic())
    asyncio.run(paced.rest("a", 1.5))
    assert slept == [1.5 * REST]


@pytest.fixture
def keys(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, str], dict[str, str]]:
    """Headers of a victim and of Mallory; whose turn is not at once is refused at once."""
    monkeypatch.setattr(pace, "LONGEST_SECONDS", 0.0)
    monkeypatch.setattr(pace, "LATELY_SECONDS", 1e9)  # on a machine that is busy ten seconds may pass
    monkeypatch.setattr(pace, "WINDOW_SECONDS", 1e9)  # or half a second, and what the victim asks for would be counted
    made = [Keys(redis).create(name)[1] for name in ("victim", "mallory")]
    victim, mallory = ({"Authorization": f"Bearer {key}"} for key in made)
    return victim, mallory


def test_each_key_has_its_pace(new_client, settings, keys, problem: Callable[..., Any]) -> None:
    victim, mallory = keys
    client = new_client(settings.model_copy(update={"client_requests_per_second": 1e-6}))
    assert all(client.get("/samplers", headers=mallory).status_code == 200 for _ in range(2 * int(BURST)))
    assert client.get("/samplers", headers=victim).status_code == 200
    for _ in range(int(BURST)):
        assert client.get("/samplers", headers=mallory).status_code == 200
    refused = client.get("/samplers", headers=mallory)
    problem(refused, 429, "rate-limited")
    assert refused.headers["retry-after"] == "2"
    assert client.get("/samplers", headers=victim).status_code == 200


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/problems", {}, 200),
        ("/metrics", {}, 200),
        ("/healthz", {"Content-Length": "2"}, 413),
        ("/samplers", {"Authorization": f"Bearer ssk_{'0' * 16}_{'0' * 40}"}, 401),
    ],
)
def test_who_shows_no_key_has_that_of_its_address(new_client, settings, keys, path, headers, status) -> None:
    victim, _ = keys
    client = new_client(settings.model_copy(update={"client_requests_per_second": 1e-6}))
    assert client.get("/samplers", headers=victim).status_code == 200
    for _ in range(int(BURST)):
        assert client.get(path, headers=headers).status_code == status
    assert client.get(path, headers=headers).status_code == 429
    assert client.get("/healthz").status_code == 200, "who asks whether it lives does not wait"
    assert client.get("/samplers", headers=victim).status_code == 200


def test_probes_have_a_line_of_their_own_in_which_none_waits_for_long(
    new_client, settings, keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who restarts what does not answer may ask from the address of one who floods."""
    monkeypatch.setattr(middleware, "PROBE_SECONDS", 0.3)
    victim, _ = keys
    client = new_client(settings.model_copy(update={"client_requests_per_second": 1e-6}))
    assert client.get("/samplers", headers=victim).status_code == 200
    assert [client.get("/healthz").status_code for _ in range(int(BURST))] == [200] * int(BURST)
    begun = time.monotonic()
    assert client.get("/healthz").status_code == 200
    assert time.monotonic() - begun >= 0.3
    assert client.get("/problems").status_code == 200
    assert client.get("/samplers", headers=victim).status_code == 200


def test_what_a_large_body_or_many_headers_take_is_charged(client, monkeypatch: pytest.MonkeyPatch) -> None:
    charged: list[tuple[str, int, int]] = []

    def charge(_: Pace, client: str, received: int, sent: int, now: float, worked: float, headers: int) -> None:
        charged.append((client, received, sent))
        lines.append(headers)

    lines: list[int] = []
    monkeypatch.setattr(Pace, "charge", charge)
    assert client.post("/samples", json={"count": 1}).status_code == 202
    assert charged == [], "what is small costs no more than its beginning"
    answer = client.post("/inpaint", content=bytes(2**17), headers={"Content-Type": "application/json"})
    assert charged == [("address/127.0.0.1", 2**17, len(answer.content))]
    assert client.get("/samplers", headers=[("x", "y")] * pace.HEADERS).status_code == 200
    assert len(charged) == 2
    assert lines[0] < pace.HEADERS < lines[1]
