"""Archives are made while they are sent, one at a time of a client; who waits for a store holds up no other."""

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi import Response
from redis.connection import AbstractConnection

from models.images import Pixels
from service.answering import views
from service.drawing import archives
from service.drawing.archives import Archives
from worker.queue.stores import StoreAway

Check = Callable[..., Any]
IMAGES = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)


@pytest.fixture
def job(client, work: Callable[[], None]) -> str:  # type: ignore[no-untyped-def]
    """Of four images."""
    id_: str = client.submit(count=4, seed=4)["id"]
    work()
    return f"/jobs/{id_}"


def plain(images: Iterator[Pixels]) -> Iterator[bytes]:
    """An archive that is nothing but pixels."""
    return (some.tobytes() for some in images)


async def sent(made: Archives, client: str, images: Iterator[Pixels], make: archives.Make = plain) -> bytes:
    """All that a client is sent."""
    found: list[bytes] = []

    async def send(message: Any) -> None:
        found.append(message.get("body", b""))

    async def receive() -> Any:
        await asyncio.Event().wait()

    answer = await made.download(client, make, images, {}, "application/zip")
    await answer({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
    return b"".join(found)


def test_a_small_archive_takes_one_turn_and_one_round_trip(client, job: str, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    turns, sent = client.app.state.context.archives.turns, []
    taken: list[str] = []
    of, send = turns.of, AbstractConnection.send_packed_command
    monkeypatch.setattr(turns, "of", lambda client, cost: taken.append(client) or of(client, cost))
    monkeypatch.setattr(
        AbstractConnection, "send_packed_command", lambda *of, **how: sent.append(1) or send(*of, **how)
    )
    answer = client.get(f"{job}/samples.npz")
    assert (len(taken), len(sent)) == (1, 1)
    assert int(answer.headers["content-length"]) == len(answer.content)
    with np.load(io.BytesIO(answer.content)) as found:
        assert found["images"].shape == (4, 8, 8, 1)
    monkeypatch.setattr(views, "LIGHT_BYTES", 4 * 64 - 1)
    assert "content-length" not in client.get(f"{job}/samples.npz").headers, "it is made while it is sent"


def test_archives_are_sent_so_many_at_once(
    new_client,
    settings,
    job: str,
    problem: Check,
    work: Callable[[], None],
    until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(views, "LIGHT_BYTES", 4 * 64 - 1)
    client = new_client(settings.model_copy(update={"max_client_downloads": 2}))
    of_clients = client.app.state.context.archives.downloads
    (name,) = {found.client for found in [client.call(client.app.state.context.jobs.get(job.rpartition("/")[2]))]}
    of_clients[name] = 2  # as two that are being sent
    for view in ("samples.npz", "images.zip"):
        assert "at most 2 at once" in problem(client.get(f"{job}/{view}"), 429, "quota-exceeded")["detail"]
        assert client.begin("HEAD", f"{job}/{view}").result(60).status_code == 200
    of_clients[name] = 1
    assert client.get(f"{job}/samples.npz").status_code == 200
    assert of_clients[name] == 1, "given back"
    of_clients[name] = 2
    asked = {"count": 3, "sampler": {"name": "heun", "levels": 2}}
    waiting = client.begin("POST", "/samples", json=asked, headers={"Accept": views.NPZ})
    until(lambda: len(client.get("/jobs").json()["jobs"]) == 2)
    work()
    answer = waiting.result(60)
    assert answer.status_code == 200, "small ones count for nothing: waits end together"
    assert client.get(f"{answer.headers['location']}/samples.npz").status_code == 200
    problem(client.get(f"{answer.headers['location']}/images.zip"), 429, "quota-exceeded")
    assert of_clients[name] == 2


def test_archives_that_are_asked_for_at_once_are_counted_before_they_begin(client, until: Callable[..., None]) -> None:
    made, gate = client.app.state.context.archives, threading.Event()
    made.most_downloads = 1

    def make(_: Iterator[Pixels]) -> Iterator[bytes]:
        assert gate.wait(60)
        raise LookupError

    async def ask() -> tuple[BaseException | Response, ...]:
        asking = [
            asyncio.create_task(made.download("mallory", make, iter(()), {}, "application/zip")) for _ in range(3)
        ]
        await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        gate.set()
        return await asyncio.gather(*asking, return_exceptions=True)

    first, *others = client.call(ask())
    assert isinstance(first, LookupError)
    assert [type(other).__name__ for other in others] == ["Problem", "Problem"]
    assert not made.downloads, "given back, though nothing was sent"


def test_archives_rest_for_all_that_are_sent_to_their_client(client, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not for what was waited for."""
    made, rested, now = client.app.state.context.archives, [], 0.0

    def images() -> Iterator[Pixels]:
        nonlocal now
        now += 100.0
        yield IMAGES

    def make(come: Iterator[Pixels]) -> Iterator[bytes]:
        nonlocal now
        for _ in come:
            now += 0.5
            yield b"piece"

    async def rest(who: str, seconds: float) -> None:
        rested.append((who, seconds))

    monkeypatch.setattr(made.pace, "rest", rest)
    monkeypatch.setattr(archives, "time", SimpleNamespace(monotonic=lambda: now))
    made.downloads["mallory"] = 2
    assert client.call(sent(made, "mallory", images(), make)) == b"piece"
    assert rested == [("mallory", 1.5)]


def slow(gate: threading.Event, asked: list[str]) -> Iterator[Pixels]:
    """Images in a store that answers when the gate is open."""
    asked.append("images")
    assert gate.wait(60)
    yield IMAGES


def test_a_store_that_answers_slowly_holds_up_its_own_client_alone(client, until: Callable[..., None]) -> None:
    made, gate, asked = client.app.state.context.archives, threading.Event(), list[str]()

    async def ask() -> None:
        waiting = [asyncio.create_task(sent(made, "mallory", slow(gate, asked))) for _ in range(4)]
        while not asked:
            await asyncio.sleep(0.01)
        assert await asyncio.wait_for(sent(made, "alice", iter([IMAGES])), 60) == IMAGES.tobytes()
        assert len(asked) == 1, "each client has one thread at a time"
        gate.set()
        assert await asyncio.gather(*waiting) == [IMAGES.tobytes()] * 4

    client.call(ask())
    assert not made.downloads


def test_who_goes_while_a_store_is_waited_for_keeps_the_turn_until_it_answers(client) -> None:
    """Or who comes and goes would have all threads wait."""
    made, gate, asked = client.app.state.context.archives, threading.Event(), list[str]()

    async def ask() -> None:
        goes = asyncio.create_task(sent(made, "mallory", slow(gate, asked)))
        while not asked:
            await asyncio.sleep(0.01)
        goes.cancel()
        comes = asyncio.create_task(sent(made, "mallory", slow(gate, asked)))
        await asyncio.wait([goes])
        for _ in range(10):
            await asyncio.sleep(0.01)
        assert goes.cancelled()
        assert made.downloads["mallory"] == 1
        assert len(asked) == 1
        gate.set()
        assert await comes == IMAGES.tobytes()

    client.call(ask())
    assert not made.downloads


def test_one_works_at_a_time(client) -> None:
    made, most, now = client.app.state.context.archives, 0, 0

    def make(come: Iterator[Pixels]) -> Iterator[bytes]:
        nonlocal most, now
        for images in come:
            now += 1
            most = max(most, now)
            time.sleep(0.002)
            now -= 1
            yield images.tobytes()

    async def ask() -> None:
        await asyncio.gather(*(sent(made, f"client {n}", iter([IMAGES] * 3), make) for n in range(8)))

    client.call(ask())
    assert most == 1


def test_what_a_store_cannot_give_is_said_and_the_next_has_its_turn(client) -> None:
    made = client.app.state.context.archives

    def away() -> Iterator[Pixels]:
        raise StoreAway("away")
        yield IMAGES

    async def ask() -> bytes:
        with pytest.raises(StoreAway):
            await sent(made, "alice", away())
        return await sent(made, "alice", iter([IMAGES]))

    assert client.call(ask()) == IMAGES.tobytes()
    assert not made.downloads
