"""Connections: how many there may be, and how long one may be silent.

What uvicorn does not see to: headers that do not end, answers that nobody takes, requests sent far ahead, bytes that
are dear to read (effort.py), and so many connections that no more can be accepted. Where there is room for none, one
that asks for nothing makes way. And who is refused while it still sends gets its answer: see lingering.py. Who has sent
ahead and hangs up is noticed, though nothing is read of it then: to read on would let it have more done.
"""

import asyncio
import logging
import resource
import select
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl
from termios import FIONREAD, TIOCOUTQ
from typing import Any

import h11
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from service.access.budgets import RETRY_SECONDS
from service.answering.problems import KINDS, MEDIA_TYPE, Problem, described
from service.effort import BYTE_SECONDS, REQUEST_SECONDS, Effort
from service.lingering import Lingering
from service.settings import ServiceSettings

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # between two looks at all connections
AGAIN_SECONDS = 0.1  # between two searches for some that ask for nothing, where there was none
OTHER_FILES = 256  # that a process has open besides its clients' connections
MOST_HEADER_BYTES = 2**14
MOST_AHEAD_BYTES = 2**16  # that a client may send before it has had the answer to what it has sent
SLICE_BYTES = 2**12  # read at once of what may be dear: of the smallest chunks some 6 ms
MOST_SLICE_BYTES = 2**16  # the same, where it was not so far
PROGRESS_BYTES = 2**12  # of an answer, that a client has to take before its time is over


