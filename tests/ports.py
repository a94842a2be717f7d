"""Ports of this machine for servers that tests start and then go to by their number."""

import random
import socket

RANGE = range(12_000, 32_000)  # below those that the kernel gives to who asks for any


def free_port() -> int:
    """A port at which nobody listens.

    It is none that the kernel hands out by itself, so that in the time before a server takes it, or between two that
    take it one after another, it is not given to a connection or a server of some other test.
    """
    while True:
        port = random.SystemRandom().choice(RANGE)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
