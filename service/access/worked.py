"""Worked: how long threads have worked for a request, which its client is charged for.

They have the interpreter while they work, and the event loop that all others wait for has it less often.
"""

import functools
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

_SECONDS: ContextVar[list[float]] = ContextVar("seconds that threads have worked for the request at hand")


def begin() -> list[float]:
    """Seconds of each thread that works from now on for the request that this task has; none so far."""
    seconds: list[float] = []
    _SECONDS.set(seconds)
    return seconds


def counted(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which is called in a thread, and what it takes of that is counted."""

    @functools.wraps(function)
    def count(*arguments: Any, **named: Any) -> Any:
        begun = time.thread_time()
        try:
            return function(*arguments, **named)
        finally:
            _SECONDS.get([]).append(time.thread_time() - begun)

    return count
