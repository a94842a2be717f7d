"""An application against a real Valkey, driven without a network, and a worker that runs inside the test."""

import asyncio
import base64
import io
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service import connections
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.server import Server
from worker.batching import BatchingWorker
from worker.device.batch import Batch
from worker.queue.jobs import JobQueue
from worker.queue.server import connect
from worker.settings import WorkerSettings

PROBLEM = "application/problem+json"
Work = Callable[[], None]


class Client:
    """Requests to an application that runs on an event loop in a thread of its own.

    `begin` does not wait for the answer, so that the test can do something meanwhile.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.app = create_app(settings)
        self.settings = settings
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self._life = self.app.router.lifespan_context(self.app)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30)
        self.call(self._life.__aenter__())

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def begin(self, method: str, url: str, **options: Any) -> "Future[httpx.Response]":
        return asyncio.run_coroutine_threadsafe(self._http.request(method, url, **options), self.loop)

    def get(self, url: str, **options: Any) -> httpx.Response:
        return self.begin("GET", url, **options).result(60)

    def post(self, url: str, **options: Any) -> httpx.Response:
        return self.begin("POST", url, **options).result(60)

    def delete(self, url: str, **options: Any) -> httpx.Response:
        return self.begin("DELETE", url, **options).result(60)

    def submit(self, **body: Any) -> dict[str, Any]:
        """A job of POST /samples, accepted."""
        response = self.post("/samples", json=body)
        assert response.status_code == 202, response.text
        job: dict[str, Any] = response.json()
        return job

    def images(self, job: dict[str, Any]) -> np.ndarray:
        """All images of a finished job, from its npz."""
        response = self.get(job["links"]["samples"])
        assert response.status_code == 200, response.text
        with np.load(io.BytesIO(response.content)) as archive:
            images: np.ndarray = archive["images"]
        return images

    def close(self) -> None:
        self.call(self._http.aclose())
        self.call(self._life.__aexit__(None, None, None))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def settings(service_url: str, models_dir: Path) -> ServiceSettings:
    return _settings(service_url, models_dir).model_copy()


@cache  # the environment is read once: it takes as long as a request
def _settings(service_url: str, models_dir: Path) -> ServiceSettings:
    return ServiceSettings(
        redis_url=service_url,
        models_dir=models_dir,
        default_model="tiny",
        shard_size=4,
        allowed_hosts="test,example.com",
        redis_timeout_seconds=20,  # so long, since the machine may be busy
    )


@pytest.fixture
def new_client() -> Iterator[Callable[[ServiceSettings], Client]]:
    clients: list[Client] = []

    def make(settings: ServiceSettings) -> Client:
        clients.append(Client(settings))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(new_client: Callable[[ServiceSettings], Client], settings: ServiceSettings) -> Client:
    return new_client(settings)


@pytest.fixture(scope="session")
def batch(models_dir: Path) -> Batch:
    """What every worker here works with, so that the model is loaded once."""
    return Batch(WorkerSettings(models_dir=models_dir).store(), 16, "cpu")


@pytest.fixture
def new_worker(
    worker_url: str, models_dir: Path, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], BatchingWorker]]:
    """Makes workers, of one row a step however fast the machine is, since tests count steps; the signal handlers that
    they install are taken out again."""
    monkeypatch.setattr("worker.device.lane.STEP_SECONDS", {})
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    connection = connect(worker_url, timeout=10, attempts=0)
    options = WorkerSettings(redis_url=worker_url, models_dir=models_dir, lease_seconds=2)
    yield lambda: BatchingWorker(connection, batch, options)
    connection.close()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def work(new_worker: Callable[[], BatchingWorker]) -> Work:
    """Fulfils everything that waits."""

    def run() -> None:
        new_worker().work(burst=True, logging_level="WARNING")

    return run


@pytest.fixture
def work_on(work: Work, settings: ServiceSettings, until: Callable[..., None]) -> Callable[..., httpx.Response]:
    """Fulfils a request that waits for its job, and returns the answer."""

    def run(pending: "Future[httpx.Response]") -> httpx.Response:
        connection = connect(settings.redis_url, timeout=10, attempts=0)
        queue = JobQueue(connection, settings)
        with suppress(AssertionError):  # what came back without a job is looked at by the test
            until(lambda: pending.done() or queue.depth().jobs > 0)
        work()
        connection.close()
        return pending.result(60)

    return run


def check_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """A problem, complete; returns its body."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["type"] == f"/problems/{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem


@pytest.fixture
def problem() -> Callable[[httpx.Response, int, str], dict[str, Any]]:
    return check_problem


@pytest.fixture
def refusal() -> Callable[..., str]:
    """Checks that one field is refused; returns what is said about it: the reason, and what is allowed."""

    def check(response: httpx.Response, pointer: str) -> str:
        body = check_problem(response, 422, "invalid")
        (error,) = body["errors"]
        assert error["pointer"] == pointer
        assert error["reason"]
        assert error["reason"] in body["detail"]
        return f"{error['reason']} | {error['allowed']}"

    return check


def save(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def picture() -> np.ndarray:
    """Pixels of a picture for `tiny`."""
    return np.random.default_rng(3).integers(0, 256, (8, 8), dtype=np.uint8)


@pytest.fixture
def half_mask() -> np.ndarray:
    """A mask that repaints the right half."""
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 4:] = 255
    return mask


@pytest.fixture
def png() -> Callable[[np.ndarray], bytes]:
    return lambda pixels: save(Image.fromarray(pixels))


@pytest.fixture
def asked(client: Client) -> Callable[..., httpx.Response]:
    """A request with files, as a form or as JSON."""

    def post(form: str, path: str, files: Mapping[str, bytes | None], **fields: Any) -> httpx.Response:
        given = {name: data for name, data in files.items() if data is not None}
        if form == "multipart":
            return client.post(path, files={n: (n, d) for n, d in given.items()}, data=fields)
        encoded = {name: base64.b64encode(data).decode() for name, data in given.items()}
        return client.post(path, json={**encoded, **fields})

    return post


@pytest.fixture
def inpaint(asked: Callable[..., httpx.Response]) -> Callable[..., httpx.Response]:
    """POST /inpaint, as a form or as JSON."""

    def post(form: str, image: bytes | None, mask: bytes | None, **fields: Any) -> httpx.Response:
        return asked(form, "/inpaint", {"image": image, "mask": mask}, **fields)

    return post


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Starts a server; those of a test end with it."""
    monkeypatch.setattr(connections, "LOOK_SECONDS", 0.05)
    servers: list[Server] = []

    def make(**settings: Any) -> Server:
        servers.append(Server(ServiceSettings(**settings)))
        return servers[-1]

    yield make
    for server in servers:
        server.close()
