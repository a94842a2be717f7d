"""The stream of a job's events: decoded however it is cut, and gone on with where it was lost."""

import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from scoreserve import (
    Ended,
    JobFailed,
    NotFound,
    Patience,
    Preview,
    Progress,
    UnexpectedAnswer,
    Unreachable,
    WaitedTooLong,
)
from scoreserve.events import Decoder, Message

PROGRESS = {"state": "running", "image_steps": 14, "sigma": 0.5, "queue_position": None, "eta_seconds": 1.5}
JOB = "5f0c9d7b1e2a4c6d8e9f0a1b"


class Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in pieces; after the last one the connection is lost, or ends."""

    def __init__(self, *pieces: bytes, lost: bool = False) -> None:
        self.pieces, self.lost = pieces, lost

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.lost:
            raise httpx.ReadError("connection reset")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def stream(*pieces: bytes, lost: bool = False) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Stream(*pieces, lost=lost))


def event(number: str, kind: str, data: Any) -> bytes:
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def progress(number: int) -> bytes:
    return event(f"{number}-0", "progress", PROGRESS | {"image_steps_done": number})


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_however_the_bytes_are_cut_the_messages_are_the_same(size: int, newline: bytes) -> None:
    text = (
        "retry: 1500\n: heart\n\nid: 7-1\nevent: progress\ndata: a\ndata:b \u2028 c\n\ndata\n\nid: 8-0\ndata: d\n\n:\n"
    )
    data = text.encode().replace(b"\n", newline)
    decoder = Decoder()
    messages = [message for start in range(0, len(data), size) for message in decoder.feed(data[start : start + size])]
    assert messages == [
        Message("7-1", "progress", "a\nb \u2028 c"),
        Message("7-1", "message", ""),
        Message("8-0", "message", "d"),
    ]
    assert decoder.retry_seconds == 1.5


def test_a_message_that_was_cut_short_is_not_taken_for_seen() -> None:
    decoder = Decoder("1-0")
    assert decoder.feed(b"id: 2-0\ndata: half") == []
    decoder.reconnected()
    assert decoder.last_id == "1-0"
    assert decoder.feed(b"\n\ndata: next\n\n") == [Message("1-0", "message", "next")]


def test_events_of_every_kind(connect: Callable[..., Any], view: Callable[..., Any]) -> None:
    asked: list[httpx.Request] = []
    preview = {
        "image_steps_done": 3,
        "sigma": 0.5,
        "png": base64.b64encode(b"a picture").decode(),
        "columns": 1,
        "count": 2,
    }

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        news = event("5-1", "something-new", "?")
        return stream(progress(5), news, event("6-0", "preview", preview), event("7-0", "done", view("finished")))

    events = list(connect(answer).events(JOB, previews=True))
    assert events[0] == Progress("running", 5, 14, 0.5, None, 1.5, "5-0")
    assert events[1] == Preview(b"a picture", 1, 2, 0.5, "6-0")
    assert isinstance(events[2], Ended)
    assert (events[2].job.state, events[2].job.seed) == ("finished", 5)
    assert len(events) == 3
    assert asked[0].url.path == f"/jobs/{JOB}/events"
    assert asked[0].url.query == b"previews=true"
    assert "last-event-id" not in asked[0].headers


def test_a_lost_stream_goes_on_after_the_last_event(
    connect: Callable[..., Any], view: Callable[..., Any], pauses: list[float]
) -> None:
    answers = [
        stream(b"retry: 3000\n\n", progress(1), progress(2)[:-1], lost=True),
        httpx.ConnectError("refused"),
        httpx.Response(503, json={"code": "unavailable", "detail": "no Redis"}, headers={"retry-after": "7"}),
        stream(progress(2), progress(3)),
        stream(event("9-0", "done", view("finished"))),
    ]
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("last-event-id"))
        outcome = answers.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    events = list(connect(answer).events(JOB, last_id="0-0"))
    assert [e.image_steps_done for e in events[:-1]] == [1, 2, 3]
    assert seen == ["0-0", "1-0", "1-0", "1-0", "3-0"]
    assert pauses == [3, 3, 7, 3]


def gone() -> httpx.Response:
    return httpx.Response(404, json={"code": "not-found", "detail": "there are no events"})


@pytest.mark.parametrize("seconds", [60, 300])
def test_a_service_that_stays_away_is_waited_for_as_long_as_told(
    connect: Callable[..., Any], pauses: list[float], seconds: float
) -> None:
    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    for answer, said in ((lambda _: stream(lost=True), "connection reset"), (away, "refused")):
        client = connect(answer, patience=Patience(seconds=seconds))
        before = sum(pauses)
        for wait in (client.wait, lambda job: list(client.follow(job))):  # noqa: B023 (called at once)
            with pytest.raises(Unreachable, match=said):
                wait(JOB)
        assert 2 * seconds <= sum(pauses) - before <= 2 * (seconds + 10)
        assert max(pauses) <= 10


def test_a_service_that_comes_back_is_found(
    connect: Callable[..., Any], view: Callable[..., Any], pauses: list[float]
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(202, json=view("queued"))
        if sum(pauses) < 100:
            if int(sum(pauses)) % 2:
                return httpx.Response(502)
            raise httpx.ConnectError("refused")
        return httpx.Response(200, json=view("finished")) if not request.url.path.endswith("events") else gone()

    for wait in ({}, {"timeout": 120}):
        client = connect(answer)
        assert client.wait(client.sample(), **wait).state == "finished"
        pauses.clear()
        client.sample()
        assert client.job(JOB).state == "finished", "a service that has answered before is waited for"
        assert sum(pauses) >= 100
        pauses.clear()


def test_a_service_that_was_never_there_is_given_up_soon(connect: Callable[..., Any], pauses: list[float]) -> None:
    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    client = connect(away)
    for ask in (client.sample, client.models, lambda: client.job(JOB)):
        with pytest.raises(Unreachable, match="refused"):
            ask()
    assert sum(pauses) < 15


def test_a_wait_of_limited_time_is_left_on_time_while_the_service_is_away(
    connect: Callable[..., Any], view: Callable[..., Any], pauses: list[float]
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(202, json=view("queued"))
        raise httpx.ConnectError("refused")

    client = connect(answer)
    with pytest.raises(WaitedTooLong, match="is queued after 20 s"):
        client.wait(client.sample(), timeout=20)
    assert sum(pauses) == pytest.approx(20)
    with pytest.raises(Unreachable):  # nothing is known of it
        client.wait(JOB, timeout=20)


def test_where_the_service_has_no_events_the_job_is_asked_for(
    connect: Callable[..., Any], view: Callable[..., Any], problem: Callable[..., Any], pauses: list[float]
) -> None:
    states = [view("queued", queue_position=2), view("queued", queue_position=2), view("running"), view("finished")]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            return problem(404, "not-found")
        return httpx.Response(200, json=states.pop(0))

    events = list(connect(answer).follow(JOB))
    assert [(e.state, e.queue_position) for e in events[:-1]] == [("queued", 2), ("running", None)]
    assert events[-1].job.state == "finished"
    assert len(pauses) == 3


def test_a_job_that_is_gone_is_told_so(connect: Callable[..., Any], problem: Callable[..., Any]) -> None:
    client = connect(lambda _: problem(404, "not-found", "there is no job"))
    with pytest.raises(NotFound, match="there is no job"):
        list(client.follow(JOB))
    with pytest.raises(NotFound, match="there is no job"):
        list(client.events(JOB))


@pytest.mark.parametrize(
    "answer",
    [
        lambda: httpx.Response(200, html="<p>welcome</p>"),
        lambda: stream(event("1-0", "progress", {"state": "running"})),
        lambda: stream(b"event: done\ndata: {]\n\n"),
        lambda: stream(event("1-0", "done", [])),
    ],
)
def test_a_stream_that_is_none_of_ours(connect: Callable[..., Any], answer: Callable[[], httpx.Response]) -> None:
    with pytest.raises(UnexpectedAnswer, match="is no scoreserve"):
        list(connect(lambda _: answer()).events(JOB))


def test_a_wait_ends_with_the_job(connect: Callable[..., Any], view: Callable[..., Any]) -> None:
    client = connect(lambda _: stream(progress(1), event("2-0", "done", view("finished"))))
    assert client.wait(JOB).state == "finished"


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_wait_for_a_job_that_comes_to_nothing_raises(
    connect: Callable[..., Any], view: Callable[..., Any], state: str
) -> None:
    client = connect(lambda _: stream(event("2-0", state, view(state, error="image 0 became NaN"))))
    with pytest.raises(JobFailed, match=f"is {state}: image 0 became NaN") as raised:
        client.wait(JOB)
    assert raised.value.job.state == state


def test_a_wait_of_limited_time_is_left_on_time(
    connect: Callable[..., Any], view: Callable[..., Any], pauses: list[float]
) -> None:
    client = connect(lambda _: httpx.Response(200, json=view("running")))
    with pytest.raises(WaitedTooLong, match="3 of 14 image-steps") as raised:
        client.wait(JOB, timeout=5)
    assert isinstance(raised.value, TimeoutError)
    assert sum(pauses) == pytest.approx(5)
