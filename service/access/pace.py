"""Pace: how many requests of one client begin between two turns of the event loop, on which all others wait too."""

import asyncio
from collections import Counter, OrderedDict, deque

from starlette.requests import Request

EACH = 16  # requests of a client that begin in a turn
MOST_KNOWN = 10_000  # keys that are remembered


class Pace:
    """Spreads what comes all at once, so that whoever comes between it waits for a few of it, and not for all.

    A client is what it shows as its key, once that was found right, or its address: whatever else it shows makes it no
    other.

    Args:
        each: requests of a client that begin in a turn.
    """

    def __init__(self, each: int = EACH) -> None:
        self.each = each
        self._known: OrderedDict[str, None] = OrderedDict()  # keys that were right, as they were shown; newest last
        self._begun: Counter[str] = Counter()  # in this turn
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._turning = False

    async def begin(self, request: Request) -> None:
        """Returns when it is the turn of the request."""
        shown = request.headers.get("authorization", "")
        client = shown if shown in self._known else f"address/{request.client.host if request.client else ''}"
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)
        if client not in self._lines and self._begun[client] < self.each:
            self._begun[client] += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._lines.setdefault(client, deque()).append(turn)
        await turn

    def know(self, request: Request) -> None:
        """Remembers the key that a request has shown: it was right."""
        shown = request.headers.get("authorization", "")
        self._known[shown] = None
        self._known.move_to_end(shown)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    def _turn(self) -> None:
        """Lets the next begin, once in a turn for as long as there are any."""
        self._begun.clear()
        for client, line in list(self._lines.items()):
            while line and self._begun[client] < self.each:
                turn = line.popleft()
                if not turn.done():  # else the client has gone
                    turn.set_result(None)
                    self._begun[client] += 1
            if not line:
                del self._lines[client]
        self._turning = bool(self._begun)
        if self._turning:
            asyncio.get_running_loop().call_soon(self._turn)
