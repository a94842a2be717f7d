"""`scoreserve api`: where the memory of its threads comes from."""

import ctypes
import gc
import os
import subprocess
import sys

import pytest

from cli.commands.api import SWITCH_SECONDS, api

THREADS = """
import ctypes, sys, threading
from cli.commands.api import one_arena
if sys.argv[1] == "one":
    one_arena()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
met = threading.Barrier(4)
def allocate():
    met.wait()  # all are alive at a time
    libc.malloc(1000)
    met.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_stats()
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_stats"), reason="a C library without arenas")
def test_all_threads_allocate_from_one_arena() -> None:
    def arenas(how: str, **operator: str) -> int:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | operator
        command = [sys.executable, "-c", THREADS, how]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return process.stderr.count("Arena ")

    assert arenas("many") > 1  # else this test shows nothing
    assert arenas("one") == 1
    assert arenas("one", MALLOC_ARENA_MAX="3") > 1  # the operator's word


class CalledError(Exception):
    pass


def called(*_: object) -> None:
    raise CalledError


def test_the_service_has_one_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.commands.api.one_arena", called)
    monkeypatch.setattr("uvicorn.Server.run", lambda _: None)  # else a service without the call would serve on
    with pytest.raises(CalledError):
        api()


def test_threads_give_way_to_the_event_loop_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.commands.api.one_arena", lambda: None)
    monkeypatch.setattr("cli.commands.api.set_up", called)  # what comes before it is done
    before = sys.getswitchinterval()
    try:
        with pytest.raises(CalledError):
            api()
        assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS)
        assert gc.isenabled(), "but while all was imported"
    finally:
        sys.setswitchinterval(before)
