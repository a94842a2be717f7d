"""Threaded: routes whose handlers are plain functions, which the framework runs in threads."""

import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from service.access.worked import counted
from service.context import context_of
from service.middleware import line_of


class ThreadedRoute(APIRoute):
    """A route whose handler works for one request of a client at a time, and is counted; unless it is a coroutine.

    All threads want the one interpreter, and so does the event loop: beside sixteen it has a seventeenth of it.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self._threaded = not inspect.iscoroutinefunction(endpoint)
        super().__init__(path, counted(endpoint) if self._threaded else endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As the framework asks for it."""
        handler = super().get_route_handler()
        if not self._threaded:
            return handler

        async def in_turn(request: Request) -> Response:
            async with context_of(request).threads.of(line_of(request), 0):
                return await handler(request)

        return in_turn
