"""Pace: of what comes all at once only so many begin in a turn, and others between them."""

import asyncio
from typing import Any

from starlette.requests import Request

from service.access import pace
from service.access.pace import Pace


def request(key: str, address: str = "10.0.0.1") -> Request:
    return Request({"type": "http", "client": (address, 1), "headers": [(b"authorization", key.encode())]})


def began(comes: list[tuple[str, str]], known: list[str]) -> list[str]:
    """Who began, in this order, of requests with a key and from an address that come all at once."""
    found: list[str] = []

    async def run() -> None:
        paced = Pace(2)
        for key in known:
            paced.know(request(key))

        async def one(key: str, address: str) -> None:
            await paced.begin(request(key, address))
            found.append(key)

        await asyncio.gather(*(one(key, address) for key, address in comes))
        for _ in range(3):
            await asyncio.sleep(0)
        assert not paced._turning
        assert not paced._lines, "nothing is remembered of who asks no more"

    asyncio.run(run())
    return found


def test_who_comes_alone_waits_for_few_of_a_crowd() -> None:
    found = began([("crowd", "10.0.0.1")] * 20 + [("one", "10.0.0.1")], ["crowd", "one"])
    assert found.index("one") < 5
    assert found.count("crowd") == 20
    assert began([("crowd", "10.0.0.1")] * 20 + [("one", "10.0.0.2")], []).index("one") < 5


def test_a_key_that_was_not_right_makes_nobody_another() -> None:
    crowd = [(f"wrong{number}", "10.0.0.1") for number in range(20)]
    found = began([*crowd, ("wrong", "10.0.0.1")], [])
    assert found[-1] == "wrong"


def test_who_goes_while_it_waits_is_no_more_waited_for() -> None:
    async def run() -> None:
        paced = Pace(1)
        waiting = [asyncio.ensure_future(paced.begin(request("key"))) for _ in range(4)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        done: Any = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in done] == [type(None), asyncio.CancelledError, type(None), type(None)]

    asyncio.run(run())


def test_few_keys_are_remembered(monkeypatch: Any) -> None:
    monkeypatch.setattr(pace, "MOST_KNOWN", 2)
    paced = Pace()
    for key in ("a", "b", "a", "c"):
        paced.know(request(key))
    assert list(paced._known) == ["a", "c"]
