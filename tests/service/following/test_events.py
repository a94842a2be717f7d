"""GET /jobs/{id}/events, over a real connection: what is told, resuming, previews, and many streams at once."""

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image
from redis import Redis

from service.app import create_app
from service.following.events import AT_ONCE, Stream
from service.settings import ServiceSettings
from worker.batching import BatchingWorker
from worker.queue import keys, shards
from worker.queue.jobs import JobQueue

LONG = {"name": "follow_scores", "steps": 500}
Check = Callable[..., Any]


@dataclass
class Event:
    id: str
    kind: str
    data: dict[str, Any]


class Server:
    """The application on a port of its own, with an event loop in a thread."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.app = create_app(settings)
        self.server = uvicorn.Server(uvicorn.Config(self.app, port=0, log_config=None, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def submit(self, **body: Any) -> str:
        job: dict[str, Any] = httpx.post(f"{self.url}/samples", json=body).raise_for_status().json()
        return str(job["id"])

    def close(self) -> None:
        self.app.state.context.events.stop()
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture
def new_server() -> Iterator[Callable[[ServiceSettings], Server]]:
    servers: list[Server] = []

    def make(settings: ServiceSettings) -> Server:
        servers.append(Server(settings))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def server(new_server: Callable[[ServiceSettings], Server], settings: ServiceSettings) -> Server:
    return new_server(settings)


def parse(text: str) -> Event:
    fields = dict(line.split(": ", 1) for line in text.splitlines() if not line.startswith(":"))
    return Event(fields["id"], fields["event"], json.loads(fields["data"]))


async def read(response: httpx.Response) -> AsyncIterator[Event]:
    buffer = ""
    async for chunk in response.aiter_text():
        buffer += chunk
        while "\n\n" in buffer:
            block, buffer = buffer.split("\n\n", 1)
            if "event:" in block:
                yield parse(block)


class Follower(threading.Thread):
    """A client that reads a stream to its end, or until it has read `most` events."""

    def __init__(self, server: Server, job: str, after: str | None = None, most: int = 10**6, query: str = "") -> None:
        super().__init__()
        self.url, self.most, self.after = f"{server.url}/jobs/{job}/events{query}", most, after
        self.events: list[Event] = []
        self.start()

    def run(self) -> None:
        asyncio.run(self._read())

    async def _read(self) -> None:
        headers = {} if self.after is None else {"Last-Event-ID": self.after}
        async with httpx.AsyncClient(timeout=60) as client, client.stream("GET", self.url, headers=headers) as response:
            async for event in read(response):
                self.events.append(event)
                if len(self.events) >= self.most:
                    return

    def all(self) -> list[Event]:
        self.join(60)
        assert not self.is_alive()
        return self.events


def test_a_job_is_followed_from_the_queue_to_its_end(server: Server, new_worker, until: Callable[..., None]) -> None:
    job = server.submit(count=6)
    follower = Follower(server, job)
    until(lambda: len(follower.events) == 1)
    worker = new_worker()
    worker._claim()
    for _ in range(3):
        worker._step()
    worker._beat()
    until(lambda: len(follower.events) >= 2)
    while worker._claims:
        worker._step()
    first, *running, last = follower.all()
    assert first.kind == "progress"
    assert first.data | {"eta_seconds": None} == {
        "state": "queued",
        "image_steps_done": 0,
        "image_steps": 6 * 13,
        "sigma": None,
        "queue_position": 0,
        "eta_seconds": None,
    }
    assert {event.kind for event in running} == {"progress"}
    told = running[-1].data
    assert told["state"] == "running"
    assert 0 < told["image_steps_done"] <= 6 * 13
    assert 0.01 <= told["sigma"] <= 10
    assert told["queue_position"] is None
    assert last.kind == "done"
    assert last.data == httpx.get(f"{server.url}/jobs/{job}").json()
    ids = [tuple(map(int, event.id.split("-"))) for event in (first, *running, last)]
    assert ids == sorted(ids)


@pytest.mark.parametrize(("how", "kind"), [("cancel", "cancelled"), ("deadline", "failed")])
def test_a_stream_tells_how_the_job_ended(server: Server, until: Callable[..., None], how: str, kind: str) -> None:
    job = server.submit(count=1, **({"deadline_seconds": 1.5} if how == "deadline" else {}))
    follower = Follower(server, job)
    until(lambda: len(follower.events) >= 1)
    if how == "cancel":
        httpx.post(f"{server.url}/jobs/{job}/cancel")
    last = follower.all()[-1]
    assert last.kind == last.data["state"] == kind
    assert last.data["error"]


def test_who_comes_late_is_told_the_end_and_who_has_had_it_nothing(server: Server, work, problem: Check) -> None:
    job = server.submit(count=1)
    work()
    (end,) = Follower(server, job).all()
    assert end.kind == "done"
    url = f"{server.url}/jobs/{job}/events"
    response = httpx.get(url)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert response.text.startswith("retry: 2000\n\n")
    assert httpx.get(url, headers={"Last-Event-ID": end.id}).status_code == 204
    problem(httpx.get(f"{server.url}/jobs/{24 * '0'}/events"), 404, "not-found")
    for nonsense in ("soon", "1", "-1-0", "1-0-0", f"{10**14}-0", "9" * 30 + "-0"):
        again = httpx.get(url, headers={"Last-Event-ID": nonsense})
        assert (again.status_code, again.text) == (200, response.text), nonsense


def test_a_client_that_drops_and_comes_back_misses_nothing(
    server: Server, redis: Redis, settings: ServiceSettings, until: Callable[..., None]
) -> None:
    """One client stays; another reads three events at a time. In the end both have had the same."""
    job = server.submit(count=4, sampler=LONG)
    queue = JobQueue(redis, settings)
    whole = Follower(server, job)
    until(lambda: len(whole.events) == 1)
    shard = shards.Shard(job, 0, 0, 4, 60)
    stop = threading.Event()

    def progress() -> None:
        done = 0
        while not stop.wait(0.02):
            done += 1
            with redis.pipeline() as pipeline:
                pipeline.hdel(keys.of(job), "told_progress")  # so that each is told
                shards.report(shard, done, pipeline, sigma=10 / done)
                pipeline.execute()
        queue.cancel(job)

    teller = threading.Thread(target=progress)
    teller.start()
    pieces: list[Event] = []
    for _ in range(8):
        pieces += Follower(server, job, pieces[-1].id if pieces else None, most=3).all()
        time.sleep(0.1)
    stop.set()
    teller.join()
    pieces += Follower(server, job, pieces[-1].id).all()
    assert pieces[-1].kind == "cancelled"
    stayed = [(event.id, event.kind) for event in whole.all()]
    assert len(stayed) > 25
    assert [(event.id, event.kind) for event in pieces] == stayed[stayed.index((pieces[0].id, "progress")) :]


def test_of_previews_only_the_last_waits_for_who_reads_slowly() -> None:
    """They are large; what they come between is small, and all of it is told in order."""

    async def told() -> list[str]:
        stream = Stream(None, "job", True, None, None)  # type: ignore[arg-type]
        for number in range(3):
            stream.put(f"progress {number}")
            stream.put(f"preview {number}", preview=True)
        text = stream.text()
        found = [await anext(text) for _ in range(5)]
        stream.put("preview 3", preview=True)
        stream.put("done", last=True)
        return found[1:] + [chunk async for chunk in text]

    ends = ["progress 2", "preview 2", "preview 3", "done"]
    assert asyncio.run(told()) == ["progress 0", "progress 1", *ends]


def test_previews_are_made_while_somebody_watches(
    server: Server, redis: Redis, new_worker: Callable[[], BatchingWorker], until: Callable[..., None]
) -> None:
    job = server.submit(count=6, sampler={"name": "heun", "levels": 200})
    worker = new_worker()
    worker._claim()
    worker._step()
    for _ in range(3):
        worker._beat()
        worker._step()
    assert not redis.exists(keys.of(job, "previews")), "nobody watches"
    plain, watcher = Follower(server, job), Follower(server, job, query="?previews=true")
    until(lambda: bool(redis.exists(keys.of(job, "watched"))))
    for _ in range(4):
        worker._beat()
        worker._step()
    until(lambda: any(event.kind == "preview" for event in watcher.events))
    assert redis.ttl(keys.of(job, "previews")) > 0
    assert 0 < redis.ttl(keys.of(job, "watched")) <= 6
    while worker._claims:
        worker._step()
    preview = next(event.data for event in watcher.all() if event.kind == "preview")
    assert (preview["count"], preview["columns"]) == (6, 3)
    for picture in ("png", "chains"):
        with Image.open(io.BytesIO(base64.b64decode(preview[picture]))) as image:
            assert image.format == "PNG"
            assert image.size == (3 * 9 + 1, 2 * 9 + 1)
            assert len(np.unique(np.asarray(image))) > 2
    assert preview["png"] != preview["chains"]
    assert preview["image_steps_done"] > 0
    assert preview["sigma"] > 0
    assert {event.kind for event in plain.all()} == {"progress", "done"}
    assert not redis.exists(keys.of(job, "previews"), keys.of(job, "chains"))


def test_nothing_of_events_is_left_of_a_forgotten_job(
    new_server, settings: ServiceSettings, work, redis: Redis, until: Callable[..., None]
) -> None:
    server = new_server(settings.model_copy(update={"result_ttl_seconds": 1}))
    job = server.submit(count=2)
    follower = Follower(server, job, query="?previews=true")
    until(lambda: bool(redis.exists(keys.of(job, "watched"))))
    work()
    assert follower.all()[-1].kind == "done"
    until(lambda: not redis.keys(f"*{job}*"))


def test_many_reports_at_once_are_told_once(server: Server, redis: Redis) -> None:
    job = server.submit(count=400)
    with redis.pipeline() as pipeline:
        for number in range(100):
            shards.report(shards.Shard(job, number, 4 * number, 4, 60), 4, pipeline)
        pipeline.execute()
    assert redis.xlen(keys.of(job, "events")) <= 3, "queued, running, and the last if the machine is slow"


def test_the_stream_in_redis_is_bounded(server: Server, redis: Redis) -> None:
    job = server.submit(count=4, sampler=LONG)
    with redis.pipeline() as pipeline:
        for done in range(3000):
            pipeline.hdel(keys.of(job), "told_progress")
            shards.report(shards.Shard(job, 0, 0, 4, 60), done, pipeline)
        pipeline.execute()
    assert 1000 <= redis.xlen(keys.of(job, "events")) < 1200


def test_what_stands_in_the_queue_is_told_as_it_moves_up(server: Server, until: Callable[..., None]) -> None:
    first, second = server.submit(count=1), server.submit(count=1)
    follower = Follower(server, second)
    until(lambda: len(follower.events) >= 1)
    assert follower.events[0].data["queue_position"] == 1
    httpx.delete(f"{server.url}/jobs/{first}")
    until(lambda: follower.events[-1].data["queue_position"] == 0)
    httpx.delete(f"{server.url}/jobs/{second}")
    follower.all()


def test_a_service_that_stops_ends_its_streams_with_a_hint(server: Server, problem: Check) -> None:
    job = server.submit(count=1)
    with httpx.stream("GET", f"{server.url}/jobs/{job}/events", timeout=30) as response:
        texts = response.iter_text()
        assert next(texts)
        server.app.state.context.events.stop()
        assert "".join(texts).endswith("retry: 2000\n\n")
    problem(httpx.get(f"{server.url}/jobs/{job}/events"), 503, "busy")


def test_a_redis_that_is_away_for_a_while_costs_no_event(
    server: Server, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    from redis.exceptions import ConnectionError as Away  # noqa: PLC0415

    monkeypatch.setattr("service.following.events.AWAY_SECONDS", 0.05)
    job = server.submit(count=1)
    follower = Follower(server, job)
    until(lambda: len(follower.events) >= 1)
    events = server.app.state.context.events
    real, failures = events.connection.xread, 0

    async def xread(*args: Any, **options: Any) -> Any:
        nonlocal failures
        if failures < 3:
            failures += 1
            raise Away("gone")
        return await real(*args, **options)

    monkeypatch.setattr(events.connection, "xread", xread)
    until(lambda: failures == 3)
    httpx.delete(f"{server.url}/jobs/{job}")
    assert follower.all()[-1].kind == "cancelled"


def test_too_many_streams_are_refused_and_room_is_made_by_who_goes(
    new_server, settings: ServiceSettings, problem: Check, until: Callable[..., None]
) -> None:
    server = new_server(settings.model_copy(update={"max_event_streams": 1}))
    job = server.submit(count=1)
    url = f"{server.url}/jobs/{job}/events"
    with httpx.stream("GET", url) as response:
        assert response.status_code == 200
        problem(httpx.get(url), 503, "busy")
        problem(httpx.get(url, headers={"X-Forwarded-For": "10.0.0.1"}), 503, "busy")
    events = server.app.state.context.events
    until(lambda: not events._streams and not events._feeds)
    with httpx.stream("GET", url) as response:
        assert response.status_code == 200


def test_a_client_has_so_many_streams(new_server, settings: ServiceSettings, problem: Check) -> None:
    server = new_server(settings.model_copy(update={"max_client_event_streams": 1}))
    url = f"{server.url}/jobs/{server.submit(count=1)}/events"
    with httpx.stream("GET", url) as response:
        assert response.status_code == 200
        refused = httpx.get(url)
        told = "of yours there are 1 streams of events, and this is 1 more: at most 1 at once are allowed"
        assert problem(refused, 429, "quota-exceeded")["detail"] == told
        assert refused.headers["retry-after"] == "5"
        with httpx.stream("GET", url, headers={"X-Forwarded-For": "10.0.0.1"}) as other:
            assert other.status_code == 200


def test_two_hundred_streams_need_one_reader(
    server: Server, redis: Redis, settings: ServiceSettings, until: Callable[..., None]
) -> None:
    """Two hundred clients follow twenty jobs; each is told how its job ends, and the service needs few connections."""
    queue = JobQueue(redis, settings)
    jobs = [server.submit(count=1) for _ in range(20)]
    ends: dict[int, Event] = {}
    opened = threading.Semaphore(0)

    async def follow(client: httpx.AsyncClient, number: int) -> None:
        async with client.stream("GET", f"{server.url}/jobs/{jobs[number % 20]}/events") as response:
            opened.release()
            async for event in read(response):
                ends[number] = event

    async def follow_all() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            await asyncio.gather(*(follow(client, number) for number in range(200)))

    thread = threading.Thread(target=asyncio.run, args=(follow_all(),))
    thread.start()
    for _ in range(200):
        assert opened.acquire(timeout=60)
    mine = [c for c in redis.client_list() if c["user"] == "service" and c["cmd"].startswith("x")]
    # Webhooks share these connections: while they look at Redis with one, another is made.
    assert 1 <= len(mine) <= AT_ONCE + 2, "the reader, eight that were begun at a time, and one that webhooks had"
    assert sum("b" in c["flags"] for c in mine) <= 1, "blocked; an idle connection still shows the command it had last"
    for job in jobs:
        queue.cancel(job)
    thread.join(60)
    assert not thread.is_alive()
    assert [ends[number].data["id"] for number in range(200)] == jobs * 10
    assert {event.kind for event in ends.values()} == {"cancelled"}
