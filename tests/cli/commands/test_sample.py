"""`scoreserve sample`: what it asks for, writes and says, and its exit codes."""

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scoreserve import Client
from tests.cli.conftest import JOB, Service, as_json, problem, view

Command = Callable[..., Any]


@pytest.fixture
def run(command: Command, tmp_path: Path) -> Command:
    """The command, writing to grid.png unless told otherwise."""
    return lambda *arguments, out=tmp_path / "grid.png", **env: command("sample", "--out", str(out), *arguments, **env)


def test_the_grid_is_written_and_its_seed_told(run: Command, service: Service, tmp_path: Path) -> None:
    service.has("finished")
    out = tmp_path / "a [bold] name.png"
    result = run(out=out)
    assert result.exit_code == 0, result.output
    assert out.read_bytes() == b"a picture"
    assert "a [bold] name.png: 1 image of tiny, version 1, seed 5" in result.stderr
    assert "finished" in result.stderr
    assert result.stdout == ""


def test_what_is_asked_for(run: Command, service: Service) -> None:
    service.has("finished")
    sampler = '{"name": "heun", "levels": 10}'
    options = (
        "--count",
        "3",
        "--model",
        "tiny",
        "--seed",
        "4",
        "--priority",
        "low",
        "--deadline",
        "60",
        "--frames",
        "5",
    )
    assert run(*options, "--sampler", sampler, "--api-key", "ssk_a_b").exit_code == 0
    asked = {"count": 3, "model": "tiny", "seed": 4, "priority": "low", "deadline_seconds": 60, "frames": 5}
    assert service.bodies() == [asked | {"sampler": {"name": "heun", "levels": 10}}]
    assert {headers["authorization"] for headers in service.headers} == {"Bearer ssk_a_b"}
    assert run("--sampler", "euler").exit_code == 0
    assert service.bodies()[1] == {"count": 16, "sampler": {"name": "euler"}}


def test_classes_and_guidance_are_asked_for(run: Command, service: Service) -> None:
    service.has("finished")
    assert run("--label", "7", "--guidance", "1.5", "--guidance-interval", "0.1", "2").exit_code == 0
    assert run("--labels", "0, shoe,2").exit_code == 0
    assert service.bodies() == [
        {"count": 16, "label": "7", "guidance": 1.5, "guidance_interval": [0.1, 2.0]},
        {"count": 16, "labels": ["0", "shoe", "2"]},
    ]


@pytest.mark.parametrize(
    ("name", "options", "asked"),
    [
        ("grid.png", ("--columns", "8", "--scale", "3"), "grid.png?scale=3&columns=8"),
        ("all.npz", (), "samples.npz"),
        ("all.ZIP", (), "images.zip"),
        ("a.webp", ("--frames", "9"), "animation.webp?scale=2"),
        ("a.gif", ("--frames", "9", "--columns", "4"), "animation.gif?scale=2&columns=4"),
        ("strip.png", ("--frames", "9", "--filmstrip"), "filmstrip.png?scale=2"),
    ],
)
def test_the_name_of_the_file_says_what_it_is(
    run: Command, service: Service, tmp_path: Path, name: str, options: tuple[str, ...], asked: str
) -> None:
    service.has("finished")
    service.answers[f"GET /jobs/{JOB}/{asked.partition('?')[0]}"] = (200, {}, b"content")
    assert run(*options, out=tmp_path / name).exit_code == 0
    assert service.asked[-1] == (f"GET /jobs/{JOB}/{asked}", None)
    assert (tmp_path / name).read_bytes() == b"content"


