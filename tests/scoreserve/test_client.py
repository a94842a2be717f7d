"""Both clients against a service that is a function: what is sent, what is sent again, and what is raised."""

import base64
import inspect
import io
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from scoreserve import (
    AsyncClient,
    Client,
    Conflict,
    NotFound,
    Patience,
    ProblemError,
    RateLimited,
    Refused,
    ScoreserveError,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
)

Connect = Callable[..., Any]
JOB = "5f0c9d7b1e2a4c6d8e9f0a1b"


@pytest.fixture
def asked() -> list[httpx.Request]:
    """What the service was asked."""
    return []


@pytest.fixture
def answering(connect: Connect, asked: list[httpx.Request]) -> Callable[..., Any]:
    """A client of a service that gives these answers, one after another; the last one again and again."""

    def make(*answers: httpx.Response | Exception, **options: Any) -> Any:
        left = list(answers)

        def answer(request: httpx.Request) -> httpx.Response:
            asked.append(request)
            outcome = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(outcome, Exception):
                raise outcome
            return httpx.Response(outcome.status_code, headers=outcome.headers, content=outcome.content)

        return connect(answer, **options)

    return make


def body(request: httpx.Request) -> Any:
    return json.loads(request.content)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_what_is_not_asked_is_not_sent(
    answering: Connect, asked: list[httpx.Request], view: Callable[..., Any]
) -> None:
    client = answering(httpx.Response(202, json=view()))
    job = client.sample(count=2, sampler="heun", seed=None)
    assert body(asked[0]) == {"count": 2, "sampler": {"name": "heun"}}
    assert (job.state, job.ended, job.image_steps_done, job.image_steps) == ("queued", False, 3, 14)
    assert job.sampler == {"name": "heun", "levels": 4}


def test_all_that_can_be_asked(answering: Connect, asked: list[httpx.Request], view: Callable[..., Any]) -> None:
    client = answering(httpx.Response(202, json=view()))
    sampler = {"name": "heun", "levels": 10}
    fields = {
        "model": "m",
        "version": 2,
        "count": 3,
        "seed": 4,
        "priority": "high",
        "deadline_seconds": 9.5,
        "frames": 6,
    }
    client.sample(**fields, sampler=sampler, webhook="https://here/hook", idempotency_key="mine")
    assert body(asked[0]) == {**fields, "sampler": sampler, "webhook": {"url": "https://here/hook"}}
    assert asked[0].headers["idempotency-key"] == "mine"


def test_classes_and_guidance(answering: Connect, asked: list[httpx.Request], view: Callable[..., Any]) -> None:
    told = {"labels": [3, 0], "guidance": 1.5, "guidance_interval": [0.1, 2]}
    client = answering(httpx.Response(202, json=view(**told)), httpx.Response(202, json=view()))
    job = client.sample(labels=np.array([3, 0]), guidance=1.5, guidance_interval=(0.1, 2))
    assert body(asked[0]) == told
    assert (job.labels, job.guidance, job.guidance_interval) == ((3, 0), 1.5, (0.1, 2))
    other = client.inpaint(png(np.zeros((8, 8), np.uint8)), label="shoe")
    assert body(asked[1])["label"] == "shoe"
    assert (other.labels, other.guidance, other.guidance_interval) == (None, None, None)


@pytest.mark.parametrize("form", ["image", "array", "path", "bytes"])
def test_a_picture_in_any_form(
    answering: Connect, asked: list[httpx.Request], view: Callable[..., Any], tmp_path: Path, form: str
) -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    (tmp_path / "a.png").write_bytes(png(pixels))
    forms = {
        "image": Image.fromarray(pixels),
        "array": pixels[:, :, None],
        "path": tmp_path / "a.png",
        "bytes": png(pixels),
    }
    client = answering(httpx.Response(202, json=view(kind="inpaint")))
    client.inpaint(forms[form], pixels > 32, count=3, fit="crop")
    sent = body(asked[0])
    assert (sent["count"], sent["fit"]) == (3, "crop")
    for name, expected in (("image", pixels), ("mask", (pixels > 32) * np.uint8(255))):
        with Image.open(io.BytesIO(base64.b64decode(sent[name]))) as picture:
            assert (np.asarray(picture) == expected).all()


