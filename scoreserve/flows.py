"""What each method of a client does: requests, when they are sent again, pages, and the stream of a job's events."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from scoreserve import calls
from scoreserve.calls import Call
from scoreserve.errors import (
    JobFailed,
    ProblemError,
    ScoreserveError,
    UnexpectedAnswer,
    Unreachable,
    WaitedTooLong,
    error_of,
    retry_after,
)
from scoreserve.events import Decoder, Ended, Event, Message, Progress
from scoreserve.records import Job
from scoreserve.steps import Emit, Feed, Flow, Open, Read, Send, Sleep

T = TypeVar("T")

# Answers of the service, or of a proxy before it, that say that nothing was done yet and that this will pass.
PASSING = (429, 502, 503, 504)
AWAY = (502, 503, 504)  # without Retry-After: a proxy's
NO_STREAM = (404, 405, 406, 501)  # a service without events
POLL_SECONDS = 0.2, 2.0
STREAM = "text/event-stream"


@dataclass(frozen=True)
class Patience:
    """How often, and how long, a client tries.

    Args:
        attempts: in all, of a request to a service that has not answered yet, or that asks to come back later; 1 never
            tries again.
        first_seconds: the first pause; each is twice the one before, and shortened at random by up to half so that many
            clients do not come back at once.
        most_seconds: the longest pause. A service that asks for a longer one with Retry-After is not tried again.
        seconds: how long a service that is away is waited for, where it has answered before or a job is waited for.
    """

    attempts: int = 5
    first_seconds: float = 0.25
    most_seconds: float = 10.0
    seconds: float = 300.0


PATIENCE = Patience()


class Line:
    """What a client knows of the way to its service.

    Args:
        patience: of the client.
    """

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.answered = False  # whether the service has ever done what was asked


class Tries:
    """The tries of one request.

    Args:
        line: to the service.
        waiting: whether the request is part of a wait for a job, which was accepted.
        until: a time of the monotonic clock, after which nothing is tried; None for no such time.
    """

    def __init__(self, line: Line, waiting: bool = False, until: float | None = None) -> None:
        self.line, self.waiting, self.until = line, waiting, until
        self._count, self._began = 0, 0.0

    def succeeded(self) -> None:
        """What fails from now on is another failure."""
        self.line.answered = True
        self._count = 0

    def pause(self, away: bool, advised: float | None = None) -> float | None:
        """Seconds to wait after one more failure; None to give up.

        Args:
            away: whether nobody answered, or somebody in place of the service.
            advised: what the service asked for.
        """
        patience, now = self.line.patience, time.monotonic()
        self._count += 1
        self._began = now if self._count == 1 else self._began
        lasting = self.waiting or (away and self.line.answered)
        too_late = self.until is not None and now >= self.until
        over = now - self._began >= patience.seconds if lasting else self._count >= patience.attempts
        too_long = not self.waiting and advised is not None and advised > patience.most_seconds
        if too_late or over or too_long or patience.attempts <= 1:
            return None
        doubled = patience.first_seconds * 2.0 ** min(self._count - 1, 30)
        pause = min(patience.most_seconds, doubled) * random.uniform(0.5, 1) if advised is None else advised  # noqa: S311
        return pause if self.until is None else min(pause, self.until - now)


def send(call: Call, line: Line, tries: Tries | None = None) -> Flow[httpx.Response]:
    """Sends a request, again where that is safe; returns the answer, which is good.

    Safe is what changes nothing or has an Idempotency-Key, what never got through, and what was answered with "later".

    Raises:
        ScoreserveError: the service could not be reached, or refused.
    """
    tries = tries or Tries(line)
    while True:
        try:
            response: httpx.Response = yield Send(call)
        except httpx.RequestError as error:
            safe = call.repeatable or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            pause = tries.pause(away=True) if safe and _may_pass(error) else None
            if pause is None:
                raise Unreachable(_words(error)) from error
        else:
            if response.is_success:
                tries.succeeded()
                return response
            advised = retry_after(response)
            away = response.status_code in AWAY and advised is None
            pause = tries.pause(away, advised) if response.status_code in PASSING else None
            if pause is None:
                raise error_of(response)
        yield Sleep(pause)


def read(call: Call, line: Line, parse: Callable[[Any], T], tries: Tries | None = None) -> Flow[T]:
    """Sends a request and parses the JSON of its answer.

    Raises:
        ScoreserveError: as `send`, or the answer is not of this service.
    """
    response = yield from send(call, line, tries)
    return _parsed(response, parse)


def content(call: Call, line: Line, decode: Callable[[bytes], T]) -> Flow[T]:
    """Sends a request and decodes the file that it is answered with.

    Raises:
        ScoreserveError: as `send`, or the file cannot be decoded.
    """
    response = yield from send(call, line)
    try:
        return decode(response.content)
    except Exception as error:  # whatever a decoder says of what it cannot read
        raise _unexpected(response) from error


def unready() -> Flow[str | None]:
    """Why the service would take no job now; None if it would."""
    try:
        response: httpx.Response = yield Send(calls.get("readyz"))
    except httpx.RequestError as error:
        raise Unreachable(_words(error)) from error
    if response.status_code not in (200, 503):
        raise error_of(response) if response.is_error else _unexpected(response)
    return _parsed(response, lambda data: None if data["status"] == "ready" else str(data["detail"]))


def jobs(states: Sequence[str], models: Sequence[str], page: int, line: Line) -> Feed[Job, None]:
    """Emits every job, page by page."""
    cursor: str | None = None
    while True:
        call = calls.jobs(states, models, page, cursor)
        found, cursor = yield from read(call, line, _page)
        for job in found:
            yield Emit(job)
        if not cursor:
            return


def events(job_id: str, previews: bool, last_id: str | None, line: Line) -> Feed[Event, Job]:
    """Emits a job's events until it has ended; returns it. A lost stream goes on after the last event that came.

    Raises:
        ScoreserveError: the stream cannot be opened, or is lost again and again without an event in between.
    """
    decoder, tries = Decoder(last_id), Tries(line, waiting=True)
    while True:
        advised = None
        trouble: ScoreserveError = Unreachable(f"the stream of job {job_id} ended before the job")
        try:
            response: httpx.Response = yield Open(calls.events(job_id, previews, decoder.last_id))
            if not response.is_success:
                trouble, advised = error_of(response), retry_after(response)
                if response.status_code not in PASSING:
                    raise trouble
            elif not response.headers.get("content-type", "").startswith(STREAM):
                raise _unexpected(response)
            else:
                decoder.reconnected()
                while chunk := (yield Read()):
                    for message in decoder.feed(chunk):
                        tries.succeeded()
                        event = _event(response, message)
                        if event is not None:
                            yield Emit(event)
                        if isinstance(event, Ended):
                            return event.job
        except httpx.RequestError as error:
            trouble = Unreachable(_words(error))
            if not _may_pass(error):
                raise trouble from error
        pause = tries.pause(away=True, advised=advised)
        if pause is None:
            raise trouble
        yield Sleep(max(pause, decoder.retry_seconds))


def follow(job_id: str, previews: bool, line: Line) -> Feed[Event, Job]:
    """The same; where the service has no events, the job's progress, by asking again and again."""
    try:
        return (yield from events(job_id, previews, None, line))
    except (ProblemError, UnexpectedAnswer) as error:
        if error.status not in NO_STREAM:
            raise
    return (yield from poll(job_id, None, line))


