"""Receivers of webhooks: one that keeps what it gets, and one that never answers."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

CERTIFICATE = Path(__file__).parents[2] / "data" / "tls" / "hooks.test.pem"  # of the name hooks.test, and its key


@dataclass
class Receiver:
    """An HTTP server that keeps what it gets; `answers` are its next ones, then 204."""

    port: int = 0
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    at: list[float] = field(default_factory=list)  # when
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    pause: float = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?a=b"


@pytest.fixture(params=["plain"])
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.at.append(time.monotonic())
            body = self.rfile.read(int(self.headers["content-length"]))
            kept.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            time.sleep(kept.pause)
            status, headers = kept.answers.pop(0) if kept.answers else (204, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if request.param == "tls":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            context.sni_callback = lambda _, name, __: kept.names.append(name)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        kept.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield kept
        server.shutdown()
        thread.join()


class Silent:
    """A receiver that takes every connection and never answers."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.2", 0), backlog=256)
        self.url = f"http://127.0.0.2:{self.socket.getsockname()[1]}/"

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    made = Silent()
    yield made
    made.close()
