"""Connections of a server as it is started: those that are silent end, and there are so many at most."""

import json
import re
import resource
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import cycle

import pytest

from service import connections, effort
from service.connections import MOST_AHEAD_BYTES, MOST_HEADER_BYTES, SLICE_BYTES, Connections
from service.settings import ServiceSettings
from tests.service.server import ASKED, BODY, NEVER, Server, ask, said


def check(answer: bytes, status: int, code: str, detail: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in head.lower()
    problem = json.loads(body)
    assert (problem["status"], problem["code"], problem["type"]) == (status, code, f"/problems/{code}")
    assert detail in problem["detail"]


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nX-Long:"])
def test_headers_that_do_not_end_are_not_waited_for(serve: Callable[..., Server], sent: bytes) -> None:
    """Nor those of a request after another."""
    server = serve(header_timeout_seconds=0.3)
    check(said(server.connect(sent)), 408, "request-timeout", "after 0.3 s")
    after = server.connect()
    ask(after)
    after.sendall(sent + b"X")
    check(said(after), 408, "request-timeout", "after 0.3 s")


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"\x16\x03\x01\r\n\r\n", "illegal request line"),
        (b"GET / HTTP/1.1\r\n\r\n", "Missing mandatory Host: header"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n", "bad Content-Length"),
        (b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 2 * MOST_HEADER_BYTES, "Receive buffer too long"),
    ],
)
def test_what_is_no_request_is_told_so_as_every_problem_is(serve: Callable[..., Server], sent: bytes, why: str) -> None:
    """After another request, too."""
    server = serve()
    after = server.connect()
    ask(after)
    for client in (server.connect(), after):
        client.sendall(sent)
        answer = said(client)
        check(answer, 400, "malformed", f"this is no request of HTTP/1.1: {why}")
        assert b"content-type: application/problem+json\r\n" in answer.lower()


def test_who_goes_on_asking_or_waits_for_an_answer_is_not_silent(serve: Callable[..., Server]) -> None:
    server = serve(header_timeout_seconds=1.0, write_timeout_seconds=1.0)
    waiting, asking = server.connect(NEVER), server.connect()
    for _ in range(16):
        ask(asking)
        time.sleep(0.1)
    waiting.setblocking(False)
    with pytest.raises(BlockingIOError):
        waiting.recv(1)


