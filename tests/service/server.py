"""A server as it is started, of an application whose answers are of many kinds, and clients of it."""

import asyncio
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import uvicorn

from service.connections import MOST_HEADER_BYTES, Connections
from service.settings import ServiceSettings

ASKED = b"GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n"
NEVER = ASKED.replace(b"small", b"never")
BODY = bytes(2**23)
REFUSED = b"it is larger than it may be"
HEADERS = [(b"content-type", b"application/octet-stream")]


class Server:
    """A server of an application that answers at once, later, never, endlessly or piece by piece, or refuses bodies."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.begun: list[str] = []  # requests that an application has
        self.hold = threading.Event()  # an answer, until it is set
        self.ended: list[str] = []  # requests, when nobody is left to answer or all is sent
        self.connections = Connections(settings)
        options: dict[str, Any] = {
            "http": self.connections.protocol,
            "h11_max_incomplete_event_size": MOST_HEADER_BYTES,
            "timeout_graceful_shutdown": 10,
        }
        self.server = uvicorn.Server(
            uvicorn.Config(
                self.app, port=0, log_level="error", lifespan="off", interface="asgi3", log_config=None, **options
            )
        )
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.address = "127.0.0.1"
        self.opened: list[socket.socket] = []

    def run(self) -> None:
        async def serve() -> None:
            watch = asyncio.create_task(self.connections.watch())
            await self.server.serve()
            watch.cancel()

        asyncio.run(serve())

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        self.begun.append(path)
        if path in ("/never", "/endless"):
            if path == "/endless":
                await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
                await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
        elif path == "/body":
            message, size = {"more_body": True}, 0
            while message.get("more_body"):
                message = await receive()
                size += len(message.get("body", b""))
            told = b"%d" % size
            headers = [*HEADERS, (b"content-length", b"%d" % len(told))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": told})
        elif path == "/refused":
            headers = [*HEADERS, (b"content-length", b"%d" % len(REFUSED)), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 413, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSED})
        else:
            if path == "/held":
                await asyncio.to_thread(self.hold.wait)
            size = {"/small": 2, "/large": 2**25}.get(path, 0)
            headers = [*HEADERS, (b"x-path", path.encode()), *([(b"content-length", b"%d" % size)] if size else [])]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for _ in range(100 if path == "/pieces" else 0):
                await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})
            await send({"type": "http.response.body", "body": bytes(size)})
        self.ended.append(path)

    def connect(self, sent: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
        client = socket.create_connection((self.address, self.port), 60, (source, 0))
        client.sendall(sent)
        self.opened.append(client)
        return client

    @property
    def open(self) -> int:
        return len(self.connections._all)

    @property
    def ahead(self) -> int:
        """Bytes behind the requests that are answered."""
        return sum(connection.ahead for connection in self.connections._all)

    def close(self) -> None:
        self.hold.set()  # of a test that failed too
        for client in self.opened:
            client.close()
        self.server.should_exit = True
        self.thread.join()


def ask(client: socket.socket) -> None:
    """Has an answer."""
    client.sendall(ASKED)
    answer = b""
    while not answer.endswith(b"\r\n\r\n\0\0"):
        piece = client.recv(2**16)
        assert piece, "it was closed"
        answer += piece
    assert answer.startswith(b"HTTP/1.1 200")


def said(client: socket.socket) -> bytes:
    """All that comes until it is closed."""
    found = b""
    with suppress(ConnectionError):
        while piece := client.recv(2**16):
            found += piece
    return found
