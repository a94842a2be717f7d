"""What happens to every request: an id, a limit on its body, and a count."""

import logging
import secrets

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.context import Context
from service.problems import Problem, respond

log = logging.getLogger(__name__)


class RequestMiddleware:
    """Gives each request an id, bounds its body before anything reads it, and counts it by route.

    Args:
        app: the application.
        context: its limits and metrics.
    """

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self.app, self.context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["request_id"] = secrets.token_hex(8)
        status, started = 500, False

        async def counting_send(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                message["headers"] = [*message["headers"], (b"x-request-id", scope["request_id"].encode())]
            await send(message)

        try:
            body = await _read(receive, self.context.settings.max_body_bytes)
        except ClientDisconnect:
            return  # nobody is left to answer
        try:
            if body is None:
                limit = self.context.settings.max_body_bytes
                problem = Problem(
                    "too-large", f"the body is larger than {limit} bytes", headers={"Connection": "close"}
                )
                await respond(Request(scope), problem)(scope, receive, counting_send)
            else:
                await self.app(scope, _replay(body, receive), counting_send)
        except Exception as error:
            log.error("request %s failed", scope["request_id"], exc_info=error)
            if started:
                raise  # too late for another answer: the connection is closed
            problem = Problem("internal", "the request could not be carried out")
            await respond(Request(scope), problem)(scope, receive, counting_send)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self.context.metrics.http_requests.labels(route, _method(scope["method"]), str(status)).inc()
            if "problem" in scope:
                self.context.metrics.rejections.labels(scope["problem"]).inc()


async def _read(receive: Receive, limit: int) -> bytes | None:
    """The whole body, or None as soon as it is larger than the limit.

    Raises:
        ClientDisconnect: the client went away before its end.
    """
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            return None
        more = message.get("more_body", False)
    return b"".join(chunks)


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

        await self.app({**scope, "method": "GET", "head": True}, receive, without_body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once, then what comes after it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _method(method: str) -> str:
    """The method as a metric's label; made-up ones must not become series of their own."""
    return method if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} else "other"
