"""Turns: who may use one of a few places, where every client has one at a time and clients take turns."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from service.answering.problems import Problem

RETRY = {"Retry-After": "2"}


@dataclass(eq=False)
class _Place:
    cost: int
    free: asyncio.Event


class Turns:
    """Places of which each client has one at a time; who waits for one is let in before those who had one since.

    Args:
        what: is done there, in words.
        unit: of what it costs.
        places: at once, of all clients.
        waiting: of one client's, those at work among them.
        cost: of one client's together.
        total: cost of all clients' together; what alone costs more is let in when there is nothing else.
    """

    def __init__(self, what: str, unit: str, places: int, waiting: int, cost: int, total: int) -> None:
        self.what, self.unit, self.places = what, unit, places
        self.waiting, self.cost, self.total = waiting, cost, total
        self._lines: OrderedDict[str, deque[_Place]] = OrderedDict()  # who is to be let in next comes first
        self._working: set[str] = set()
        self._number: Counter[str] = Counter()
        self._spent: Counter[str] = Counter()

    @asynccontextmanager
    async def of(self, client: str, cost: int) -> AsyncIterator[None]:
        """A place for a client, once it is its turn.

        Raises:
            Problem: the client, or all together, have as much there as is allowed.
        """
        self._check(client, cost)
        place = _Place(cost, asyncio.Event())
        self._number[client] += 1
        self._spent[client] += cost
        self._lines.setdefault(client, deque()).append(place)
        try:
            self._let_in()
            await place.free.wait()
            yield
        finally:
            self._leave(client, place)

    def _check(self, client: str, cost: int) -> None:
        if self._number[client] >= self.waiting:
            what = f"{self.waiting} {self.what} of yours are under way"
            raise Problem("quota-exceeded", f"{what}: at most {self.waiting} at once are allowed", headers=RETRY)
        if self._number[client] and self._spent[client] + cost > self.cost:
            what = f"{self.what} of yours under way have {self._spent[client]:,} {self.unit}, and this {cost:,} more"
            raise Problem("quota-exceeded", f"{what}: at most {self.cost:,} at once are allowed", headers=RETRY)
        if self._spent.total() and self._spent.total() + cost > self.total:
            allowed = f"at most {self.total:,} {self.unit} at once are allowed"
            raise Problem("busy", f"too many {self.what} are under way: {allowed}", headers=RETRY)

    def _let_in(self) -> None:
        for client, line in list(self._lines.items()):
            if len(self._working) >= self.places:
                return
            if client not in self._working and line:
                self._working.add(client)
                line.popleft().free.set()

    def _leave(self, client: str, place: _Place) -> None:
        self._number[client] -= 1
        self._spent[client] -= place.cost
        if place.free.is_set():
            self._working.discard(client)
            self._lines.move_to_end(client)
        else:
            self._lines[client].remove(place)
        if not self._lines[client] and client not in self._working:
            del self._lines[client]
        if not self._number[client]:
            del self._number[client], self._spent[client]
        self._let_in()
