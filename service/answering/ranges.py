"""Parts of an answer whose bytes are all at hand: byte ranges (RFC 9110, section 14)."""

import re

from fastapi import Request, Response

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
