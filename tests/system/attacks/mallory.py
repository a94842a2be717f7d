"""Mallory, a process of its own: `python -m tests.system.attacks.mallory MODULE ATTACK SECONDS KEY ADDRESS...`.

An attack is a function of a module of this folder, which takes a Mallory. It lasts until the seconds are over and its
standard input is closed. It is printed when it begins, and at the end what it was answered, and over how many
connections at a time if each is answered in its turn.
"""

import importlib
import json
import resource
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import httpx

BEGUN = "begun"  # is printed when the attack begins


@dataclass
class Mallory:
    """Who attacks.

    Args:
        addresses: of all API processes.
        key: that an operator gave to Mallory.
        seconds: how long an attack lasts at least.
    """

    addresses: list[str]
    key: str
    seconds: float
    answers: Counter[str] = field(default_factory=Counter)  # by status, or by what went wrong
    in_turn: int = 0  # connections that are each answered at once, and made anew
    source: str = "127.0.0.1"  # the address that it has, which is also the victim's
    ends: float = 0.0
    enough: threading.Event = field(default_factory=threading.Event)  # is set when nobody needs it to last longer

    def __post_init__(self) -> None:
        self.headers = {"Authorization": f"Bearer {self.key}"}
        self._targets = cycle(self.addresses)

    def begin(self) -> None:
        """The attack begins now, after what had to be prepared."""
        if not self.ends:
            print(BEGUN, flush=True)
        self.ends = time.monotonic() + self.seconds

    @property
    def going(self) -> bool:
        """Whether the attack goes on, which begins when this is first asked."""
        if not self.ends:
            self.begin()
        return time.monotonic() < self.ends or not self.enough.is_set()

    def listen(self) -> None:
        """Waits for the end of standard input."""
        sys.stdin.read()
        self.enough.set()

    def join(self, threads: list[threading.Thread]) -> None:
        """Waits for threads that have begun, until the attack is over."""
        for thread in threads:
            while self.going and thread.is_alive():
                thread.join(0.05)

    def at_once(self, number: int, one: Callable[[httpx.Client, int], Any]) -> None:
        """Does something again and again, in so many threads, each with a connection to one of the processes."""

        def run(index: int) -> None:
            address = self.addresses[index % len(self.addresses)]
            while self.going:
                way = httpx.HTTPTransport(verify=False, trust_env=False, local_address=self.source)
                with httpx.Client(base_url=address, headers=self.headers, timeout=60, transport=way) as http:
                    while self.going:
                        try:
                            self.note(one(http, index))
                        except httpx.TransportError:  # such as a connection that was closed while a body was sent
                            self.note("closed")

        assert self.going
        threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(number)]
        for thread in threads:
            thread.start()
        self.join(threads)

    def note(self, answer: Any) -> None:
        """Counts an answer."""
        self.answers[str(answer.status_code) if isinstance(answer, httpx.Response) else str(answer)] += 1

    @contextmanager
    def sockets(self, number: int, sent: bytes) -> Iterator[list[socket.socket]]:
        """So many connections that have sent something; those that could not be made are left out."""
        made: list[socket.socket] = []
        for _ in range(number):
            made += filter(None, [self.connect(sent)])
        yield made
        for one in made:
            one.close()

    def connect(self, sent: bytes) -> socket.socket | None:
        """A connection to the next process."""
        host, port = next(self._targets).removeprefix("http://").split(":")
        with suppress(OSError):
            one = socket.create_connection((host, int(port)), 5, (self.source, 0))
            one.settimeout(0)
            with suppress(BlockingIOError):
                one.send(sent)
            return one
        self.answers["no connection"] += 1
        return None

    def hold(self, number: int, sent: bytes, more: bytes = b"") -> None:
        """Keeps so many connections open, and sends more over each; what is ended is made anew."""
        with self.sockets(number, sent) as made:
            while self.going:
                time.sleep(0.05)
                for index, one in enumerate(made):
                    try:
                        if more:
                            with suppress(BlockingIOError):
                                one.send(more)
                        with suppress(BlockingIOError):
                            if said := one.recv(2**16):
                                if said.startswith(b"HTTP/1.1 "):
                                    self.note(said[9:12].decode())
                                continue
                            raise ConnectionResetError
                    except OSError:
                        one.close()
                        if not self.going:
                            return
                        if another := self.connect(sent):
                            made[index] = another

    def pour(self, number: int, head: bytes, body: bytes, again: bool = True) -> None:
        """Sends a head, and then the same body again and again if it goes on, over so many connections at once."""

        def run() -> None:
            while self.going:
                one = self.connect(head)
                if one is None:
                    continue
                with one, suppress(OSError):
                    one.settimeout(5)
                    one.sendall(body)
                    while again and self.going:
                        one.sendall(body)
                    self.note(one.recv(2**16)[9:12].decode() or "closed")

        threads = [threading.Thread(target=run, daemon=True) for _ in range(number)]
        assert self.going
        for thread in threads:
            thread.start()
        self.join(threads)

    def request(self, line: str, *headers: str) -> bytes:
        """The head of a request, with the key."""
        own = ["Host: localhost", f"Authorization: Bearer {self.key}"]
        return "\r\n".join([f"{line} HTTP/1.1", *own, *headers, "", ""]).encode()


def main() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8192), hard), hard))
    module, attack, seconds, key, *addresses = sys.argv[1:]
    mallory = Mallory(addresses, key, float(seconds))
    threading.Thread(target=mallory.listen, daemon=True).start()
    getattr(importlib.import_module(f"tests.system.attacks.{module}"), attack)(mallory)
    print(json.dumps({"answers": mallory.answers, "in_turn": mallory.in_turn}), flush=True)


if __name__ == "__main__":
    main()
