"""A service that is played by a function, and both clients before it, driven in the same way."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from scoreserve import AsyncClient, Client

Handler = Callable[[httpx.Request], httpx.Response]


class Driven:
    """An AsyncClient whose methods wait, so that one test holds for both clients."""

    def __init__(self, client: AsyncClient) -> None:
        self.client, self.loop = client, asyncio.new_event_loop()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            outcome = method(*arguments, **options)
            return self.loop.run_until_complete(outcome) if inspect.iscoroutine(outcome) else self._items(outcome)

        return call

    def _items(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        end = object()
        while (item := self.loop.run_until_complete(anext(items, end))) is not end:
            yield item

    def close(self) -> None:
        self.loop.run_until_complete(self.client.aclose())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes a client of a service that is a function of a request."""
    made: list[Any] = []

    def make(handler: Handler, server: str = "http://service", **options: Any) -> Any:
        transport = httpx.MockTransport(handler)
        if request.param == "sync":
            made.append(Client(server, transport=transport, **options))
        else:
            made.append(Driven(AsyncClient(server, transport=transport, **options)))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that a client makes: they take no time, but its clock goes on."""
    made: list[float] = []

    async def pause(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr("scoreserve.sync.time", SimpleNamespace(sleep=made.append))
    monkeypatch.setattr("scoreserve.aio.asyncio", SimpleNamespace(sleep=pause))
    monkeypatch.setattr("scoreserve.flows.time", SimpleNamespace(monotonic=lambda: sum(made)))
    return made


@pytest.fixture
def view() -> Callable[..., dict[str, Any]]:
    """A JobView."""

    def make(state: str = "queued", **fields: Any) -> dict[str, Any]:
        job = {"id": "5f0c9d7b1e2a4c6d8e9f0a1b", "state": state, "kind": "sample", "model": "tiny", "version": 1}
        asked = {"count": 2, "seed": 5, "sampler": {"name": "heun", "levels": 4}, "priority": "normal", "error": None}
        return {**job, **asked, "progress": {"image_steps_done": 3, "image_steps": 14}, **fields}

    return make


@pytest.fixture
def problem() -> Callable[..., httpx.Response]:
    """An answer that is a problem."""

    def make(status: int, code: str, detail: str = "no", headers: Any = None, **fields: Any) -> httpx.Response:
        body = {"type": f"/problems/{code}", "title": "No", "status": status, "code": code, "detail": detail}
        content = {**body, "request_id": "r1", "errors": [], **fields}
        return httpx.Response(
            status, json=content, headers={"content-type": "application/problem+json", **(headers or {})}
        )

    return make