@pytest.mark.parametrize(("name", "options"), [("a.webp", ()), ("a.png", ("--filmstrip",)), ("a.gif", ())])
def test_an_animation_needs_frames(
    run: Command, service: Service, failed: Command, tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    failed(run(*options, out=tmp_path / name), "give --frames", code=2)
    assert service.asked == []


def test_json_is_all_there_is_on_standard_output(run: Command, service: Service) -> None:
    service.has("finished", something_new=[1])
    result = run("--json")
    assert json.loads(result.stdout) == view("finished", something_new=[1])


def test_who_does_not_wait_is_told_the_id(run: Command, service: Service, tmp_path: Path) -> None:
    service.has("finished")
    assert run("--no-wait").stdout == f"{JOB}\n"
    assert json.loads(run("--no-wait", "--json").stdout)["state"] == "queued"
    assert [request for request, _ in service.asked] == ["POST /samples"] * 2
    assert list(tmp_path.iterdir()) == []


def test_the_id_is_told_before_the_wait_and_the_wait_lasts_as_told(
    run: Command, service: Service, failed: Command, tmp_path: Path
) -> None:
    service.answers["POST /samples"] = as_json(view("queued"), 202)
    service.answers[f"GET /jobs/{JOB}/events"] = (503, {}, b"no API behind this proxy")
    done = run("--patience", "0")
    failed(done, "503", code=4)
    assert done.stderr.splitlines()[0] == f"job {JOB}"


def test_a_service_without_events_is_asked_again(run: Command, service: Service) -> None:
    service.has("finished")
    del service.answers[f"GET /jobs/{JOB}/events"]
    assert run().exit_code == 0
    assert (f"GET /jobs/{JOB}", None) in service.asked


def test_no_service(run: Command, failed: Command) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = f"http://127.0.0.1:{probe.getsockname()[1]}"
        failed(run("--server", server), f"no service at {server}", "scoreserve up", code=4)


@pytest.mark.parametrize("server", ["127.0.0.1:8000", "ftp://here", "http://here:port"])
def test_an_address_that_is_none(run: Command, failed: Command, server: str) -> None:
    failed(run("--server", server), server, code=4)


def test_a_problem_is_told_in_sentences(run: Command, service: Service, failed: Command) -> None:
    error = {"pointer": "/model", "reason": "there is no model 'gone'", "allowed": "one of: tiny"}
    service.answers["POST /samples"] = problem(422, "invalid", "/model: there is no model 'gone'", [error])
    failed(run("--model", "gone"), "there is no model 'gone'", "allowed: one of: tiny", code=3)


@pytest.mark.parametrize(
    ("pointer", "named"),
    [
        ("/model", "--model"),
        ("/guidance_interval/1", "--guidance-interval 1"),
        ("/sampler/levels", "--sampler levels"),
        ("/deadline_seconds", "--deadline"),
        ("/image", "image"),
        ("scale", "--scale"),
    ],
)
def test_a_setting_is_named_as_it_was_given(
    run: Command, service: Service, failed: Command, pointer: str, named: str
) -> None:
    error = {"pointer": pointer, "reason": "it cannot be", "allowed": None}
    service.answers["POST /samples"] = problem(422, "invalid", f"{pointer}: it cannot be", [error])
    failed(run(), f"error: {named}: it cannot be", code=3)


@pytest.mark.parametrize(
    ("status", "code"), [(400, 3), (401, 3), (404, 3), (413, 3), (429, 4), (500, 1), (503, 4)], ids=str
)
def test_the_exit_code_says_what_kind_of_problem(
    run: Command, service: Service, failed: Command, status: int, code: int
) -> None:
    service.answers["POST /samples"] = problem(status, "some", "said so", Retry_After="3600")
    later = "try again in 3600 s" if code == 4 else "SCORESERVE_API_KEY" if status == 401 else "said so"
    failed(run(), "said so", later, code=code)


def test_what_the_service_says_is_not_taken_for_markup(run: Command, service: Service, failed: Command) -> None:
    service.answers["POST /samples"] = problem(422, "invalid", "[/sampler] may be [heun] or [bold]none[/bold]")
    failed(run(), "[/sampler] may be [heun] or [bold]none[/bold]", code=3)


@pytest.mark.parametrize(
    ("status", "content"),
    [(500, b"<html>no</html>"), (404, b'{"detail": "Not Found"}'), (200, b"<html>welcome</html>")],
)
def test_something_else_than_the_service_answers(
    run: Command, service: Service, failed: Command, status: int, content: bytes
) -> None:
    service.answers["POST /samples"] = (status, {}, content)
    failed(run(), f"the service answered {status}" if status >= 400 else service.address)


@pytest.mark.parametrize("sampler", ["{name: heun}", '{"name": [a]}'])
def test_a_sampler_that_is_no_json(run: Command, failed: Command, sampler: str) -> None:
    failed(run("--sampler", sampler), "--sampler", "not JSON", code=2)


def test_options_are_checked_before_anything_is_asked(run: Command, service: Service) -> None:
    for options in (("--count", "0"), ("--seed", "-1"), ("--scale", "99"), ("--columns", "0"), ("--frames", "65")):
        result = run(*options)
        assert result.exit_code == 2
        assert options[0] in result.stderr
    assert service.asked == []


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_job_that_came_to_nothing(run: Command, service: Service, failed: Command, state: str) -> None:
    service.has(state, error="image 0 became NaN")
    failed(run(), f"job {JOB} is {state}: image 0 became NaN")
    assert json.loads(run("--json").stdout)["state"] == state


def test_ctrl_c_cancels_the_job(
    run: Command, service: Service, failed: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Iterator[None]:
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "follow", interrupted)
    service.has("finished")
    service.answers[f"DELETE /jobs/{JOB}"] = as_json(view("cancelled"))
    failed(run(), f"job {JOB} is cancelled", code=130)
    assert service.asked[-1][0] == f"DELETE /jobs/{JOB}"
    service.answers[f"DELETE /jobs/{JOB}"] = problem(409, "already-ended", "it has ended")
    failed(run(), "had ended before it could be cancelled", code=130)


def test_ctrl_c_before_the_answer_cancels_what_was_accepted(
    run: Command, service: Service, failed: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, keys = Client.sample, []  # of the class it is the flow

    def once(client: Client, **ask: Any) -> Any:
        keys.append(ask["idempotency_key"])
        if len(keys) == 1:
            raise KeyboardInterrupt
        return client._run(flow(client, **ask))

    service.has("finished")
    service.answers[f"DELETE /jobs/{JOB}"] = as_json(view("cancelled"))
    monkeypatch.setattr(Client, "sample", once)
    failed(run(), "if it accepted the job, it is cancelled", code=130)
    assert [request for request, _ in service.asked] == ["POST /samples", f"DELETE /jobs/{JOB}"]
    assert keys[0] == keys[1] == service.headers[0]["idempotency-key"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_the_job(
    run: Command, service: Service, failed: Command, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def killed(*_: object) -> Iterator[None]:
        yield from ()
        signal.raise_signal(number)

    monkeypatch.setattr(Client, "follow", killed)
    service.has("finished")
    service.answers[f"DELETE /jobs/{JOB}"] = as_json(view("cancelled"))
    failed(run(), f"job {JOB} is cancelled", code=128 + number)
    assert service.asked[-1][0] == f"DELETE /jobs/{JOB}"
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.SIG_IGN)


@pytest.mark.parametrize(
    ("out", "said"),
    [("no/grid.png", "there is no directory"), (".", "it is a directory"), ("locked/grid.png", "you may not write")],
)
def test_a_file_that_cannot_be_written_is_told_before_anything_is_asked(
    run: Command,
    service: Service,
    failed: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    out: str,
    said: str,
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    # The mode of a directory does not keep root out.
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (locked, os.W_OK))
    failed(run(out=tmp_path / out), f"cannot write {tmp_path / out}", said)
    assert service.asked == []


def test_a_file_that_cannot_be_written_any_more(run: Command, service: Service, failed: Command) -> None:
    service.has("finished")
    failed(run(out=Path("/dev/full")), "cannot write /dev/full: No space left on device")
    assert Path("/dev/full").is_char_device()


def test_a_file_that_is_there_keeps_its_links_and_its_mode(run: Command, service: Service, tmp_path: Path) -> None:
    service.has("finished")
    old, hard, soft, dangling = (tmp_path / name for name in ("old.png", "hard.png", "soft.png", "dangling.png"))
    old.write_bytes(b"an older and longer picture")
    old.chmod(0o640)
    hard.hardlink_to(old)
    soft.symlink_to(old)
    dangling.symlink_to(tmp_path / "new.png")
    for out in (old, soft, dangling):
        assert run(out=out).exit_code == 0
        assert out.read_bytes() == b"a picture"
    assert (hard.read_bytes(), old.stat().st_mode & 0o777) == (b"a picture", 0o640)
    assert soft.is_symlink()
    assert dangling.is_symlink()
    assert len(list(tmp_path.iterdir())) == 5


def test_a_picture_on_standard_output(run: Command, service: Service, failed: Command) -> None:
    service.has("finished")
    done = run(out=Path("-"))
    assert (done.exit_code, done.stdout_bytes) == (0, b"a picture")
    for option in ("--json", "--show"):
        failed(run(option, out=Path("-")), "--out -", code=2)


@pytest.mark.parametrize("name", ["x.jpg", "x.JPEG", "x.tiff", "x.npy", "x.mp4", "x.png.gz"])
def test_a_name_of_another_kind_of_file_is_refused(
    run: Command, service: Service, failed: Command, tmp_path: Path, name: str
) -> None:
    failed(run(out=tmp_path / name), "names a kind of file that is not made", ".png, .npz", code=2)
    assert (service.asked, list(tmp_path.iterdir())) == ([], [])


def test_where_no_picture_can_be_shown_it_is_told_at_once(run: Command, service: Service, failed: Command) -> None:
    failed(run("--show"), "--show: this terminal shows no pictures", code=2)
    assert service.asked == []


def test_the_grid_is_shown(run: Command, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.terminal.protocol", lambda: "iterm2")
    service.has("finished")
    picture = "\x1b]1337;File=inline=1;size=9;preserveAspectRatio=1:YSBwaWN0dXJl\x07"
    assert picture in run().stdout
    assert picture in run("--show", "--json").stdout
    for options in (("--no-show",), ("--json",)):
        assert "\x1b" not in run(*options).stdout