def test_a_picture_to_enlarge_or_to_colour(
    answering: Connect, asked: list[httpx.Request], view: Callable[..., Any]
) -> None:
    client = answering(httpx.Response(202, json=view(kind="upscale")))
    assert client.upscale(b"small", count=3).kind == "upscale"
    assert client.colorize(b"grey", fit="crop").kind == "upscale"
    assert [request.url.path for request in asked] == ["/upscale", "/colorize"]
    assert body(asked[0]) == {"count": 3, "image": base64.b64encode(b"small").decode()}
    assert body(asked[1]) == {"fit": "crop", "image": base64.b64encode(b"grey").decode()}
    assert len({request.headers["idempotency-key"] for request in asked}) == 2


def test_without_a_mask_none_is_sent(answering: Connect, asked: list[httpx.Request], view: Callable[..., Any]) -> None:
    answering(httpx.Response(202, json=view())).inpaint(b"a picture")
    assert set(body(asked[0])) == {"image"}


@pytest.mark.parametrize("array", [np.zeros((8, 8)), np.zeros((8, 8, 5), np.uint8), np.zeros(8, np.uint8)])
def test_an_array_that_is_no_picture(answering: Connect, array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="is no picture: uint8 or bool"):
        answering(httpx.Response(500)).inpaint(array)


def test_who_asks(answering: Connect, asked: list[httpx.Request], view: Callable[..., Any]) -> None:
    client = answering(
        httpx.Response(200, json=view()), server="http://service/under/", api_key="ssk_a_b", client_id="me"
    )
    client.job(JOB)
    assert asked[0].headers["authorization"] == "Bearer ssk_a_b"
    assert asked[0].headers["client-id"] == "me"
    assert asked[0].url == f"http://service/under/jobs/{JOB}"


