"""Turns: one of a client at a time, clients in turn, and a bound on what waits."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from service.answering.problems import Problem
from service.apart.turns import Turns


class House:
    """Places, and who was let in, in order."""

    def __init__(self, places: int = 1, waiting: int = 9, cost: int = 100, total: int = 1000) -> None:
        self.turns = Turns("pictures", "bytes", places, waiting, cost, total)
        self.came: list[str] = []
        self.leave: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, cost: int = 1) -> None:
        """A visit of the client that the first letter names."""

        async def visit() -> None:
            async with self.turns.of(name[0], cost):
                self.came.append(name)
                await self.leave[name].wait()

        self.leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(visit())
        await rest()

    @property
    def is_empty(self) -> bool:
        turns = self.turns
        return not any((turns._lines, turns._working, turns._number, turns._spent))

    async def go(self, name: str) -> None:
        self.leave[name].set()
        await rest()


async def rest() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_clients_take_turns_and_each_has_one_place() -> None:
    async def test() -> None:
        house = House(places=2)
        for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
            await house.come(name)
        assert house.came == ["a1", "b1"]
        await house.go("a1")
        assert house.came[2:] == ["c1"], "who has had none"
        await house.go("b1")
        assert house.came[3:] == ["a2"]
        await house.go("c1")
        assert house.came[4:] == ["b2"]
        await house.go("a2")
        assert house.came[5:] == ["a3"]
        for name in ("a3", "b2"):
            await house.go(name)
        assert house.is_empty

    run(test())


def test_who_goes_while_waiting_leaves_no_trace() -> None:
    async def test() -> None:
        house = House()
        for name in ("a1", "b1", "b2", "c1"):
            await house.come(name)
        house.tasks["b1"].cancel()
        house.tasks["a1"].cancel()  # while at work
        await rest()
        assert house.came == ["a1", "b2"]
        await house.go("b2")
        await house.go("c1")
        assert house.came == ["a1", "b2", "c1"]
        assert house.is_empty

    run(test())


def test_what_waits_is_bounded_for_each_and_for_all() -> None:
    async def refused(house: House, name: str, cost: int = 1) -> Problem:
        await house.come(name, cost)
        with pytest.raises(Problem) as caught:
            await house.tasks[name]
        assert caught.value.headers["Retry-After"]
        return caught.value

    async def test() -> None:
        house = House(waiting=3, cost=100, total=250)
        for name in ("a1", "a2", "a3"):
            await house.come(name)
        problem = await refused(house, "a4")
        assert (problem.code, "at most 3 at once" in problem.detail) == ("quota-exceeded", True)
        await house.come("b1", 90)
        problem = await refused(house, "b2", 20)
        assert (problem.code, "at most 100 at once" in problem.detail) == ("quota-exceeded", True)
        await house.come("c1", 150)  # alone may be more
        problem = await refused(house, "d1", 20)
        assert (problem.code, "at most 250 bytes at once" in problem.detail) == ("busy", True)
        for name in ("a1", "b1", "c1", "a2", "a3"):
            await house.go(name)
        await house.come("d2", 1000)
        assert house.came[-1] == "d2", "what is more than all may have is let in when there is nothing else"
        await house.go("d2")

    run(test())
