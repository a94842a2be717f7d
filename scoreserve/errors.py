"""What can go wrong, as exceptions. All are `ScoreserveError`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from scoreserve.records import Job


class ScoreserveError(Exception):
    """The service could not do what was asked."""


class Unreachable(ScoreserveError):
    """There is no service at this address, or the connection to it was lost."""


class WrongArgument(ScoreserveError, ValueError):
    """What was asked cannot even be sent: the message says what it was, and what is allowed."""


class UnexpectedAnswer(ScoreserveError):
    """Something answers that does not talk like this service.

    Args:
        message: what it said.
        status: of its answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class JobFailed(ScoreserveError):
    """The job ended without images.

    Args:
        job: failed or cancelled; `job.error` says why.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.id} is {job.state}: {job.error}")
        self.job = job


class WaitedTooLong(ScoreserveError, TimeoutError):
    """The job has not ended in the time that `wait` was given. It goes on.

    Args:
        job: as it was last seen.
    """

    def __init__(self, job: Job, seconds: float) -> None:
        done = f"{job.image_steps_done} of {job.image_steps} image-steps done"
        super().__init__(f"job {job.id} is {job.state} after {seconds:g} s, {done}")
        self.job = job


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field, and what is allowed."""

    pointer: str
    reason: str
    allowed: str | None


class ProblemError(ScoreserveError):
    """The service answered with a problem (RFC 9457); its subclasses tell the kinds apart.

    Args:
        status: of the answer.
        code: name of the problem; the service explains it at /problems/{code}.
        detail: what was wrong with this request.
        errors: the fields at fault.
        request_id: under which the service logged the request.
        retry_after: seconds after which the service advises to try again.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: tuple[FieldError, ...] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        allowed = [f"allowed: {error.allowed}" for error in errors if error.allowed and error.allowed not in detail]
        super().__init__("; ".join([detail, *allowed]))
        self.status, self.code, self.detail, self.errors = status, code, detail, errors
        self.request_id, self.retry_after = request_id, retry_after


class Refused(ProblemError):
    """The request asks for what cannot be: mend it (400, 406, 413, 415, 422)."""


class Unauthorized(ProblemError):
    """The key is missing, unknown or revoked (401, 403)."""


class NotFound(ProblemError):
    """There is no such job or model, or it is another's (404)."""


class Conflict(ProblemError):
    """The job is not in a state for this: it has ended, or has no images yet (409)."""


class RateLimited(ProblemError):
    """You asked too often, or have too much in flight (429): try again after `retry_after` seconds."""


class Unavailable(ProblemError):
    """The service is full or cannot reach its queue (503): try again after `retry_after` seconds."""


KINDS: Mapping[int, type[ProblemError]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    429: RateLimited,
    503: Unavailable,
}


def error_of(response: httpx.Response) -> ScoreserveError:
    """The exception for an answer of status 400 or more, its body read."""
    try:
        problem = response.json()
        code, detail = str(problem["code"]), str(problem["detail"])
        errors = tuple(_field_error(error) for error in problem.get("errors", ()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        status = response.status_code
        return UnexpectedAnswer(f"the service answered {status} and no problem details", status)
    kind = KINDS.get(response.status_code, Refused if response.status_code < 500 else ProblemError)
    return kind(response.status_code, code, detail, errors, problem.get("request_id"), retry_after(response))


def retry_after(response: httpx.Response) -> float | None:
    """Seconds of the header Retry-After, which is a number or a date; None if there is none that can be read."""
    value = response.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _field_error(error: Mapping[str, Any]) -> FieldError:
    return FieldError(str(error.get("pointer", "")), str(error.get("reason", "")), error.get("allowed"))
