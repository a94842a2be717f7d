"""Errors as RFC 9457 problem details: what was wrong, what is allowed, what to do."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.exceptions import OutOfMemoryError, RedisError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from models.sentences import LONGEST_ECHO, MOST_FAULTS, Fault, fault, faults, shortened
from service.answering.addresses import address
from worker.queue.job import JobNotFound
from worker.queue.stores import Damaged, StoreAway

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
LONGEST_DETAIL, LONGEST_ERROR = 4000, 1000  # characters, whatever a client has sent

# code: (status, title, what to do)
KINDS: dict[str, tuple[int, str, str]] = {
    "malformed": (400, "The request cannot be read", "Send well-formed JSON, or multipart form data, as /docs shows."),
    "unauthorized": (
        401,
        "This needs a key",
        "Send `Authorization: Bearer ssk_...`. Who runs the service makes keys: `scoreserve keys create NAME`.",
    ),
    "forbidden": (
        403,
        "The key does not reach so far",
        "`detail` says what it may not, and `errors` what it may. Who runs the service can change it: "
        "`scoreserve keys change ID`.",
    ),
    "another-origin": (
        403,
        "Pages of other web sites may not ask for this",
        "Ask from a page of this service, or from a program. Who runs the service can let pages of a web site ask: "
        "`SCORESERVE_CORS_ORIGINS`.",
    ),
    "not-found": (404, "There is no such thing here", "Check the address. Ended jobs are kept for a limited time."),
    "method-not-allowed": (405, "The method does not apply here", "The Allow header lists the methods that do."),
    "not-acceptable": (406, "None of the accepted media types can be made", "Accept one of those in `detail`."),
    "request-timeout": (408, "The request's body did not arrive in time", "Send it again, on a faster connection."),
    "not-ready": (409, "The job has no images", "Wait until its state is `finished`; `detail` says what it is."),
    "already-ended": (409, "The job has ended", "A job that has ended cannot be cancelled."),
    "drained": (
        409,
        "The model takes no new requests",
        "Ask for another model, or later. What was accepted of it is done.",
    ),
    "too-large": (413, "The request body is too large", "Send less; `detail` has the limit."),
    "unsupported-media-type": (415, "The media type is not understood", "Use one of those in `detail`."),
    "range-not-satisfiable": (
        416,
        "The file has no such part",
        "Ask for a Range inside the file, whose length Content-Range tells; or without Range, for all of it.",
    ),
    "misdirected": (
        421,
        "This service goes by another name",
        "Ask it by its address, or by one of the names in `detail`. Who runs the service can add a name to them: "
        "`SCORESERVE_ALLOWED_HOSTS`.",
    ),
    "invalid": (422, "The request asks for what cannot be", "`errors` says for each field what is allowed."),
    "rate-limited": (
        429,
        "Too many requests",
        "Try again after Retry-After seconds. To follow a job, read its events or ask with `Prefer: wait=N`.",
    ),
    "quota-exceeded": (
        429,
        "Too much of yours is in flight",
        "Try again after Retry-After seconds, when enough of your jobs is done; or cancel one, or ask for less.",
    ),
    "storage-exceeded": (
        429,
        "Too many images of yours are kept",
        "Try again after Retry-After seconds, when enough of them is forgotten; or ask for less.",
    ),
    "idempotency-mismatch": (
        422,
        "The Idempotency-Key was used for another request",
        "Send what you sent with it before, or choose a new key for a new request.",
    ),
    "images-damaged": (
        500,
        "The images are damaged",
        "Ask anew: the same request, with its seed, makes the same images. Who runs the service finds more in its log.",
    ),
    "internal": (500, "Something broke here", "Try again; if it stays, report the request_id."),
    "busy": (
        503,
        "Too much goes before this job",
        "Try again after Retry-After seconds; a job that was refused for its deadline, also with a later one.",
    ),
    "no-worker": (
        503,
        "Nobody works here",
        "Start a worker: `scoreserve worker`. Jobs are accepted, and wait for one.",
    ),
    "images-unavailable": (
        503,
        "The images cannot be reached",
        "Try again after Retry-After seconds. The job is finished, and its images are kept.",
    ),
    "unavailable": (
        503,
        "The queue cannot be reached",
        "Try again after Retry-After seconds. Nothing was accepted, unless `detail` names a job: then ask for that.",
    ),
}


class FieldError(BaseModel):
    """What is wrong with one field."""

    pointer: str = Field(description="Where: a JSON pointer into the body, or the name of a parameter or form field.")
    reason: str = Field(description="What is wrong.")
    allowed: str | None = Field(None, description="What is allowed.")


class ProblemDetails(BaseModel):
    """The body of every error (RFC 9457)."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(description="Address of a page about this kind of problem.", examples=["/problems/invalid"])
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldError] = Field(default_factory=list)