class Connection(H11Protocol):
    """A client's connection, as uvicorn has it, and what bounds it."""

    def __init__(self, connections: "Connections", **arguments: Any) -> None:
        super().__init__(**arguments)
        self.room = connections
        self.address = ""
        self._asking_since: float | None = None  # since it was seen to send headers, after `_asked_before`
        self._asked_before: object = None
        self._left = 0  # bytes of answers that it did not take, at `_left_at`
        self._left_at = 0.0
        self._resumed = False
        self._unread: deque[memoryview] = deque()  # what has come, and waits for its address or for an answer before it
        self._reads_at: asyncio.Handle | None = None
        self._reading = self._late = False  # whether `_read` is at work, and has to look at what was sent ahead
        self._slice = SLICE_BYTES
        self._read_bytes = 0  # since events were handled

    @property
    def spare(self) -> bool:
        """Whether it asks for nothing."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self._read_on)
        self.address = self.client[0] if self.client else ""
        try:
            self.room.enter(self)
        except Problem as problem:
            self.refuse(problem)

    def connection_lost(self, exc: Exception | None) -> None:
        answered = self.cycle is not None and self.cycle.response_complete
        if exc is None and answered and self.conn.their_state is h11.SEND_BODY:
            self.room.lingering.add(self.transport, self.address, self.address in self.room.proxies)
        if self._reads_at is not None:
            self._reads_at.cancel()
        self._unread.clear()
        super().connection_lost(exc)
        self.room.leave(self)

    @property
    def sent_ahead(self) -> bool:
        """Whether nothing is read, since more has come than the request that is being answered."""
        return self.flow.read_paused and not self.spare and not self.cycle.more_body

    @property
    def _dear(self) -> bool:
        """Whether what comes next may cost much for its size: headers, or a body in chunks."""
        if self.conn.their_state is not h11.SEND_BODY:
            return True
        return any(name == b"transfer-encoding" for name, _ in self.headers or ())

    @property
    def ahead(self) -> int:
        """Bytes that have come behind the request that is answered."""
        return len(self.conn.trailing_data[0]) + sum(map(len, self._unread))

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()  # whoever sends is there, though it is not read yet
        self._unread.append(memoryview(data))
        if self._reads_at is None:
            self._read()
        else:
            self.transport.pause_reading()  # uvicorn may have begun it again
        if self.sent_ahead and self.ahead > MOST_AHEAD_BYTES:
            self.transport.abort()

    def _read_on(self) -> None:
        """Goes on with what has come, where uvicorn takes more."""
        if self._unread and self._reads_at is None:
            self.transport.pause_reading()
            self._reads_at = self.loop.call_soon(self._read)

    def _waits(self) -> bool:
        """Whether its address has to wait; then it is read when that is over."""
        seconds = self.room.effort.wait(self.address, time.monotonic())
        if not seconds or self.address in self.room.proxies:
            return False
        self.transport.pause_reading()
        if self._reads_at is None:
            self._reads_at = self.loop.call_later(seconds, self._read)
        return True

    def _read(self) -> None:
        """Takes what has come, in pieces, until it is all, its address has to wait, or an answer has to come before."""
        self._reads_at, self._reading = None, True
        try:
            while (self._unread or self._late) and not self.transport.is_closing():
                if self._waits():
                    return
                if self._late:
                    self._late = False
                    self.handle_events()
                elif self.flow.read_paused:
                    return
                else:
                    self._take()
        finally:
            self._reading = False
        if not self.flow.read_paused:
            self.transport.resume_reading()

    def _take(self) -> None:
        data = self._unread.popleft()
        size = self._slice if self._dear else len(data)
        if size < len(data):
            self._unread.appendleft(data[size:])
        self._read_bytes += min(size, len(data))
        super().data_received(data[:size].tobytes())

    def handle_events(self) -> None:
        if not self._reading and self._waits():  # an answer is sent, and more had come before that
            self._late = True
            return
        before, begun = self.cycle, time.thread_time()  # of this thread: others may have the interpreter meanwhile
        super().handle_events()
        asked = self.cycle is not before
        dear = time.thread_time() - begun - BYTE_SECONDS * self._read_bytes - REQUEST_SECONDS * asked
        self._read_bytes = 0
        self._slice = SLICE_BYTES if asked or dear > 0 else min(2 * self._slice, MOST_SLICE_BYTES)
        self.room.effort.charge(self.address, dear, time.monotonic())

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.refuse(Problem("malformed", f"this is no request of HTTP/1.1: {sys.exception() or msg}"))
        else:  # an answer has begun, which can be no other any more
            self.transport.close()

    def resume_writing(self) -> None:
        self._resumed = True
        super().resume_writing()

    def refuse(self, problem: Problem) -> None:
        """Tells of a problem, and closes; where no answer has begun."""
        status = KINDS[problem.code][0]
        body = described(problem, "").model_dump_json().encode()
        headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), "Connection": "close"}
        told = list((headers | problem.headers).items())
        answer = h11.Response(status_code=status, headers=told, reason=STATUS_PHRASES[status])
        for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def look(self, now: float, header_seconds: float, write_seconds: float) -> None:
        """Ends the connection if it has been silent for too long, or has ended where nothing is read."""
        left = self.transport.get_write_buffer_size()
        left += _told(self.transport, TIOCOUTQ) if left else 0
        if left == 0:
            self._left = 0
        elif self._left == 0 or self._resumed or left <= self._left - PROGRESS_BYTES:
            self._left, self._left_at = left, now
        elif now - self._left_at > write_seconds:
            self.transport.abort()
            return
        else:
            self._left = max(left, self._left)
        self._resumed = False
        if self.sent_ahead and not self.transport.is_closing():
            ahead = self.ahead + _told(self.transport, FIONREAD)
            if left == 0 and ahead > MOST_AHEAD_BYTES:  # behind so much its end would not be seen
                self.transport.abort()
                return
            if _hung_up(self.transport):
                self.transport.close()  # as where the end is read
                return
        # uvicorn itself closes what is quiet after an answer, until something is sent.
        asking = self.spare and self.timeout_keep_alive_task is None and self.conn.their_state is h11.IDLE
        asking = asking and not (self._unread or self._late)
        if not asking or self.transport.is_closing():
            self._asking_since = None
        elif self._asking_since is None or self.cycle is not self._asked_before:
            self._asking_since, self._asked_before = now, self.cycle
        elif now - self._asking_since > header_seconds:
            detail = f"the headers of a request were not there after {header_seconds:g} s"
            self.refuse(Problem("request-timeout", detail))


class _Flow(FlowControl):
    """Whether a connection is read, as uvicorn has it; and who goes on with what has come when it is again."""

    def __init__(self, transport: asyncio.Transport, resumed: Callable[[], None]) -> None:
        super().__init__(transport)
        self._resumed = resumed

    def resume_reading(self) -> None:
        paused = self.read_paused
        super().resume_reading()
        if paused:
            self._resumed()


class Connections:
    """All connections of a server, which is told `http=connections.protocol`.

    Args:
        settings: their bounds. Connections of proxies that are trusted are those of many clients.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.total = _raise_files(settings.max_connections)
        self.proxies = ProxyHeadersMiddleware(None, settings.forwarded_allow_ips).trusted_hosts  # type: ignore[arg-type]
        self.lingering = Lingering()
        self.effort = Effort()
        self._all: dict[Connection, None] = {}  # oldest first
        self._of: Counter[str] = Counter()  # by address
        self._spare: list[Connection] = []
        self._next_search = 0.0

    def protocol(self, **arguments: Any) -> Connection:
        """A connection, as uvicorn asks for one."""
        return Connection(self, **arguments)

    def enter(self, connection: Connection) -> None:
        """Counts a connection that was made.

        Raises:
            Problem: there are too many.
        """
        each = self.settings.max_client_connections
        self._all[connection] = None
        self._of[connection.address] += 1
        if self._of[connection.address] > each and connection.address not in self.proxies:
            told = f"{each:,} connections of {connection.address} are open: as many as are allowed"
            raise Problem("quota-exceeded", told, headers={"Retry-After": str(RETRY_SECONDS)})
        if len(self._all) > self.total and not self._make_way(connection):
            told = f"{self.total:,} connections are open here, as many as may be, and each is answered"
            raise Problem("busy", told, headers={"Retry-After": str(RETRY_SECONDS)})

    def leave(self, connection: Connection) -> None:
        """Forgets a connection that is closed."""
        self._all.pop(connection, None)
        self._of[connection.address] -= 1
        if not self._of[connection.address]:
            del self._of[connection.address]

    async def watch(self) -> None:
        """Looks at all connections again and again."""
        loop, settings = asyncio.get_running_loop(), self.settings
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for connection in list(self._all):
                connection.look(loop.time(), settings.header_timeout_seconds, settings.write_timeout_seconds)

    def _make_way(self, newest: Connection) -> bool:
        """Closes a connection that asks for nothing, if there is one: of the address that has most of those.

        One that has asked for something before is kept longer, and of alike ones the youngest.
        """
        now = asyncio.get_running_loop().time()
        if not self._spare and now >= self._next_search:
            self._next_search = now + AGAIN_SECONDS
            found = [one for one in self._all if one.spare and not one.transport.is_closing() and one is not newest]
            number = Counter(one.address for one in found)
            found.sort(key=lambda one: (-number[one.address], one.cycle is not None))
            self._spare = found[::-1]
        while self._spare:
            one = self._spare.pop()
            if one.spare and one in self._all and not one.transport.is_closing():
                one.transport.abort()
                return True
        return False


def _told(transport: asyncio.Transport, which: int) -> int:
    """Bytes that the system has of a connection; 0 where that is not told.

    They may be millions, so that little of what is left here moves while the client takes much.

    Args:
        transport: of the connection.
        which: TIOCOUTQ for those that the client has not taken yet, FIONREAD for those that are not read here.
    """
    told = array("i", [0])
    with suppress(OSError):
        ioctl(transport.get_extra_info("socket").fileno(), which, told)
    return told[0]


def _hung_up(transport: asyncio.Transport) -> bool:
    """Whether a client will send no more, though what it has sent is not all read yet; False where that is not told."""
    asked = select.poll()
    asked.register(transport.get_extra_info("socket").fileno(), getattr(select, "POLLRDHUP", 0))
    return bool(asked.poll(0))


def _raise_files(connections: int) -> int:
    """Lets the process have so many connections open, as far as it may; returns how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = max(soft // 2, soft - OTHER_FILES)
        log.warning("%d connections may be open, and not %d: `ulimit -n` is %d", most, connections, soft)
        return most
    return connections
