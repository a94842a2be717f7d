"""Client: the service from a program that waits for its answers."""

import time
from collections.abc import Iterator
from contextlib import closing
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from scoreserve import connection
from scoreserve.methods import Methods
from scoreserve.steps import Emit, Feed, Flow, Open, Read, Run, Send, Sleep, Step

T = TypeVar("T")


class Client(Methods[httpx.BaseTransport]):
    __doc__ = Methods.__doc__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def _connect(self, **options: Any) -> None:
        self._http = connection.connect(httpx.Client, **options)

    def _run(self, flow: Flow[T]) -> T:
        run = Run(flow)
        for _ in self._carry_out(run):
            pass
        return run.result

    def _iterate(self, feed: Feed[T, Any]) -> Iterator[T]:
        return self._carry_out(Run(feed))

    def _carry_out(self, run: Run[Any]) -> Iterator[Any]:
        with closing(_Wire(self._http)) as wire:
            step = run.begin()
            while step is not None:
                if isinstance(step, Emit):
                    yield step.item
                    step = run.done(None)
                    continue
                try:
                    outcome = wire.perform(step)
                except httpx.RequestError as error:
                    step = run.failed(error)
                else:
                    step = run.done(outcome)


class _Wire:
    """Does the steps of one run; holds the stream that it reads."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._stream: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def perform(self, step: Step[Any]) -> Any:
        match step:
            case Send(call):
                return self._http.send(connection.request(self._http, call))
            case Open(call):
                self.close()
                self._stream = self._http.send(connection.request(self._http, call), stream=True)
                if not self._stream.is_success:
                    self._stream.read()
                self._chunks = self._stream.iter_bytes()
                return self._stream
            case Read():
                return next(self._chunks, b"")
            case Sleep(seconds):
                time.sleep(seconds)
        return None

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
