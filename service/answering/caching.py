"""Answers that never change: entity tags, `Cache-Control`, and 304 Not Modified (RFC 9110, 9111)."""

import hashlib
import math
import re
import time
from importlib.metadata import version

from fastapi import Request

from worker.queue.job import Job

# What draws a view may draw it differently in another release.
RELEASE = f"{version('scoreserve')} {version('pillow')} {version('numpy')}"


def headers(request: Request, job: Job) -> dict[str, str]:
    """The headers of a view of a finished job at the request's address, kept by its client until it is forgotten."""
    what = f"{RELEASE} {job.id} {request.url.path}?{request.url.query}"
    seconds = max(0, math.floor((job.ended_at or 0) + job.result_ttl - time.time()))
    return {
        "ETag": f'"{hashlib.sha256(what.encode()).hexdigest()[:32]}"',
        "Cache-Control": f"private, max-age={seconds}, immutable",
    }


def has_it(request: Request, tag: str) -> bool:
    """Whether the client has what it asks for (If-None-Match, weak comparison)."""
    wanted = request.headers.get("if-none-match", "")
    return wanted.strip() == "*" or tag in re.findall(r'"[^"]*"', wanted)
