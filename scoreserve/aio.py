"""AsyncClient: the service from asyncio. Method for method it is `Client`, which says what each does."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

import httpx

from scoreserve import calls, connection, flows, pictures
from scoreserve.calls import Ask, InpaintAsk, Picture
from scoreserve.events import Event
from scoreserve.flows import PATIENCE, Patience, id_of
from scoreserve.records import Job, Model, State
from scoreserve.steps import Emit, Flow, Open, Read, Run, Send, Sleep, Step

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

T = TypeVar("T")


class AsyncClient:
    """A connection to one service, with the arguments of `Client`."""

    def __init__(
        self,
        server: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        client_id: str | None = None,
        timeout: float = 30.0,
        patience: Patience = PATIENCE,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._patience = patience
        self._http = httpx.AsyncClient(**connection.options(server, api_key, client_id, timeout), transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def sample(self, **ask: Unpack[Ask]) -> Job:
        """As `Client.sample`."""
        return await self._run(flows.read(calls.sample(ask), self._patience, Job.of))

    async def inpaint(self, image: Picture, mask: Picture | None = None, **ask: Unpack[InpaintAsk]) -> Job:
        """As `Client.inpaint`."""
        return await self._run(flows.read(calls.inpaint(image, mask, ask), self._patience, Job.of))

    async def job(self, job: Job | str) -> Job:
        """As `Client.job`."""
        return await self._run(flows.read(calls.job(id_of(job)), self._patience, Job.of))

    def jobs(self, *, state: Sequence[State] = (), model: Sequence[str] = (), page: int = 20) -> AsyncIterator[Job]:
        """As `Client.jobs`."""
        return self._iterate(Run(flows.jobs(state, model, page, self._patience)))

    async def cancel(self, job: Job | str) -> Job:
        """As `Client.cancel`."""
        return await self._run(flows.read(calls.cancel(id_of(job)), self._patience, Job.of))

    def events(self, job: Job | str, *, previews: bool = False, last_id: str | None = None) -> AsyncIterator[Event]:
        """As `Client.events`."""
        return self._iterate(Run(flows.events(id_of(job), previews, last_id, self._patience)))

    def follow(self, job: Job | str, *, previews: bool = False) -> AsyncIterator[Event]:
        """As `Client.follow`."""
        return self._iterate(Run(flows.follow(id_of(job), previews, self._patience)))

    async def wait(self, job: Job | str, timeout: float | None = None) -> Job:
        """As `Client.wait`."""
        return await self._run(flows.wait(job, timeout, self._patience))

    async def grid(self, job: Job | str, *, columns: int | None = None, padding: int = 2, scale: int = 2) -> "Image":
        """As `Client.grid`."""
        call = calls.view(id_of(job), "grid.png", {"columns": columns, "padding": padding, "scale": scale})
        return await self._run(flows.content(call, self._patience, pictures.decode))

    async def image(self, job: Job | str, index: int) -> "Image":
        """As `Client.image`."""
        call = calls.view(id_of(job), f"images/{index}.png", {})
        return await self._run(flows.content(call, self._patience, pictures.decode))

    async def arrays(self, job: Job | str) -> "np.ndarray":
        """As `Client.arrays`."""
        call = calls.view(id_of(job), "samples.npz", {})
        return await self._run(flows.content(call, self._patience, pictures.arrays))

    async def view(self, job: Job | str, name: str, **parameters: Any) -> bytes:
        """As `Client.view`."""
        return await self._run(flows.content(calls.view(id_of(job), name, parameters), self._patience, bytes))

    async def models(self) -> list[Model]:
        """As `Client.models`."""
        return await self._run(flows.read(calls.get("models"), self._patience, flows.model_list))

    async def model(self, name: str, version: int | None = None) -> Model:
        """As `Client.model`."""
        return await self._run(flows.read(calls.model(name, version), self._patience, Model.of))

    async def unready(self) -> str | None:
        """As `Client.unready`."""
        return await self._run(flows.unready())

    async def _run(self, flow: Flow[T]) -> T:
        run = Run(flow)
        async for _ in self._iterate(run):
            pass
        return run.result

    async def _iterate(self, run: Run[Any]) -> AsyncIterator[Any]:
        async with aclosing(_Wire(self._http)) as wire:
            step = run.begin()
            while step is not None:
                if isinstance(step, Emit):
                    yield step.item
                    step = run.done(None)
                    continue
                try:
                    outcome = await wire.perform(step)
                except httpx.TransportError as error:
                    step = run.failed(error)
                else:
                    step = run.done(outcome)


class _Wire:
    """Does the steps of one run; holds the stream that it reads."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._stream: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def perform(self, step: Step) -> Any:
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
