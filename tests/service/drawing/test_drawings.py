"""Views are drawn once, apart, one of a client at a time, and not at all for HEAD."""

import asyncio
import io
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.drawing import drawings

Check = Callable[..., Any]


@pytest.fixture
def job(client, work: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> str:  # type: ignore[no-untyped-def]
    """Of four images and three frames; even its small pictures are drawn in a process."""
    monkeypatch.setattr(drawings, "SMALL", 0)
    id_: str = client.submit(count=4, seed=4, frames=3)["id"]
    work()
    return f"/jobs/{id_}"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was drawn."""
    made, real = list[str](), drawings.Drawings._make

    async def make(self: Any, client: str, key: str, job: Any, view: Any) -> None:
        made.append(view.name)
        await real(self, client, key, job, view)

    monkeypatch.setattr(drawings.Drawings, "_make", make)
    return made


def test_a_picture_is_drawn_once_whoever_asks_for_which_part(client, job: str, drawn: list[str]) -> None:
    grid = f"{job}/grid.png"
    parts = [client.begin("GET", grid, headers={"Range": f"bytes={n}-{n}"}) for n in range(8)]
    assert {part.result(60).status_code for part in parts} == {206}
    whole = client.get(grid)
    assert whole.content[:8] == b"".join(part.result().content for part in parts)
    assert client.get(grid, params={"v": 2}).content == whole.content, "what says nothing of the picture is no other"
    assert drawn == ["grid.png"]
    client.get(grid, params={"scale": 3})
    assert drawn == ["grid.png"] * 2


def test_head_draws_nothing(client, job: str, drawn: list[str], refusal: Check) -> None:
    for view in ("grid.png", "images/0.png", "animation.webp", "animation.gif", "filmstrip.png"):
        head = client.begin("HEAD", f"{job}/{view}").result(60)
        assert head.status_code == 200
        assert head.headers["accept-ranges"] == "bytes"
        assert "content-length" not in head.headers
        assert not drawn
        length = len(client.get(f"{job}/{view}").content)
        head = client.begin("HEAD", f"{job}/{view}").result(60)
        assert head.headers["content-length"] == str(length), "what was drawn for GET is known"
        assert drawn == [view]
        drawn.clear()
    assert client.begin("HEAD", f"{job}/images/4.png").result(60).status_code == 404


def test_the_pixels_are_the_same_where_nothing_is_apart(client, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    apart = client.get(f"{job}/grid.png").content
    monkeypatch.setattr(drawings, "SMALL", 10**6)
    assert client.get(f"{job}/grid.png").content == apart


def test_one_image_may_be_too_large_too(new_client, settings, work, refusal: Check) -> None:
    client = new_client(settings.model_copy(update={"max_grid_pixels": 5_000}))
    job = client.submit(count=2)
    work()
    assert "scale" in refusal(client.get(f"/jobs/{job['id']}/images/0.png", params={"scale": 9}), "scale")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Nothing is drawn until this is set."""
    gate, real = asyncio.Event(), drawings.Crew.do

    async def do(*arguments: Any) -> Any:
        await gate.wait()
        return await real(*arguments)

    monkeypatch.setattr(drawings.Crew, "do", do)
    return gate


def test_a_client_has_so_many_at_once_and_is_told_how_many(
    new_client, settings, job: str, slow: asyncio.Event, until: Callable[..., None], problem: Check
) -> None:
    client = new_client(settings.model_copy(update={"max_client_drawings": 3}))

    def ask(padding: int, **headers: str) -> "Future[httpx.Response]":
        begun: Future[httpx.Response] = client.begin("GET", f"{job}/grid.png", params={"padding": padding}, **headers)
        return begun

    turns = client.app.state.context.drawings.turns
    begun = [ask(padding) for padding in range(3)]
    until(lambda: turns._number.total() == 3)
    said = problem(ask(3).result(60), 429, "quota-exceeded")
    assert "at most 3 at once are allowed" in said["detail"]
    until(lambda: len(turns._working) == 1)
    client.loop.call_soon_threadsafe(slow.set)
    assert {answer.result(60).status_code for answer in begun} == {200}
    assert ask(3).result(60).status_code == 200


def test_pixels_are_counted_too(new_client, settings, job: str, slow: asyncio.Event, until, problem: Check) -> None:
    client = new_client(settings.model_copy(update={"max_client_drawing_pixels": 1000}))
    turns = client.app.state.context.drawings.turns
    first = client.begin("GET", f"{job}/grid.png", params={"scale": 1, "padding": 0})
    until(lambda: turns._spent.total() == 256)
    said = problem(client.get(f"{job}/grid.png", params={"scale": 2, "padding": 0}), 429, "quota-exceeded")
    assert "have 256 pixels, and this 1,024 more: at most 1,000 at once are allowed" in said["detail"]
    client.loop.call_soon_threadsafe(slow.set)
    assert first.result(60).status_code == 200


def test_what_takes_too_long_is_ended_and_said(client, job: str, monkeypatch: pytest.MonkeyPatch, refusal) -> None:
    async def do(*_: Any) -> Any:
        raise drawings.Overrun("60 s of a processor")

    monkeypatch.setattr(drawings.Crew, "do", do)
    said = refusal(client.get(f"{job}/grid.png"), "scale")
    assert "more than 60 s of a processor | fewer pixels" in said


def test_what_cannot_be_written_is_no_fault_of_who_asks(
    client, job: str, monkeypatch: pytest.MonkeyPatch, problem: Check
) -> None:
    monkeypatch.setattr(drawings.Kept, "new", lambda *_: Path("/nowhere/new"))
    answer = client.get(f"{job}/grid.png", params={"scale": 16, "padding": 64})
    assert "just now" in problem(answer, 503, "images-unavailable")["detail"]
    assert answer.headers["retry-after"]


def test_what_nobody_waits_for_any_more_is_not_drawn(client, job: str, slow: asyncio.Event) -> None:
    context = client.app.state.context

    async def test() -> None:
        finished = await context.jobs.get(job.rpartition("/")[2])
        view = drawings.View("x.png", 10**6, {"kind": "PNG"}, list)
        waiting = [asyncio.create_task(context.drawings.draw(finished.client, finished, view)) for _ in range(2)]
        await asyncio.sleep(0.01)
        (making,) = context.drawings._making.values()
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        assert not making.task.done(), "one waits still"
        waiting[1].cancel()
        await asyncio.wait([waiting[1], making.task])
        assert making.task.cancelled()
        assert not context.drawings._making
        assert not context.drawings.turns._number

    client.call(test())


def test_small_pictures_wait_for_their_clients_turn(client, monkeypatch: pytest.MonkeyPatch) -> None:
    made, most, now = client.app.state.context.drawings, 0, 0

    def small(*_: Any) -> io.BytesIO:
        nonlocal most, now
        now += 1
        most = max(most, now)
        time.sleep(0.002)
        now -= 1
        return io.BytesIO()

    monkeypatch.setattr(drawings, "_small", small)
    view = drawings.View("x.png", 100, {"kind": "PNG"}, list)
    job = SimpleNamespace(image=SimpleNamespace(height=1, width=1, channels=1))

    async def ask() -> None:
        await asyncio.gather(*(made.draw("mallory", job, view) for _ in range(20)))

    client.call(ask())
    assert most == 1


def test_a_grid_that_was_waited_for_is_drawn_alike(client, work_on, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawings, "SMALL", 0)
    answer = work_on(
        client.begin("POST", "/samples", json={"count": 3}, headers={"Accept": "image/png", "Prefer": "wait=30"})
    )
    assert np.asarray(Image.open(io.BytesIO(answer.content))).shape == (38, 38)