def poll(job_id: str, seconds: float | None, line: Line, last: Job | None = None) -> Feed[Event, Job]:
    """Emits a job's progress, and its end, by asking again and again; returns it.

    Args:
        job_id: of the job.
        seconds: to wait; None for ever.
        line: to the service.
        last: the job as it was last seen, if it was.

    Raises:
        WaitedTooLong: it has not ended after so many seconds.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    job, seen, pause = last, None, POLL_SECONDS[0]
    while True:
        try:
            job = yield from read(calls.job(job_id), line, Job.of, Tries(line, waiting=True, until=deadline))
        except ScoreserveError as error:
            if job is None or deadline is None or time.monotonic() < deadline:
                raise
            raise WaitedTooLong(job, seconds or 0.0) from error
        if job.ended:
            yield Emit(Ended(job))
            return job
        now = Progress(job.state, job.image_steps_done, job.image_steps, None, job.queue_position, job.eta_seconds)
        if now != seen:
            yield Emit(now)
        seen = now
        left = pause if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise WaitedTooLong(job, seconds or 0.0)
        yield Sleep(min(pause, left))
        pause = min(pause * 1.2, POLL_SECONDS[1])


def wait(job: Job | str, seconds: float | None, line: Line) -> Flow[Job]:
    """A job once it is finished.

    A wait of limited time asks again and again, since a silent stream could not be left on time.

    Raises:
        JobFailed: it failed or was cancelled.
        WaitedTooLong: it has not ended in time.
    """
    seconds = calls.seconds("timeout", seconds)
    if isinstance(job, Job) and job.ended:
        ended = job
    elif seconds is None:
        ended = yield from follow(id_of(job), False, line)
    else:
        ended = yield from poll(id_of(job), seconds, line, job if isinstance(job, Job) else None)
    if ended.state != "finished":
        raise JobFailed(ended)
    return ended


def id_of(job: Job | str) -> str:
    """The id of a job that is given as such or by its id."""
    return job.id if isinstance(job, Job) else job


def _page(data: Any) -> tuple[list[Job], str | None]:
    return [Job.of(job) for job in data["jobs"]], data["next"]


def _parsed(response: httpx.Response, parse: Callable[[Any], T]) -> T:
    try:
        return parse(response.json())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unexpected(response) from error


def _event(response: httpx.Response, message: Message) -> Event | None:
    try:
        return message.event_of()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unexpected(response) from error


def _unexpected(response: httpx.Response) -> UnexpectedAnswer:
    return UnexpectedAnswer(f"{response.url} answers, but is no scoreserve", response.status_code)


def _may_pass(error: httpx.RequestError) -> bool:
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)


def _words(error: httpx.RequestError) -> str:
    return str(error) or type(error).__name__
