"""Effort: what reading a client's bytes takes beyond what they are worth, and how long it is not read for that.

A chunk of one byte takes as long to read as one of thousands, and a line of headers as long as a body of kilobytes. All
of it is done on the event loop before anybody can say who asks. So an address that makes it dear is read less often:
for what it has cost too much it waits a multiple, and others have the time in between. Nothing is refused for it.
"""

REQUEST_SECONDS = 0.002  # that a request is worth, several times what reading one takes
BYTE_SECONDS = REQUEST_SECONDS / 2**16  # that a byte is worth, likewise of a body that comes in large pieces
TIMES = 20.0  # what it cost too much, that an address is not read for
FREE_SECONDS = 0.2  # of that, which nobody waits for
LONGEST_SECONDS = 30.0  # that an address waits: others may have it too
MOST_KNOWN = 1000  # addresses that are remembered


class Effort:
    """Until when each address has to wait, on the monotonic clock."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def charge(self, address: str, seconds: float, now: float) -> None:
        """Has an address wait for what it has cost too much; nothing is gained by what costs less."""
        if seconds <= 0:
            return
        until = max(now, self._until.pop(address, now)) + TIMES * seconds
        self._until[address] = min(until, now + LONGEST_SECONDS)
        if len(self._until) > MOST_KNOWN:
            del self._until[next(iter(self._until))]

    def wait(self, address: str, now: float) -> float:
        """Seconds for which an address is not read; 0 if it may be."""
        return max(0.0, self._until.get(address, now) - now - FREE_SECONDS)
