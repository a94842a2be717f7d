"""`scoreserve jobs`, `cancel` and `inpaint`: what they ask and print; and completion in the shell."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import JOB, Service, as_json, problem, view

Command = Callable[..., Any]
HEUN = {"name": "heun", "title": "Heun", "description": "Second order.", "parameters": [{"name": "levels"}]}
CARD = {"name": "tiny", "version": 3, "description": "noise", "image": {"channels": 1, "height": 8, "width": 9}}


def test_jobs_are_listed_a_line_each(command: Command, service: Service) -> None:
    pages = [view("running", eta_seconds=3661, id="a" * 24), view("queued", count=300, id="b" * 24)]
    service.answers["GET /jobs"] = as_json({"jobs": pages, "next": None})
    result = command("jobs", "--state", "running", "--state", "queued", "--model", "tiny", "--limit", "7")
    assert result.exit_code == 0, result.output
    header, first, second = result.stdout.splitlines()
    assert header.split() == ["job", "state", "kind", "images", "model", "version", "seed", "done", "left", "created"]
    assert first.split()[:8] == ["a" * 24, "running", "sample", "1", "tiny", "1", "5", "100%"]
    assert "1:01:01" in first
    assert second.split()[3] == "300"
    assert service.asked[0][0] == "GET /jobs?limit=7&state=running&state=queued&model=tiny"


def test_no_more_jobs_than_asked_for(command: Command, service: Service) -> None:
    service.answers["GET /samplers"] = as_json([HEUN])
    service.answers["GET /jobs"] = as_json({"jobs": [view("queued"), view("queued")], "next": "more"})
    assert len(json.loads(command("jobs", "--json", "--limit", "3").stdout)) == 3
    assert [request for request, _ in service.asked] == ["GET /jobs?limit=3", "GET /jobs?limit=3&cursor=more"]


def test_more_jobs_may_be_asked_for_than_can_be_counted(command: Command, service: Service) -> None:
    service.answers["GET /jobs"] = as_json({"jobs": [view("queued")], "next": None})
    result = command("jobs", "--json", "--limit", "9" * 20)
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)) == 1


def test_one_job(command: Command, service: Service) -> None:
    service.has("failed", error="image 0 became NaN")
    assert "image 0 became NaN" in command("jobs", JOB).stdout
    assert json.loads(command("jobs", JOB, "--json").stdout) == view("failed", error="image 0 became NaN")


def test_what_is_no_id_of_a_job(command: Command, service: Service, failed: Command) -> None:
    error = {"pointer": "job_id", "reason": "job_id is 'nope'", "allowed": "24 hexadecimal digits"}
    service.answers["GET /jobs/nope"] = problem(
        422, "invalid", "job_id is 'nope'; allowed: 24 hexadecimal digits", [error]
    )
    said = "error: job is 'nope'; allowed: 24 hexadecimal digits; `scoreserve jobs` lists yours"
    failed(command("jobs", "nope"), said, code=3)


def test_the_images_of_a_job_that_was_not_waited_for(command: Command, service: Service, tmp_path: Path) -> None:
    service.has("finished", frames=4)
    service.answers[f"GET /jobs/{JOB}/animation.gif"] = (200, {}, b"content")
    assert command("jobs", JOB, "--out", str(tmp_path / "a.gif")).exit_code == 0
    assert (tmp_path / "a.gif").read_bytes() == b"content"


@pytest.mark.parametrize("options", [("--out", "a.png"), (JOB, "--state", "failed"), (JOB, "--model", "tiny")])
def test_options_that_do_not_go_together(
    command: Command, service: Service, failed: Command, options: tuple[str, ...]
) -> None:
    failed(command("jobs", *options), "", code=2)
    assert service.asked == []


def test_cancel(command: Command, service: Service, failed: Command) -> None:
    service.answers["DELETE /jobs/a"] = as_json(view("cancelled", id="a"))
    service.answers["DELETE /jobs/b"] = problem(409, "already-ended", "job b has ended")
    assert "cancelled" in command("cancel", "a").stdout
    assert [job["id"] for job in json.loads(command("cancel", "a", "--json").stdout)] == ["a"]
    failed(command("cancel", "b"), "job b has ended", code=3)


def test_inpaint(command: Command, service: Service, failed: Command, tmp_path: Path) -> None:
    service.has("finished")
    image, mask, out = (tmp_path / name for name in ("image.png", "mask.png", "out.png"))
    image.write_bytes(b"an image")
    failed(command("inpaint", str(image), str(mask), "--out", str(out)), f"cannot read {mask}", code=2)
    mask.write_bytes(b"a mask")
    options = ("--out", str(out), "--count", "4", "--fit", "crop")
    assert command("inpaint", str(image), str(mask), *options).exit_code == 0
    assert command("inpaint", str(image), *options).exit_code == 0
    asked = {"count": 4, "fit": "crop", "image": base64.b64encode(b"an image").decode()}
    assert service.bodies() == [asked | {"mask": base64.b64encode(b"a mask").decode()}, asked]
    assert out.read_bytes() == b"a picture"


def test_upscale_and_colorize(command: Command, service: Service, failed: Command, tmp_path: Path) -> None:
    service.has("finished")
    image, out = tmp_path / "image.png", tmp_path / "out.png"
    for name in ("upscale", "colorize"):
        failed(command(name, str(image), "--out", str(out)), f"cannot read {image}", code=2)
    image.write_bytes(b"an image")
    assert command("upscale", str(image), "--out", str(out), "--count", "4").exit_code == 0
    assert command("colorize", str(image), "--out", str(out), "--fit", "crop", "--seed", "3").exit_code == 0
    picture = {"image": base64.b64encode(b"an image").decode()}
    assert service.bodies() == [{"count": 4, **picture}, {"count": 16, "seed": 3, "fit": "crop", **picture}]
    assert [asked for asked, body in service.asked if body is not None] == ["POST /upscale", "POST /colorize"]
    assert out.read_bytes() == b"a picture"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("sample --sampler he", {"heun"}),
        ("samplers h", {"heun"}),
        ("sample --model ti", {"tiny"}),
        ("models t", {"tiny"}),
        ("cancel ", {JOB}),
        ("sample --priority l", {"low"}),
        ("jobs --sta", {"--state"}),
    ],
)
def test_completion_in_the_shell(command: Command, service: Service, words: str, expected: set[str]) -> None:
    service.answers["GET /models"] = as_json([CARD])
    service.answers["GET /samplers"] = as_json([HEUN])
    service.answers["GET /jobs"] = as_json({"jobs": [view("queued")], "next": None})
    typed = f"scoreserve {words}"
    asked = {"_SCORESERVE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1)}
    assert set(command(**asked).stdout.split()) == expected


@pytest.mark.parametrize("option", ["--model", "--sampler"])
def test_completion_without_a_service_is_quiet(command: Command, option: str) -> None:
    asked = {"_SCORESERVE_COMPLETE": "complete_bash", "COMP_WORDS": f"scoreserve sample {option} m", "COMP_CWORD": "3"}
    done = command(**asked, SCORESERVE_SERVER="http://127.0.0.1:1")
    assert (done.exit_code, done.stdout.strip(), done.stderr) == (0, "", "")
