"""AsyncClient: the service from asyncio."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from scoreserve import connection
from scoreserve.methods import Methods
from scoreserve.steps import Emit, Feed, Flow, Open, Read, Run, Send, Sleep, Step

T = TypeVar("T")


class AsyncClient(Methods[httpx.AsyncBaseTransport]):
    __doc__ = Methods.__doc__

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    def _connect(self, **options: Any) -> None:
        self._http = connection.connect(httpx.AsyncClient, **options)

    async def _run(self, flow: Flow[T]) -> T:
        run = Run(flow)
        async for _ in self._carry_out(run):
            pass
        return run.result

    def _iterate(self, feed: Feed[T, Any]) -> AsyncIterator[T]:
        return self._carry_out(Run(feed))

    async def _carry_out(self, run: Run[Any]) -> AsyncIterator[Any]:
        async with aclosing(_Wire(self._http)) as wire:
            step = run.begin()
            while step is not None:
                if isinstance(step, Emit):
                    yield step.item
                    step = run.done(None)
                    continue
                try:
                    outcome = await wire.perform(step)
                except httpx.RequestError as error:
                    step = run.failed(error)
                else:
                    step = run.done(outcome)


class _Wire:
    """Does the steps of one run; holds the stream that it reads."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._stream: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def perform(self, step: Step[Any]) -> Any:
        match step:
            case Send(call):
                return await self._http.send(connection.request(self._http, call))
            case Open(call):
                await self.aclose()
                self._stream = await self._http.send(connection.request(self._http, call), stream=True)
                if not self._stream.is_success:
                    await self._stream.aread()
                self._chunks = self._stream.aiter_bytes()
                return self._stream
            case Read():
                return await anext(self._chunks, b"") if self._chunks is not None else b""
            case Sleep(seconds):
                await asyncio.sleep(seconds)
        return None

    async def aclose(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()
