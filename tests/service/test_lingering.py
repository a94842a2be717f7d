"""Lingering: who is refused while it still sends gets the answer, and is not read for ever."""

import socket
from collections.abc import Callable
from contextlib import suppress

import pytest

from service import lingering
from tests.service.server import BODY, REFUSED, Server, said

SENT = {
    "length": b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY),
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"40000\r\n%s\r\n" % bytes(2**18) for _ in range(32)),
}


def refused(server: Server, until: Callable[..., None], sent: bytes = SENT["length"], **where: str) -> socket.socket:
    """A client that has been answered, and has not sent all that it said it would."""
    number, head = len(server.ended), b"POST /refused HTTP/1.1\r\nHost: localhost\r\n"
    client = server.connect(head + sent[: 2**16], **where)
    until(lambda: len(server.ended) > number)
    until(lambda: server.open == 0)
    return client


@pytest.mark.parametrize("how", SENT)
def test_who_is_refused_while_it_still_sends_gets_the_answer(
    serve: Callable[..., Server], until: Callable[..., None], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(lingering, "SECONDS", 60.0)
    server = serve()
    client = refused(server, until, SENT[how])
    client.sendall(SENT[how][2**16 :])  # which is all that it has to send, before it reads
    head, _, body = said(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert body == REFUSED
    client.close()
    until(lambda: len(server.connections.lingering) == 0)


@pytest.mark.parametrize(("most_bytes", "seconds"), [(2**18, 60.0), (2**40, 0.2)])
def test_who_goes_on_sending_is_not_read_for_ever(
    serve: Callable[..., Server],
    until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    most_bytes: int,
    seconds: float,
) -> None:
    monkeypatch.setattr(lingering, "MOST_BYTES", most_bytes)
    monkeypatch.setattr(lingering, "SECONDS", seconds)
    server = serve()
    client = refused(server, until)
    with suppress(ConnectionError):
        while True:
            client.sendall(BODY)
    until(lambda: len(server.connections.lingering) == 0)


def test_few_are_read_at_once_and_for_one_more_the_oldest_makes_way(
    serve: Callable[..., Server], until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound, most in (("SECONDS", 60.0), ("MOST_OF_ADDRESS", 2), ("MOST", 3)):
        monkeypatch.setattr(lingering, bound, most)
    server = serve(forwarded_allow_ips="127.0.0.9")

    def ended(client: socket.socket) -> bool:
        with suppress(BlockingIOError):
            try:
                client.send(b"more", socket.MSG_DONTWAIT)
            except ConnectionError:
                return True
        return False

    other = refused(server, until, source="127.0.0.2")
    first, second, third = (refused(server, until) for _ in range(3))
    until(lambda: ended(first))
    assert not ended(other), "of one address, which has so many"
    assert not ended(second)
    of_proxy = [refused(server, until, source="127.0.0.9") for _ in range(3)]
    for one in (other, second, third):  # the oldest of all
        until(lambda one=one: ended(one))
    assert not any(map(ended, of_proxy)), "as many as there may be of all"
    assert len(server.connections.lingering) == 3