@pytest.mark.parametrize("path", ["/large", "/pieces"])
def test_who_takes_nothing_of_an_answer_is_dropped(
    serve: Callable[..., Server], until: Callable[..., None], path: str
) -> None:
    server = serve(write_timeout_seconds=0.3)
    server.connect(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    until(lambda: server.ended == [path])
    until(lambda: server.open == 0)


def test_who_takes_it_slowly_gets_it_all(serve: Callable[..., Server]) -> None:
    server = serve(write_timeout_seconds=3.0)
    reader = server.connect(b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    found = 0
    for _ in range(40):  # more than three seconds
        time.sleep(0.1)
        found += len(reader.recv(2**18, socket.MSG_WAITALL))
    assert found + len(said(reader)) > 2**25


def test_what_is_sent_ahead_is_bounded(serve: Callable[..., Server], until: Callable[..., None]) -> None:
    server = serve()
    ahead = server.connect(NEVER)
    with suppress(ConnectionError):
        ahead.sendall(ASKED * (8 * MOST_AHEAD_BYTES // len(ASKED)))
    until(lambda: server.ended == ["/never"])
    until(lambda: server.open == 0)
    few = server.connect(ASKED * 10)
    found = b""
    while found.count(b"200 OK") < 10:
        found += few.recv(2**16)


@pytest.mark.parametrize("hang_up", [socket.SHUT_WR, socket.SHUT_RDWR], ids=["half", "whole"])
@pytest.mark.parametrize("ahead", [b"X", ASKED, ASKED * (MOST_AHEAD_BYTES // len(ASKED))], ids=["byte", "one", "many"])
def test_who_sends_ahead_and_hangs_up_is_not_waited_for(
    serve: Callable[..., Server], until: Callable[..., None], ahead: bytes, hang_up: int
) -> None:
    """Nor is one whose request waits behind another, which has been answered."""
    server = serve()
    client = server.connect(NEVER)
    until(lambda: server.begun == ["/never"])  # and waits for nothing but the end
    client.sendall(ahead)
    client.shutdown(hang_up)
    until(lambda: server.ended == ["/never"])
    second = server.connect(ASKED + NEVER)
    until(lambda: server.begun[1:] == ["/small", "/never"])
    second.sendall(ahead)
    second.shutdown(hang_up)
    until(lambda: server.ended[1:] == ["/small", "/never"] and server.open == 0)


@pytest.mark.parametrize(("path", "said_so"), [("never", b"HTTP/1.1 400 "), ("endless", b"begun")])
def test_what_is_no_request_ends_the_one_that_is_waited_for(
    serve: Callable[..., Server],
    until: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    path: str,
    said_so: bytes,
) -> None:
    server = serve()
    client = server.connect(f"GET /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    until(lambda: server.begun == [f"/{path}"])
    client.sendall(ASKED)  # after it has said that no more would come
    assert said_so in said(client)
    until(lambda: server.ended == [f"/{path}"])
    assert not [record for record in caplog.records if record.name == "asyncio"]


@pytest.mark.parametrize("hang_up", [False, True])
def test_what_is_sent_ahead_of_a_wait_is_bounded_however_it_comes(
    serve: Callable[..., Server], until: Callable[..., None], hang_up: bool
) -> None:
    """Also where so much is on its way that the end of it does not arrive."""
    server = serve()
    client = server.connect(NEVER)
    until(lambda: server.begun == ["/never"])
    client.sendall(ASKED)
    until(lambda: server.ahead == len(ASKED))
    client.settimeout(0.5)
    with suppress(ConnectionError, TimeoutError):
        client.sendall(BODY)
    if hang_up:
        client.close()
    until(lambda: server.ended == ["/never"] and server.open == 0)


def test_requests_sent_ahead_of_an_answer_are_answered_in_order(
    serve: Callable[..., Server], until: Callable[..., None]
) -> None:
    server = serve()
    body = b"Content-Length: %d\r\n\r\n" % 2**14 + bytes(2**14)
    paths = ["/held", "/small", "/other", "/small"]
    client = server.connect()
    for number, path in enumerate(paths):
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + body)
        until(lambda number=number: server.begun == ["/held"] and (server.ahead > 0) == (number > 0))
    server.hold.set()
    until(lambda: server.ended == paths)
    client.shutdown(socket.SHUT_WR)
    answers = said(client).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [re.findall(rb"x-path: (\S+)", answer) for answer in answers] == [[path.encode()] for path in paths]


def test_an_address_has_so_many_unless_it_is_a_proxy(serve: Callable[..., Server], until: Callable[..., None]) -> None:
    server = serve(max_client_connections=2, forwarded_allow_ips="127.0.0.1")
    for _ in range(5):
        ask(server.connect())
    first, second = (server.connect(source="127.0.0.2") for _ in range(2))
    ask(first)
    ask(second)
    check(said(server.connect(ASKED, "127.0.0.2")), 429, "quota-exceeded", "2 connections of 127.0.0.2 are open")
    first.close()
    until(lambda: server.connections._of["127.0.0.2"] == 1)
    ask(server.connect(source="127.0.0.2"))


def test_where_there_is_no_room_who_asks_for_nothing_makes_way(
    serve: Callable[..., Server], until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "AGAIN_SECONDS", 0.0)
    server = serve(max_connections=4)
    one = server.connect()
    ask(one)
    silent = [server.connect(b"GET /", "127.0.0.3") for _ in range(3)]
    until(lambda: server.open == 4)
    newest = server.connect(NEVER)
    assert said(silent[0]) == b"", "the oldest of the address that has most"
    ask(one)
    for _ in range(3):
        server.connect(NEVER)
    assert said(silent[1]) == said(silent[2]) == said(one) == b""
    until(lambda: not any(connection.spare for connection in server.connections._all))
    check(said(server.connect(ASKED)), 503, "busy", "4 connections are open here")
    newest.close()
    until(lambda: server.open == 3)
    ask(server.connect())


TINY = b"POST /body HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + 5000 * b"1\r\nx\r\n"


def test_who_makes_reading_dear_is_read_later_and_no_other(
    serve: Callable[..., Server], until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(forwarded_allow_ips="10.0.0.1")
    waits = server.connections.effort
    monkeypatch.setattr(effort, "TIMES", 1e6)  # so that it waits on the fastest machine, and long on the slowest
    client = server.connect(TINY)
    until(lambda: waits.wait("127.0.0.1", time.monotonic()) > 0)
    waits._until["127.0.0.1"] = time.monotonic() + 3600
    client.sendall(100 * b"1\r\nx\r\n" + b"0\r\n\r\n")
    same = server.connect(ASKED)
    ask(server.connect(source="127.0.0.2"))
    same.setblocking(False)
    with pytest.raises(BlockingIOError):
        same.recv(1)


def test_what_is_dear_and_sent_ahead_of_an_answer_is_read_later_too(serve: Callable[..., Server], until) -> None:
    server = serve(forwarded_allow_ips="10.0.0.1")
    client = server.connect(NEVER.replace(b"never", b"held") + TINY)
    until(lambda: server.begun == ["/held"] and server.ahead)
    (connection,) = server.connections._all
    assert connection.ahead > 4 * SLICE_BYTES
    assert len(connection.conn.trailing_data[0]) <= SLICE_BYTES, "the parser has no more of it than is read at once"
    server.connections.effort._until["127.0.0.1"] = time.monotonic() + 3600
    server.hold.set()
    while not (got := client.recv(2**16)).startswith(b"HTTP/1.1 200"):
        assert got, "it was closed"
    ask(server.connect(source="127.0.0.2"))
    assert server.begun == ["/held", "/small"]
    server.connections.effort._until.clear()
    connection.loop.call_soon_threadsafe(connection._read)
    until(lambda: server.begun == ["/held", "/small", "/body"])
    client.sendall(b"0\r\n\r\n")
    assert answered(client)[2].endswith(b"5000")


def test_what_is_read_later_is_all_there(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks or pipelined, in whichever pieces it was read; and a proxy, which is many, does not wait at all."""
    for proxy, seconds in (("10.0.0.1", [0.0, 0.001, 0.02]), ("127.0.0.1", [3600.0])):
        waits = cycle(seconds)
        monkeypatch.setattr(connections.Effort, "wait", lambda *_, waits=waits: next(waits))
        server = serve(forwarded_allow_ips=proxy)
        client = server.connect(TINY + b"0\r\n\r\n")
        head, _, body = answered(client)
        assert (head[:12], body) == (b"HTTP/1.1 200", b"5000")
        for _ in range(3):
            ask(client)
        client.sendall(ASKED * 50)
        got = b""
        while got.count(b"HTTP/1.1 200") < 50 or not got.endswith(b"\0\0"):
            got += client.recv(2**16)


def answered(client: socket.socket) -> tuple[bytes, bytes, bytes]:
    """Head and body of an answer of /body, which is a number."""
    got = b""
    while not re.search(rb"\r\n\r\n\d", got):
        piece = client.recv(2**16)
        assert piece, "it was closed"
        got += piece
    return got.partition(b"\r\n\r\n")


def test_no_more_are_let_in_than_there_are_files(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: said.append(limits))
    for limits, total, told in (
        ((100, 10_000), 3000, [(3256, 10_000)]),
        ((1024, 2000), 1744, [(2000, 2000)]),
        ((9000, 9000), 3000, []),
        ((-1, -1), 3000, []),
    ):
        said.clear()
        monkeypatch.setattr(resource, "getrlimit", lambda _, limits=limits: limits)
        assert Connections(ServiceSettings()).total == total
        assert said == told
    assert "1744 connections may be open, and not 3000: `ulimit -n` is 2000" in caplog.text
