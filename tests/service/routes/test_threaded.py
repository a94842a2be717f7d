"""Handlers in threads: of each client one at a time, and charged for what they take."""

import asyncio
import importlib
import inspect
import pkgutil
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter

from service import routes
from service.access.pace import WORKED_SECONDS, Pace
from service.routes.threaded import ThreadedRoute

PATHS = ("/jobs", "/models", "/metrics", "/readyz", "/workers", "/operator/jobs")


class Slow:
    """Routes that wait to be let go, in a thread and not, and how many requests of them are at work."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.at_work: list[str] = []
        self.router = APIRouter(route_class=ThreadedRoute)
        self.router.add_api_route("/samples/thread", self.thread)
        self.router.add_api_route("/samples/loop", self.loop)

    def thread(self, who: str) -> None:
        self.at_work.append(who)
        self.go.wait(60)

    async def loop(self, who: str) -> None:
        self.at_work.append(who)
        await asyncio.to_thread(self.go.wait, 60)


@pytest.fixture
def slow(client) -> Slow:
    made = Slow()
    client.app.include_router(made.router)
    return made


@pytest.fixture
def asked(client, slow: Slow, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]) -> Callable[[str], Any]:
    """Three requests of one client and one of another, of which so many as can are at work."""
    monkeypatch.setattr("service.routes.threaded.line_of", lambda request: request.query_params["who"])

    def ask(path: str) -> list[Any]:
        return [client.begin("GET", f"/samples/{path}", params={"who": who}) for who in ("a", "a", "a", "b")]

    return ask


def test_one_of_a_client_is_at_work_at_a_time(slow: Slow, asked: Callable[[str], Any], until) -> None:
    answers = asked("thread")
    until(lambda: "b" in slow.at_work)
    assert sorted(slow.at_work) == ["a", "b"]
    slow.go.set()
    assert [answer.result(60).status_code for answer in answers] == [200] * 4
    assert sorted(slow.at_work) == ["a", "a", "a", "b"]


def test_what_runs_on_the_loop_waits_for_nothing(slow: Slow, asked: Callable[[str], Any], until) -> None:
    answers = asked("loop")
    until(lambda: len(slow.at_work) == 4)
    slow.go.set()
    assert [answer.result(60).status_code for answer in answers] == [200] * 4


def test_every_handler_that_is_a_plain_function_is_such() -> None:
    names = [module.name for module in pkgutil.iter_modules(routes.__path__)]
    modules = [importlib.import_module(f"service.routes.{name}") for name in names]
    found = [route for module in modules if hasattr(module, "router") for route in module.router.routes]
    plain = [route for route in found if not asyncio.iscoroutinefunction(inspect.unwrap(route.endpoint))]
    assert {route.path for route in plain}.issuperset(PATHS)
    assert all(isinstance(route, ThreadedRoute) for route in plain)


def test_what_a_thread_has_worked_is_charged_to_who_asked(client, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(who: str) -> None:
        ends = time.thread_time() + 2 * WORKED_SECONDS
        while time.thread_time() < ends:
            pass

    router = APIRouter(route_class=ThreadedRoute)
    router.add_api_route("/samples/work", work)
    client.app.include_router(router)
    charged: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Pace, "charge", lambda _, *told: charged.append(told))
    assert client.get("/samples/work", params={"who": "a"}).status_code == 200
    ((who, received, sent, _, worked, _),) = charged
    assert (who, received, sent) == ("address/127.0.0.1", 0, 4)
    assert worked >= 2 * WORKED_SECONDS
