"""Signals that a shell told a process to ignore, as by `nohup` or a script's `&`."""

import signal
from collections.abc import Iterator

import pytest

from cli.signals import handle, ignored_stay_so


@pytest.fixture(autouse=True)
def dispositions() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)}
    yield
    for number, how in before.items():
        signal.signal(number, how)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_is_ignored_stays_so(number: signal.Signals) -> None:
    def by(*_: object) -> None:
        raise AssertionError

    signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    handle(number, signal.SIGTERM, by=by)
    assert signal.getsignal(number) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is by
    with ignored_stay_so():
        signal.signal(number, by)
    assert signal.getsignal(number) is signal.SIG_IGN


def test_what_is_not_is_handled() -> None:
    def by(*_: object) -> None:
        raise AssertionError

    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    handle(signal.SIGINT, signal.SIGHUP, by=by)
    assert signal.getsignal(signal.SIGINT) is by
    assert signal.getsignal(signal.SIGHUP) is by
