"""Lingering: connections that are closed while a client still sends are read for a while, so that it gets its answer.

A system that closes one with bytes nobody has read resets it, and who is sending then loses what was answered, or finds
it only if it looks; a proxy tells its client of 502. So the answer is ended, what comes is thrown away for a little
while, and then the connection is closed: RFC 9112, section 9.6.
"""

import asyncio
import os
import socket
from contextlib import suppress

SECONDS, MOST_BYTES = 30.0, 2**24  # for which, and of which, a connection is read: twice the largest body
MOST, MOST_OF_ADDRESS = 64, 4  # connections at once; for one more the oldest makes way
PIECE_BYTES = 2**18  # read at a time
PAUSE_SECONDS = 0.005  # between two pieces of all connections together, so that who is answered has no harm: 50 MB/s


class Lingering:
    """Connections whose answer is sent, and whose client is still sending."""

    def __init__(self) -> None:
        self._all: dict[asyncio.Task[None], str] = {}  # the address of each; oldest first
        self._thrown_away = bytearray(PIECE_BYTES)  # where they are read into, one as well as another

    def __len__(self) -> int:
        return len(self._all)

    def add(self, transport: asyncio.Transport, address: str, shared: bool) -> None:
        """Takes on the connection of a transport that is about to close, and has sent everything.

        Args:
            address: of the client.
            shared: whether that is a proxy's, of many clients.
        """
        same = [task for task, other in self._all.items() if other == address]
        if len(same) >= MOST_OF_ADDRESS and not shared:
            self._end(same[0])
        if len(self._all) >= MOST:
            self._end(next(iter(self._all)))
        try:
            client = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        except OSError:  # it is gone, or there are no more files
            return
        task = asyncio.create_task(self._read(client))
        self._all[task] = address
        task.add_done_callback(lambda _: client.close())  # of one that was ended before it began, too
        task.add_done_callback(lambda task: self._all.pop(task, None))

    def _end(self, task: "asyncio.Task[None]") -> None:
        del self._all[task]
        task.cancel()

    async def _read(self, client: socket.socket) -> None:
        loop, left = asyncio.get_running_loop(), MOST_BYTES
        with suppress(OSError):  # among them TimeoutError
            client.setblocking(False)
            client.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(SECONDS):
                while left > 0 and (read := await loop.sock_recv_into(client, self._thrown_away)):
                    left -= read
                    await asyncio.sleep(PAUSE_SECONDS * len(self._all))
