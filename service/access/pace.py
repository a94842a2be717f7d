"""Pace: how fast requests of one client begin while others ask too, since all share one event loop.

Who is alone here is never slowed, nor who asks for no more than the busiest of the others.
"""

import asyncio
import math
import time
from collections import OrderedDict
from dataclasses import dataclass

from service.answering.problems import Problem

LATELY_SECONDS = 10.0  # for which one who has asked counts as there
WINDOW_SECONDS = 0.5  # over which it is counted how much each asks
BURST = 20.0  # requests that begin at once, after a while in which there were none
MORE = 1.25  # times what the busiest of the others asks for: of several who ask much each gets what there is
SHORTEST_SECONDS, LONGEST_SECONDS = 0.001, 2.0  # that a request waits for its turn
MOST_WAITING = 1000  # requests of one client
MOST_KNOWN = 1000  # clients that are remembered
PIECE_BYTES = 2**17  # of a body, which take about as long as a request without one
SENT_BYTES = 2**20  # of an answer, likewise
WORKED_SECONDS = 0.001  # of threads for an answer, likewise: who asks for nothing else has a tenth of an interpreter
HEADERS = 100  # lines of a request, likewise
REST = 2.0  # times what a thread has worked on an answer, for which it leaves processor and interpreter to others


@dataclass
class _Line:
    """Of one client.

    Args:
        ahead: requests that have begun, or will, before their time, as it was `at`.
        rate: requests a second that began lately.
        number: of those that began in this window.
        waiting: for their turn.
        known: whether it counts as one of the others.
    """

    ahead: float = 0.0
    at: float = 0.0
    rate: float = 0.0
    number: int = 0
    waiting: int = 0
    known: bool = False


class Pace:
    """Has requests wait for their turn; times are of the monotonic clock, in seconds.

    Of those who are let in by nobody, as for a page that is open to all, each address has its turns too, but makes no
    other slower: it may be the same client again.

    Args:
        least: requests a second that each may begin in any case.
    """

    def __init__(self, least: float) -> None:
        self.least = least
        self._lines: OrderedDict[str, _Line] = OrderedDict()  # who asked last comes last
        # The last two who count as others, each with when it asked; and the busiest two, with their rate.
        self._last: list[tuple[str, float]] = []
        self._busiest: list[tuple[float, str]] = []
        self._counted_at = -math.inf

    async def turn(self, client: str, known: bool = True, patience: float = math.inf) -> None:
        """Returns when a request of a client may begin.

        Args:
            known: that it was let in, and makes others slower if they ask for more.
            patience: seconds after which it begins in any case.

        Raises:
            Problem: the client has asked for so much that its turn would not come soon.
        """
        seconds = self.delay(client, time.monotonic(), known)
        if seconds == 0:
            return
        if not math.isinf(patience):
            await asyncio.sleep(min(seconds, patience))
            return
        line = self._lines[client]
        if line.waiting >= MOST_WAITING:
            raise self._refusal(client)
        line.waiting += 1
        try:
            await asyncio.sleep(min(seconds, LONGEST_SECONDS))  # in vain too, or who is refused would ask at once again
        finally:
            line.waiting -= 1
        if math.isinf(seconds) and not math.isinf(self._pace(client, time.monotonic())):
            raise self._refusal(client)

    def delay(self, client: str, now: float, known: bool = True) -> float:
        """Seconds until a request of a client may begin, which is taken to begin then; infinite if it shall not."""
        if now - self._counted_at >= WINDOW_SECONDS:
            self._count(now)
        line = self._line(client)
        if known:
            line.known = True
            self._note(client, now)
        pace = self._catch_up(client, line, now)
        seconds = (line.ahead - (BURST - 1)) / pace
        if seconds > LONGEST_SECONDS + SHORTEST_SECONDS:
            return math.inf
        line.number += 1
        if not math.isinf(pace):
            line.ahead += 1
        return seconds if seconds > SHORTEST_SECONDS else 0.0

    def charge(self, client: str, received: int, sent: int, now: float, worked: float = 0.0, headers: int = 0) -> None:
        """Has a client's next requests wait for what a request took besides its beginning.

        Args:
            client: that asked.
            received, sent: bytes of both bodies.
            now: on the monotonic clock.
            worked: seconds that threads have worked for the answer.
            headers: lines of the request.
        """
        line = self._lines.get(client)
        if line is not None:
            pace = self._catch_up(client, line, now)
            if math.isinf(pace):  # it was alone, and nobody had to wait for it
                return
            most = max(line.ahead, LONGEST_SECONDS * pace)  # or all that comes next would be refused
            took = received / PIECE_BYTES + sent / SENT_BYTES + worked / WORKED_SECONDS + headers / HEADERS
            line.ahead = min(line.ahead + took, most)

    async def rest(self, client: str, seconds: float) -> None:
        """Returns after a multiple of the seconds that a thread has worked for a client, or at once if it is alone."""
        if not math.isinf(self._pace(client, time.monotonic())):
            await asyncio.sleep(REST * seconds)

    def _catch_up(self, client: str, line: _Line, now: float) -> float:
        """Requests a second that a client may begin now; it is less ahead by what it might have begun meanwhile."""
        pace = self._pace(client, now)
        line.ahead = 0.0 if math.isinf(pace) else max(0.0, line.ahead - (now - line.at) * pace)
        line.at = now
        return pace

    def _pace(self, client: str, now: float) -> float:
        """Requests a second that a client may begin now."""
        others = (at for other, at in reversed(self._last) if other != client)
        if now - next(others, -math.inf) > LATELY_SECONDS:
            return math.inf
        busiest = next((rate for rate, other in self._busiest if other != client), 0.0)
        return max(self.least, MORE * busiest)

    def _line(self, client: str) -> _Line:
        line = self._lines.setdefault(client, _Line())
        self._lines.move_to_end(client)
        if len(self._lines) > MOST_KNOWN:
            self._lines.popitem(last=False)
        return line

    def _note(self, client: str, now: float) -> None:
        if self._last and self._last[-1][0] == client:
            self._last[-1] = (client, now)
        else:
            self._last = [*self._last[-1:], (client, now)]

    def _count(self, now: float) -> None:
        """Counts what each has asked for since this was done before."""
        seconds, self._counted_at = now - self._counted_at, now
        for line in self._lines.values():
            line.rate, line.number = max(line.rate / 2, line.number / seconds), 0
        rates = ((line.rate, client) for client, line in self._lines.items() if line.known)
        self._busiest = sorted(rates, reverse=True)[:2]

    def _refusal(self, client: str) -> Problem:
        pace = self._pace(client, time.monotonic())
        what = f"while others ask too, {pace:g} requests a second of one client begin here, and more of yours wait"
        return Problem("rate-limited", f"{what} than begin in {LONGEST_SECONDS:g} s", headers={"Retry-After": "2"})