def test_the_environment_has_a_key_where_the_program_names_none(
    answering: Connect, asked: list[httpx.Request], view: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCORESERVE_API_KEY", "ssk_e_f")
    answering(httpx.Response(200, json=view())).job(JOB)
    answering(httpx.Response(200, json=view()), api_key="ssk_a_b").job(JOB)
    monkeypatch.setenv("SCORESERVE_API_KEY", "")
    answering(httpx.Response(200, json=view())).job(JOB)
    assert [request.headers.get("authorization") for request in asked] == ["Bearer ssk_e_f", "Bearer ssk_a_b", None]


def test_an_id_cannot_lead_elsewhere(answering: Connect, asked: list[httpx.Request], view: Callable[..., Any]) -> None:
    client = answering(httpx.Response(200, json=view()))
    client.job("../models?x#y")
    assert asked[0].url.raw_path == b"/jobs/..%2Fmodels%3Fx%23y"


def test_jobs_go_from_page_to_page(answering: Connect, asked: list[httpx.Request], view: Callable[..., Any]) -> None:
    pages = [{"jobs": [view(seed=1), view(seed=2)], "next": "c/1="}, {"jobs": [], "next": "c2"}]
    last = {"jobs": [view(seed=3)], "next": None}
    client = answering(*(httpx.Response(200, json=page) for page in (*pages, last)))
    jobs = client.jobs(state=["failed", "running"], model=["tiny"], page=2)
    assert asked == []
    assert next(iter(jobs)).seed == 1
    assert len(asked) == 1
    assert [job.seed for job in jobs] == [2, 3]
    assert [request.url.params.get("cursor") for request in asked] == [None, "c/1=", "c2"]
    assert asked[1].url.params.get_list("state") == ["failed", "running"]
    assert (asked[1].url.params["model"], asked[1].url.params["limit"]) == ("tiny", "2")


def test_cancel(answering: Connect, asked: list[httpx.Request], view: Callable[..., Any]) -> None:
    client = answering(httpx.Response(200, json=view("cancelled")))
    assert client.cancel(JOB).ended
    assert (asked[0].method, asked[0].url.path) == ("DELETE", f"/jobs/{JOB}")


def test_images_in_every_form(answering: Connect, asked: list[httpx.Request], view: Callable[..., Any]) -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    npz = io.BytesIO()
    np.savez(npz, images=pixels[None, :, :, None])
    answers = (png(pixels), png(pixels), npz.getvalue(), b"an animation")
    client = answering(*(httpx.Response(200, content=content) for content in answers))
    assert (np.asarray(client.grid(JOB, columns=4)) == pixels).all()
    assert (np.asarray(client.image(JOB, 3)) == pixels).all()
    assert client.arrays(JOB).shape == (1, 8, 8, 1)
    assert client.view(JOB, "animation.webp", fps=5, columns=None) == b"an animation"
    paths = [request.url.raw_path.decode().removeprefix(f"/jobs/{JOB}/") for request in asked]
    assert paths == ["grid.png?columns=4&padding=2&scale=2", "images/3.png", "samples.npz", "animation.webp?fps=5"]


def test_models(answering: Connect, asked: list[httpx.Request]) -> None:
    card = {
        "name": "tiny",
        "version": 3,
        "image": {"channels": 1, "height": 8, "width": 9},
        "sampler": {"name": "euler"},
        "classes": ["shirt", "shoe"],
    }
    client = answering(httpx.Response(200, json=[card]), httpx.Response(200, json=card))
    (model,) = client.models()
    assert (model.name, model.shape, model.sampler["name"]) == ("tiny", (8, 9, 1), "euler")
    assert model.classes == ("shirt", "shoe")
    assert client.model("tiny", 3) == model
    assert asked[1].url.raw_path == b"/models/tiny?version=3"


def test_samplers(answering: Connect) -> None:
    heun = {"name": "heun", "title": "Heun", "description": "Second order.", "parameters": []}
    (sampler,) = answering(httpx.Response(200, json=[heun])).samplers()
    assert (sampler.name, sampler.title, sampler.data) == ("heun", "Heun", heun)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "malformed", Refused),
        (401, "unauthorized", Unauthorized),
        (404, "not-found", NotFound),
        (409, "already-ended", Conflict),
        (413, "too-large", Refused),
        (422, "invalid", Refused),
        (429, "rate-limited", RateLimited),
        (500, "internal", ProblemError),
        (503, "busy", Unavailable),
    ],
)
def test_problems_are_raised_with_all_they_say(
    answering: Connect, problem: Callable[..., Any], status: int, code: str, kind: type[ProblemError]
) -> None:
    errors = [{"pointer": "/count", "reason": "too many", "allowed": "1 to 9"}]
    client = answering(problem(status, code, "/count: too many", {"retry-after": "90"}, errors=errors))
    with pytest.raises(kind) as raised:
        client.sample()
    error = raised.value
    assert type(error) is kind
    assert (error.status, error.code, error.detail) == (status, code, "/count: too many")
    assert (error.request_id, error.retry_after) == ("r1", 90.0)
    assert (error.errors[0].pointer, error.errors[0].allowed) == ("/count", "1 to 9")
    assert str(error) == "/count: too many; allowed: 1 to 9"


def test_a_date_in_retry_after(answering: Connect, problem: Callable[..., Any]) -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=3600), usegmt=True)
    with pytest.raises(Unavailable) as raised:
        answering(problem(503, "busy", headers={"retry-after": when})).models()
    assert raised.value.retry_after == pytest.approx(3600, abs=60)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500, html="<p>no</p>"),
        httpx.Response(404, json={"detail": "Not Found"}),
        httpx.Response(403, json=[]),
        httpx.Response(200, html="<p>welcome</p>"),
        httpx.Response(200, json={"id": 1}),
        httpx.Response(200, json=[]),
        httpx.Response(302, headers={"location": "http://elsewhere"}),
    ],
)
def test_what_answers_is_no_scoreserve(answering: Connect, answer: httpx.Response) -> None:
    with pytest.raises(UnexpectedAnswer):
        answering(answer).job(JOB)