class Problem(Exception):
    """An error that the client is told about.

    Args:
        code: a key of KINDS.
        detail: what was wrong with this very request.
        errors: the fields at fault.
        headers: further response headers.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code, self.detail, self.errors, self.headers = code, detail, list(errors), dict(headers or {})


def invalid(pointer: str, reason: str, allowed: str | None = None) -> Problem:
    """The problem of a single bad field."""
    error = FieldError(pointer=pointer, reason=reason, allowed=allowed)
    return Problem("invalid", f"{pointer}: {reason}", [error])


def invalid_body(error: ValidationError, model: type[BaseModel]) -> Problem:
    """The problem of a body that does not fit its model."""
    if error.error_count() == 1 and error.errors()[0]["type"] == "json_invalid":
        return _malformed(error.errors())
    found = faults(error, model)
    return _of_faults(
        found, max(0, error.error_count() - MOST_FAULTS), lambda path: "".join(f"/{step}" for step in path)
    )


def install(app: FastAPI) -> None:
    """Makes every error of the application a problem."""

    for kind in (Problem, RedisError, JobNotFound, StoreAway, Damaged):

        @app.exception_handler(kind)
        async def _(request: Request, error: Exception) -> JSONResponse:
            return respond(request, problem_of(error))

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> JSONResponse:
        return respond(request, _from_validation(error.errors()))

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> JSONResponse:
        code = {400: "malformed", 404: "not-found", 405: "method-not-allowed", 413: "too-large"}.get(error.status_code)
        what = f"{shortened(request.method)} {shortened(request.url.path)}"
        detail = f"{what}: {error.detail}" if code else HTTPStatus(error.status_code).phrase
        headers = {"Allow": ", ".join(_methods(request))} if error.status_code == 405 else error.headers
        return respond(request, Problem(code or "internal", detail, headers=headers))


def _methods(request: Request) -> list[str]:
    """The methods that the request's path takes; the framework names those of one of its routes only."""

    def taken(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes)

    methods = [method for method in ("GET", "POST", "PUT", "PATCH", "DELETE") if taken(method)]
    return [*methods, "HEAD"] if "GET" in methods else methods


def problem_of(error: Exception) -> Problem:
    """What a client is told of an error, whatever it is."""
    match error:
        case Problem():
            return error
        case OutOfMemoryError():
            return Problem("unavailable", "the queue is full", headers={"Retry-After": "10"})
        case RedisError():
            log.warning("Redis: %s", error)
            return Problem("unavailable", "Redis does not answer", headers={"Retry-After": "2"})
        case StoreAway() | Damaged():
            return _of_store(error)
        case JobNotFound():
            return Problem("not-found", f"there is no job {error}, or its results have been forgotten")
        case _:
            return Problem("internal", "the request could not be carried out")


def _of_store(error: StoreAway | Damaged) -> Problem:
    if isinstance(error, Damaged):
        return Problem("images-damaged", f"what is stored is not what was made: {error}")
    log.warning("results store: %s", error)
    return Problem("images-unavailable", "the results store does not answer", headers={"Retry-After": "5"})


def respond(request: Request, problem: Problem) -> JSONResponse:
    """The response that tells a client of a problem."""
    body = described(problem, request_id(request))
    request.scope["problem"] = problem.code
    return JSONResponse(body.model_dump(), body.status, problem.headers, MEDIA_TYPE)


def described(problem: Problem, request: str) -> ProblemDetails:
    """A problem as a client is told of it, with the id of the request."""
    status, title, _ = KINDS[problem.code]
    return ProblemDetails(
        type=address(f"/problems/{problem.code}"),
        title=title,
        status=status,
        detail=_told(problem.detail, LONGEST_DETAIL),
        code=problem.code,
        request_id=request,
        errors=[_bounded(error) for error in problem.errors],
    )


def request_id(request: Request) -> str:
    """The id under which the request is logged."""
    return str(request.scope.get("request_id", ""))


def responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of the problems that an operation may answer with."""
    entries: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, title, remedy = KINDS[code]
        schema = {"$ref": "#/components/schemas/ProblemDetails"}
        before = f"{entries[status]['description']} " if status in entries else ""
        description = f"{before}{title}: {remedy}"
        examples = entries[status]["content"][MEDIA_TYPE]["examples"] if status in entries else {}
        example = ProblemDetails(
            type=f"/problems/{code}", title=title, status=status, detail="...", code=code, request_id="9f86d081884c7d65"
        )
        content = {"schema": schema, "examples": {**examples, code: {"value": example.model_dump()}}}
        entries[status] = {"description": description, "content": {MEDIA_TYPE: content}}
    return entries


def _from_validation(errors: Sequence[Any]) -> Problem:
    """The problem of parameters that the framework has refused."""
    if any(error["type"] == "json_invalid" for error in errors):
        return _malformed(errors)
    # Without the word for where it was.
    found = [fault(error | {"loc": error["loc"][1:]}) for error in errors[:MOST_FAULTS]]
    return _of_faults(found, len(errors) - len(found), lambda path: ".".join(map(str, path)))


def _malformed(errors: Sequence[Any]) -> Problem:
    context = errors[0].get("ctx", {})
    return Problem("malformed", f"the body is not JSON: {context.get('error', errors[0]['msg'])}")


def _of_faults(found: Sequence[Fault], untold: int, pointer: Callable[[tuple[str | int, ...]], str]) -> Problem:
    fields = [FieldError(pointer=pointer(one.path), reason=one.reason, allowed=one.allowed) for one in found]
    more = [f"and {untold} more like these"] if untold else []
    return Problem("invalid", "; ".join([*map(str, found), *more]), fields)


def _bounded(error: FieldError) -> FieldError:
    allowed = None if error.allowed is None else _told(error.allowed, LONGEST_ERROR)
    return FieldError(pointer=_told(error.pointer), reason=_told(error.reason, LONGEST_ERROR), allowed=allowed)


def _told(text: str, most: int = LONGEST_ECHO) -> str:
    """A sentence without long words, which are none of ours: whatever a client has sent is not sent back to it."""
    words = re.sub(rf"\S{{{LONGEST_ECHO + 1},}}", lambda found: shortened(found[0]), text[: 2 * most])
    return shortened(words, most)
