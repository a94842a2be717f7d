"""What a call to the service does, step by step, without doing it: so that threads and asyncio share every line.

A flow is a generator. It yields what is to be done next and is sent what came of it; `Client` and `AsyncClient` each
only know how to do the four things below.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from scoreserve.calls import Call

T = TypeVar("T")
Item_co = TypeVar("Item_co", covariant=True)


@dataclass(frozen=True)
class Send:
    """Send a request. What comes of it: the httpx.Response, its body read; or httpx.RequestError."""

    call: Call


@dataclass(frozen=True)
class Open:
    """The same, but the body of a good answer is not read: it is the stream that `Read` reads."""

    call: Call


@dataclass(frozen=True)
class Read:
    """Read on. What comes of it: bytes, none at the stream's end; or httpx.RequestError."""


@dataclass(frozen=True)
class Sleep:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Emit(Generic[Item_co]):
    """Give this to whoever iterates."""

    item: Item_co


Step: TypeAlias = Send | Open | Read | Sleep | Emit[Item_co]
Flow: TypeAlias = Generator[Step[Any], Any, T]  # whose result is a T
Feed: TypeAlias = Generator[Step[Item_co], Any, T]  # the same, which emits items


class Run(Generic[T]):
    """A flow that is being carried out.

    Args:
        flow: not begun.
    """

    result: T

    def __init__(self, flow: Flow[T]) -> None:
        self._flow = flow

    def begin(self) -> Step[Any] | None:
        """The first step; None if there is none."""
        return self.done(None)

    def done(self, outcome: Any) -> Step[Any] | None:
        """A step is done; returns the next one, or None: then `result` is there."""
        try:
            return self._flow.send(outcome)
        except StopIteration as stop:
            self.result = stop.value
            return None

    def failed(self, error: Exception) -> Step[Any] | None:
        """A step failed; returns what to do now."""
        try:
            return self._flow.throw(error)
        except StopIteration as stop:
            self.result = stop.value
            return None
