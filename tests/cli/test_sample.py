"""`scoreserve sample`: what it says when something is wrong."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app

Run = Callable[..., Result]
Answers = list[tuple[int, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command; all it says is in `stderr`."""

    def invoke(*arguments: str, out: Path = tmp_path / "grid.png") -> Result:
        return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["sample", "--out", str(out), *arguments])

    return invoke


@pytest.fixture
def answers() -> Answers:
    """What the service answers, one after another; the last one again and again."""
    return []


@pytest.fixture
def service(answers: Answers) -> Iterator[str]:
    """The address of a service that gives the `answers`: a status, and bytes or something for JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status, body = answers.pop(0) if len(answers) > 1 else answers[0]
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def job(state: str, **fields: Any) -> dict[str, Any]:
    links = {"self": "/jobs/1", "grid": "/jobs/1/grid.png"}
    progress = {"image_steps_done": 0, "image_steps": 13}
    seen = {"id": "1", "state": state, "error": None, "links": links, "progress": progress}
    return {**seen, "count": 1, "model": "tiny", "seed": 5, **fields}


def check_failed(result: Result, *said: str, code: int = 1) -> None:
    """One clear sentence and no traceback."""
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), "an exception came through"
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.strip()]
    assert line.startswith("error: ")
    assert [words for words in said if words not in line] == [], line


def test_no_service(run: Run) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = f"http://127.0.0.1:{probe.getsockname()[1]}"
    check_failed(run("--server", server), f"no service at {server}", "scoreserve up")


@pytest.mark.parametrize("server", ["127.0.0.1:8000", "ftp://here", "http://here:port"])
def test_an_address_that_is_none(run: Run, server: str) -> None:
    check_failed(run("--server", server), server)


def test_a_problem_is_told_in_sentences(run: Run, service: str, answers: Answers) -> None:
    error = {"pointer": "/model", "reason": "there is no model 'gone'", "allowed": "one of: tiny"}
    answers.append((422, {"detail": "/model: there is no model 'gone'", "errors": [error]}))
    check_failed(run("--server", service, "--model", "gone"), "there is no model 'gone'", "allowed: one of: tiny")


def test_what_the_service_says_is_not_taken_for_markup(run: Run, service: str, answers: Answers) -> None:
    answers.append((422, {"detail": "[/sampler] may be [heun] or [bold]none[/bold]", "errors": []}))
    check_failed(run("--server", service), "[/sampler] may be [heun] or [bold]none[/bold]")


@pytest.mark.parametrize(
    "answer", [(500, b"<html>no</html>"), (502, b""), (404, {"detail": "Not Found"}), (200, b"<html>welcome</html>")]
)
def test_something_else_than_the_service_answers(run: Run, service: str, answers: Answers, answer: Any) -> None:
    answers.append(answer)
    check_failed(run("--server", service), "the service answered" if answer[0] >= 400 else service)


@pytest.mark.parametrize(("sampler", "said"), [("{name: heun}", "not JSON"), ('{"name": [a]}', "not JSON")])
def test_a_sampler_that_is_no_json(run: Run, sampler: str, said: str) -> None:
    check_failed(run("--sampler", sampler), "--sampler", said, code=2)


def test_options_are_checked_before_anything_is_asked(run: Run) -> None:
    for options in (("--count", "0"), ("--seed", "-1"), ("--scale", "99"), ("--columns", "0")):
        result = run(*options, "--server", "http://127.0.0.1:1")
        assert result.exit_code == 2
        assert options[0] in result.stderr


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_job_that_came_to_nothing(run: Run, service: str, answers: Answers, state: str) -> None:
    answers += [(202, job("queued")), (200, job("running")), (200, job(state, error="image 0 became NaN"))]
    result = run("--server", service)
    assert result.exit_code == 1
    assert f"error: job 1 is {state}: image 0 became NaN" in result.stderr


def test_the_grid_is_written_and_its_seed_told(run: Run, service: str, answers: Answers, tmp_path: Path) -> None:
    answers += [(202, job("queued")), (200, job("finished")), (200, b"a picture")]
    out = tmp_path / "a [bold] name.png"
    result = run("--server", service, out=out)
    assert result.exit_code == 0, result.output
    assert out.read_bytes() == b"a picture"
    assert "a [bold] name.png: 1 images of tiny, seed 5" in result.stderr


@pytest.mark.parametrize(
    ("out", "said"),
    [("no/grid.png", "there is no directory"), (".", "it is a directory"), ("locked/grid.png", "you may not write")],
)
def test_a_file_that_cannot_be_written_is_told_before_anything_is_asked(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, said: str
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    # The mode of a directory does not keep root out.
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (locked, os.W_OK))
    check_failed(run("--server", "http://127.0.0.1:1", out=tmp_path / out), f"cannot write {tmp_path / out}", said)


def test_a_file_that_cannot_be_written_any_more(run: Run, service: str, answers: Answers) -> None:
    answers += [(202, job("finished")), (200, b"a picture")]
    result = run("--server", service, out=Path("/dev/full"))
    assert result.exit_code == 1
    assert "error: cannot write /dev/full: No space left on device" in result.stderr
