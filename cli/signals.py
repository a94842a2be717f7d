"""Signals that a command handles, as who started it wishes."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

OTHERS_MAY_IGNORE = signal.SIGINT, signal.SIGHUP  # as a shell makes what it starts with `&` do, and `nohup`


def handle(*numbers: signal.Signals, by: Callable[[int, FrameType | None], object]) -> None:
    """Handles signals, but those that this process was started to ignore."""
    with ignored_stay_so():
        for number in numbers:
            signal.signal(number, by)


@contextmanager
def ignored_stay_so() -> Iterator[None]:
    """After what happens within, those signals are ignored that were before, whatever handles them now."""
    ignored = [number for number in OTHERS_MAY_IGNORE if signal.getsignal(number) is signal.SIG_IGN]
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
