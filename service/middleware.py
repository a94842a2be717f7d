"""What happens to every request: an id, who asks, limits on its body, a count, and a line in the access log.

And headers on every answer.
"""

import asyncio
import logging
import math
import secrets
import time
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.sentences import shortened
from service.access import quotas, worked
from service.access.auth import public
from service.access.budgets import Claim, payer
from service.access.origins import Origins
from service.access.pace import HEADERS, WORKED_SECONDS
from service.answering.problems import Problem, problem_of, respond
from service.context import Context

log = logging.getLogger(__name__)
access_log = logging.getLogger("scoreserve.access")

CLOSE = {"Connection": "close"}
WITH_PICTURES = {"/inpaint", "/upscale", "/colorize"}
WITHOUT_BODY = {"GET", "HEAD", "DELETE", "OPTIONS"}  # methods that never have one here
PIECE_BYTES = 2**16  # that a body is taken for until more has come, and that of it is worked on at a time
HEALTH = {"/healthz", "/readyz"}  # asked by who restarts what does not answer: in a line of their own
PROBE_SECONDS = 0.8  # that such a request waits at most: many who ask give up after one
PROBES = {*HEALTH, "/metrics"}  # asked every few seconds, by nobody in particular

# A route that needs another policy sets its own.
SECURITY_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        b"frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
# Pages of others have no use for a picture, unless they may ask.
OURS_ALONE = (b"cross-origin-resource-policy", b"same-origin")


@dataclass
class _Took:
    """What a request took so far.

    Args:
        since: when it came, on the monotonic clock.
        status: of the answer; 0 until it has begun.
        received, sent: bytes of the bodies of request and answer.
        worked: seconds of each thread that worked for the answer.
    """

    since: float
    status: int = 0
    received: int = 0
    sent: int = 0
    worked: list[float] = field(default_factory=worked.begin)

    def much(self, headers: int) -> bool:
        """Whether it took much besides its beginning, of so many lines of headers."""
        return self.received + self.sent > PIECE_BYTES or sum(self.worked) > WORKED_SECONDS or headers > HEADERS


