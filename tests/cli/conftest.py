"""A service that is played by a server, and the commands that talk to it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app

JOB = "5f0c9d7b1e2a4c6d8e9f0a1b"
Answer = tuple[int, dict[str, str], bytes]


def view(state: str, **fields: Any) -> dict[str, Any]:
    """A JobView."""
    progress = {"image_steps_done": 0 if state == "queued" else 13, "image_steps": 13}
    job = {"id": JOB, "state": state, "kind": "sample", "model": "tiny", "version": 1, "progress": progress}
    return {**job, "count": 1, "seed": 5, "frames": 0, "error": None, "created_at": "2026-01-02T03:04:05Z", **fields}


def as_json(body: Any, status: int = 200, **headers: str) -> Answer:
    return status, {"Content-Type": "application/json", **headers}, json.dumps(body).encode()


def problem(status: int, code: str, detail: str, errors: Any = (), **headers: str) -> Answer:
    """An answer that is a problem."""
    body = {"status": status, "code": code, "detail": detail, "errors": list(errors), "request_id": "r1"}
    return as_json(body, status, **headers)


def events(*messages: tuple[str, Any]) -> Answer:
    text = "".join(f"id: {n}-0\nevent: {kind}\ndata: {json.dumps(data)}\n\n" for n, (kind, data) in enumerate(messages))
    return 200, {"Content-Type": "text/event-stream"}, text.encode()


@dataclass
class Service:
    """What it was asked, and what it answers: by method and path, else 404."""

    address: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def has(self, state: str, **fields: Any) -> None:
        """A job that is accepted and then ends so; its grid is `a picture`."""
        ended = view(state, **fields)
        kind = "done" if state == "finished" else state
        running = {"state": "running", "image_steps_done": 3, "image_steps": 13, "sigma": 1.0}
        self.answers |= {
            "POST /samples": as_json(view("queued"), 202),
            **{f"POST /{kind}": as_json(view("queued", kind=kind), 202) for kind in ("inpaint", "upscale", "colorize")},
            f"GET /jobs/{JOB}": as_json(ended),
            f"GET /jobs/{JOB}/events": events(("progress", running | {"eta_seconds": 61.0}), (kind, ended)),
            f"GET /jobs/{JOB}/grid.png": (200, {"Content-Type": "image/png"}, b"a picture"),
        }

    def bodies(self) -> list[Any]:
        return [body for _, body in self.asked if body is not None]


@pytest.fixture
def service() -> Iterator[Service]:
    """A service that knows nothing yet."""
    played = Service()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            played.asked.append((f"{self.command} {self.path}", json.loads(body) if body else None))
            played.headers.append({name.lower(): value for name, value in self.headers.items()})
            unknown = problem(404, "not-found", "there is no such thing")
            status, headers, data = played.answers.get(f"{self.command} {self.path.partition('?')[0]}", unknown)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        played.address = f"http://127.0.0.1:{server.server_port}"
        yield played
        server.shutdown()
        thread.join()


@pytest.fixture
def command(service: Service) -> Callable[..., Result]:
    """Runs a command against the service; all it says is in `stdout` and `stderr`."""

    def invoke(*arguments: str, **environment: str) -> Result:
        variables = {"COLUMNS": "200", "SCORESERVE_SERVER": service.address, **environment}
        return CliRunner(env=variables).invoke(app, list(arguments), prog_name="scoreserve")

    return invoke


@pytest.fixture
def failed() -> Callable[..., None]:
    """Checks that a command ended with one clear line on standard error and no traceback."""

    def check(result: Result, *said: str, code: int = 1) -> None:
        assert result.exit_code == code, result.output
        assert isinstance(result.exception, SystemExit), "an exception came through"
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert [words for words in said if words not in line] == [], line
        assert "Traceback" not in result.output

    return check
