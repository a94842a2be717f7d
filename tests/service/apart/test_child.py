"""What a process does by itself before it works."""

import os
from pathlib import Path

import pytest

from service.apart import child


def test_it_says_again_that_it_goes_last_where_the_system_puts_that_off(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def write(path: Path, text: str) -> None:
        said.append(text)
        if len(said) < 3:
            raise BlockingIOError

    monkeypatch.setattr(Path, "write_text", write)
    monkeypatch.setattr(os, "nice", lambda _: None)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
    monkeypatch.setattr(child, "TRY_SECONDS", 0)
    child._go_last()
    assert said == [str(child.NICE)] * 3