def test_a_file_that_is_no_picture(answering: Connect) -> None:
    client = answering(httpx.Response(200, content=b"no picture"))
    for fetch in (client.grid, client.arrays, lambda job: client.image(job, 0)):
        with pytest.raises(UnexpectedAnswer):
            fetch(JOB)


@pytest.mark.parametrize("server", ["127.0.0.1:8000", "ftp://here", "http://here:port", "", "http://"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_address_that_is_none(kind: type, server: str) -> None:
    with pytest.raises(Unreachable, match=f"no service at {server}"):
        kind(server)


LOST = httpx.ReadError("reset")
NEVER_SENT = httpx.ConnectError("refused")


def test_a_post_is_sent_again_under_the_same_key(
    answering: Connect,
    asked: list[httpx.Request],
    pauses: list[float],
    view: Callable[..., Any],
    problem: Callable[..., Any],
) -> None:
    answers = (LOST, NEVER_SENT, problem(503, "unavailable", headers={"retry-after": "2"}))
    client = answering(*answers, httpx.Response(202, json=view()))
    client.inpaint(b"a picture", b"a mask")
    assert len({request.headers["idempotency-key"] for request in asked}) == 1
    assert len({request.content for request in asked}) == 1
    assert len(asked) == 4
    assert 0.125 <= pauses[0] <= 0.25 <= pauses[1] <= 0.5
    assert pauses[2] == 2
    client.sample()
    assert asked[-1].headers["idempotency-key"] != asked[0].headers["idempotency-key"]


def test_a_reading_request_is_sent_again(
    answering: Connect,
    asked: list[httpx.Request],
    pauses: list[float],
    view: Callable[..., Any],
    problem: Callable[..., Any],
) -> None:
    limited = problem(429, "rate-limited", headers={"retry-after": "1"})
    client = answering(limited, httpx.Response(502), LOST, httpx.Response(200, json=view()))
    assert client.job(JOB).id == JOB
    assert len(asked) == 4
    assert pauses[0] == 1


def test_a_cancellation_is_not_sent_again_when_its_answer_is_lost(
    answering: Connect, asked: list[httpx.Request], pauses: list[float]
) -> None:
    with pytest.raises(Unreachable, match="reset"):
        answering(NEVER_SENT, LOST).cancel(JOB)
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("status", "retry_after", "attempts"),
    [(422, "1", 1), (500, "1", 1), (503, "3600", 1), (503, "1", 3), (504, None, 3)],
)
def test_what_will_not_pass_is_not_waited_for(
    answering: Connect,
    asked: list[httpx.Request],
    pauses: list[float],
    problem: Callable[..., Any],
    status: int,
    retry_after: str | None,
    attempts: int,
) -> None:
    headers = {"retry-after": retry_after} if retry_after else {}
    client = answering(problem(status, "some", headers=headers), patience=Patience(attempts=3))
    with pytest.raises(ProblemError):
        client.sample()
    assert len(asked) == attempts
    assert len(pauses) == attempts - 1


def test_a_timeout_says_what_it_is(answering: Connect, pauses: list[float]) -> None:
    with pytest.raises(Unreachable, match="ReadTimeout"):
        answering(httpx.ReadTimeout("")).models()
    assert len(pauses) == 4
    assert pauses == sorted(pauses)


def test_everything_that_is_raised_is_one_kind() -> None:
    for kind in (ProblemError, UnexpectedAnswer, Unreachable):
        assert issubclass(kind, ScoreserveError)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_method_tells_what_it_takes(kind: type) -> None:
    for grid, own in ((kind.grid, ["self"]), (kind().grid, [])):
        assert list(inspect.signature(grid).parameters) == [*own, "job", "columns", "padding", "scale"]
        assert (grid.__name__, grid.__doc__) == ("grid", "All images of a finished job in one picture.")


def test_the_client_brings_nothing_of_the_service_with_it() -> None:
    code = "import sys, scoreserve; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "scoreserve.sync" in loaded
    heavy = {"torch", "redis", "rq", "fastapi", "starlette", "pydantic", "numpy", "PIL", "worker", "models"}
    assert heavy & set(loaded) == set()
