"""Parts of an answer whose bytes are all there: byte ranges (RFC 9110, section 14)."""

import os
import re
from typing import IO

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from service.answering.problems import Problem, responses

# What the routes say of it in the OpenAPI document.
HEADERS = [
    {
        "name": "Range",
        "in": "header",
        "description": "One part of the file, such as its first 1024 bytes. Several, or what is none, are ignored.",
        "schema": {"type": "string"},
        "example": "bytes=0-1023",
    },
    {
        "name": "If-Range",
        "in": "header",
        "description": "The `ETag` of the parts that you have: if the file has another one, all of it is the answer.",
        "schema": {"type": "string"},
    },
]
PROBLEMS = responses("range-not-satisfiable")
_PIECE_BYTES = 2**18  # sent at a time
_ONE = re.compile(r"bytes=[ \t]*([0-9]{0,100})-([0-9]{0,100})[ \t]*", re.IGNORECASE)


def respond(request: Request, content: bytes, headers: dict[str, str], media_type: str) -> Response:
    """The answer with this content, or with the part of it that the request is for.

    Args:
        request: HEAD is answered as if it had no Range, which is defined for GET alone.
        content: all of it.
        headers: with its ETag.
        media_type: of it.

    Raises:
        Problem: it has no such part.
    """
    headers = {**headers, "Accept-Ranges": "bytes"}
    part = None if request.scope.get("head") else _part(request, len(content), headers["ETag"])
    if part is None:
        return Response(content, headers=headers, media_type=media_type)
    headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{len(content)}"
    return Response(content[part.start : part.stop], 206, headers, media_type)


def respond_file(request: Request, file: IO[bytes], headers: dict[str, str], media_type: str) -> Response:
    """The same with what a file holds, which is read as it is sent, and closed.

    Raises:
        Problem: it has no such part.
    """
    length = file.seek(0, os.SEEK_END)
    headers = {**headers, "Accept-Ranges": "bytes"}
    try:
        part = None if request.scope.get("head") else _part(request, length, headers["ETag"])
    except Problem:
        file.close()
        raise
    if part is None:
        return _OfFile(file, range(length), 200, headers, media_type)
    headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{length}"
    return _OfFile(file, part, 206, headers, media_type)


def respond_whole(file: IO[bytes], headers: dict[str, str], media_type: str) -> Response:
    """The answer with all that a file holds, which is read as it is sent, and closed."""
    return _OfFile(file, range(file.seek(0, os.SEEK_END)), 200, headers, media_type)


class _OfFile(Response):
    """An answer of which no more than a piece is in memory, however slowly it is taken."""

    def __init__(self, file: IO[bytes], part: range, status: int, headers: dict[str, str], media_type: str) -> None:
        super().__init__(None, status, {**headers, "Content-Length": str(len(part))}, media_type)
        self.file, self.part = file, part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            self.file.seek(self.part.start)
            left = 0 if scope.get("head") else len(self.part)
            while left:
                piece = await run_in_threadpool(self.file.read, min(left, _PIECE_BYTES))
                if not piece:
                    raise OSError("the file has become shorter while it was sent")
                left -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
            if scope.get("head") or not self.part:
                await send({"type": "http.response.body", "body": b""})
        finally:
            self.file.close()


def _part(request: Request, length: int, tag: str) -> range | None:
    """Which bytes the request is for; None for all, also where the Range makes no sense or is of another content."""
    found = _ONE.fullmatch(", ".join(request.headers.getlist("range")))
    if found is None or request.headers.get("if-range", tag).strip() != tag:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(0, length - int(last))
    stop = min(int(last) + 1, length) if first and last else length
    if start >= length:
        raise Problem(
            "range-not-satisfiable",
            f"the file has {length} bytes, none of which is in {found[0]}",
            headers={"Content-Range": f"bytes */{length}"},
        )
    return range(start, stop)