class RequestMiddleware:
    """Gives each request an id, lets in what may be asked, bounds its body before it is read, and counts it by route
    and by key.

    Args:
        app: the application.
        context: its limits, keys and metrics.
    """

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self.app, self.context = app, context
        self.origins, self.pace = Origins(context.settings), context.pace
        self.headers = [*SECURITY_HEADERS, *([] if context.settings.origins else [OURS_ALONE])]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["request_id"], scope["answer_headers"] = secrets.token_hex(8), []
        scope["query_string"] = _said(scope["query_string"])
        scope["body"] = Claim(self.context.room, "")
        took = _Took(time.monotonic())

        async def counting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                took.status = message["status"]
                own = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", scope["request_id"].encode()),
                    *scope["answer_headers"],
                    *(header for header in self.headers if header[0] not in own),
                ]
            took.sent += len(message.get("body", b""))
            await send(message)

        try:
            replay = _replay(await self._admit(Request(scope), receive, took), receive)
            await self.app(scope, replay, counting_send)
        except ClientDisconnect:
            return  # nobody is left to answer
        except asyncio.CancelledError:  # by a server that stops, and has waited for as long as it does
            if not took.status:
                await respond(Request(scope), _stops())(scope, receive, counting_send)
            raise
        except Exception as error:
            problem = problem_of(error)
            if problem.code == "internal":
                log.error("request %s failed", scope["request_id"], exc_info=error)
            if took.status:
                raise  # too late for another answer: the connection is closed
            await respond(Request(scope), problem)(scope, receive, counting_send)
        finally:
            scope["body"].release()
            if took.much(lines := len(scope["headers"])):  # else its beginning is all
                seconds = sum(took.worked)
                self.pace.charge(line_of(Request(scope)), took.received, took.sent, time.monotonic(), seconds, lines)
            self._count(scope, took)

    def _count(self, scope: Scope, took: _Took) -> None:
        """Counts a request that has ended, and tells of it in the access log."""
        route, caller = getattr(scope.get("route"), "path", "none"), scope.get("caller")
        if took.status:
            self.context.metrics.http_requests.labels(route, _method(scope["method"]), str(took.status)).inc()
        if "problem" in scope:
            self.context.metrics.rejections.labels(scope["problem"]).inc()
        if caller is not None and caller.key is not None:
            self.context.usage.count(caller.key.id, took.received, took.sent)
        if self.context.settings.access_log and scope["path"] not in PROBES:
            line = {
                "request": scope["request_id"],
                "key": caller.key.id if caller is not None and caller.key is not None else None,
                "client": None if caller is None else caller.client,
                "method": _method(scope["method"]),
                "route": route,
                "path": shortened(scope["path"]),
                "status": took.status or None,  # of a client that went before it was answered
                "bytes_received": took.received,
                "bytes_sent": took.sent,
                "seconds": round(time.monotonic() - took.since, 4),
            }
            access_log.info("%(method)s %(path)s: %(status)s", line, extra={"access": line})

    async def _admit(self, request: Request, receive: Receive, took: _Took) -> list[bytes]:
        """It is for us, who asks is known, may ask, and has sent the whole body, whose pieces are returned.

        Raises:
            Exception: of whichever kind; `problem_of` says what the client is told.
        """
        try:
            await self._let_in(request)
            coding = request.headers.get("content-encoding", "identity").strip().lower()
            if coding not in ("", "identity"):
                what = f"Content-Encoding {shortened(coding)}; send the body as it is"
                raise Problem("unsupported-media-type", what, headers={"Accept-Encoding": "identity"})
            return await self._body(request, receive, took)
        except Problem as problem:
            if _announced(request):
                problem.headers.update(CLOSE)  # since the body is not read
            raise

    async def _let_in(self, request: Request) -> None:
        """Returns when it is the turn of a request that may be asked; one that may not waits too before it is refused.

        Raises:
            Problem: it may not.
        """
        caller = None
        try:
            self.origins.check(request)
            if not public(request.scope["path"]):
                caller = request.scope["caller"] = await self.context.auth.caller(request)
        except Problem:
            await self.pace.turn(payer(request), known=False)
            raise
        if caller is not None:
            await self.pace.turn(payer(request))
            request.scope["answer_headers"] += await quotas.spend(self.context.jobs.redis, caller)
        else:
            line = line_of(request)
            await self.pace.turn(line, known=False, patience=PROBE_SECONDS if line != payer(request) else math.inf)

    async def _body(self, request: Request, receive: Receive, took: _Took) -> list[bytes]:
        """The whole body in pieces, of what has one; of what has none, nothing is read.

        Raises:
            ClientDisconnect: the client went away before its end.
            Problem: there is one where none is taken, it is larger than it may be, there is no room for it, or it is
                not there in time, or when the service stops.
        """
        settings, path, method = self.context.settings, request.scope["path"], request.method
        if method == "POST" and path in WITH_PICTURES:
            limit = settings.max_body_bytes
        elif method == "POST" and path == "/samples":
            limit = settings.max_json_bytes
        elif not _announced(request):
            return []
        elif method in WITHOUT_BODY and path not in (*WITH_PICTURES, "/samples"):  # there it is the wrong method
            raise Problem("too-large", f"{method} takes no body here: send none")
        else:  # whatever the answer is, it needs none
            request.scope["answer_headers"].append((b"connection", b"close"))
            return []
        length = request.headers.get("content-length", "")
        size = int(length) if length.isdecimal() and len(length) < 20 else 0
        if size > limit:
            raise _too_large(limit)
        claim: Claim = request.scope["body"]
        claim.client = payer(request)
        claim.more(size or PIECE_BYTES)
        return await self._read(receive, limit, claim, took)

    async def _read(self, receive: Receive, limit: int, claim: Claim, took: _Took) -> list[bytes]:
        chunks: list[bytes] = []
        size, more, seconds = 0, True, self.context.settings.body_timeout_seconds
        try:
            async with asyncio.timeout(seconds) as body:
                self.context.bodies.add(body)
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    chunks.append(message.get("body", b""))
                    took.received = size = size + len(chunks[-1])
                    if size > limit:
                        raise _too_large(limit)
                    if size > claim.amount:
                        claim.more(max(PIECE_BYTES, size - claim.amount))
                    more = message.get("more_body", False)
        except TimeoutError as error:
            if self.context.endings.closed:
                raise _stops() from error
            raise Problem("request-timeout", f"the body was not there after {seconds:g} s", headers=CLOSE) from error
        finally:
            self.context.bodies.discard(body)
        return chunks


def line_of(request: Request) -> str:
    """In which line a request waits for its turn, among those of the same client."""
    probe = request.scope["path"] in HEALTH and not _announced(request)
    return f"{'health/' if probe else ''}{payer(request)}"


def _announced(request: Request) -> bool:
    """Whether a body comes after the headers."""
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def _too_large(limit: int) -> Problem:
    return Problem("too-large", f"the body is larger than {limit} bytes", headers=CLOSE)


def _stops() -> Problem:
    detail = "the service stops, and did not take the request"
    return Problem("unavailable", detail, headers={**CLOSE, "Retry-After": "2"})


class HeadMiddleware:
    """Answers HEAD wherever there is GET, with the same headers and no body.

    Routes find `head` in the scope, so as not to begin what nobody reads.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        inner = {**scope, "method": "GET", "head": True}
        try:
            await self.app(inner, receive, without_body)
        finally:  # what the answer is counted by
            scope.update({name: inner[name] for name in ("route", "problem") if name in inner})


def _said(query: bytes) -> bytes:
    """The query without parameters that are empty, as a form sends them: they are the same as left out."""
    return b"&".join(part for part in query.split(b"&") if part.partition(b"=")[2])


def _replay(chunks: list[bytes], receive: Receive) -> Receive:
    """A `receive` that gives the body once, and forgets it, then what comes after it.

    In small pieces, and others have their turn after each: what reads a large form would hold them up otherwise.
    """
    given, at = False, 0  # whether all was, and the place in the first chunk

    async def replay() -> Message:
        nonlocal given, at
        if given:
            return await receive()
        piece = chunks[0][at : at + PIECE_BYTES] if chunks else b""
        at += PIECE_BYTES
        if chunks and at >= len(chunks[0]):
            del chunks[0]
            at = 0
        if chunks:
            await asyncio.sleep(0)
        else:
            given = True
        return {"type": "http.request", "body": piece, "more_body": bool(chunks)}

    return replay


def _method(method: str) -> str:
    """The method as a metric's label; made-up ones must not become series of their own."""
    return method if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} else "other"
