"""Pages of jobs: where the next one begins, as a client is told it."""

import base64
import binascii
import json
import math

from fastapi import Request

from service.answering.addresses import address
from service.answering.problems import invalid
from worker.queue.jobs import Place


def cursor_of(place: Place) -> str:
    """The cursor that leads on from a job."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def place_of(cursor: str) -> Place:
    """Where a cursor leads on from.

    Raises:
        Problem: it is none of ours.
    """
    try:
        created_at, job_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if isinstance(created_at, float) and math.isfinite(created_at) and isinstance(job_id, str):
            return created_at, job_id
    except (binascii.Error, ValueError, TypeError, RecursionError):
        pass
    raise invalid("cursor", "this is no cursor", "`next` of the page before, as it is")


def link_to(request: Request, cursor: str) -> str:
    """The header `Link` with the address of the next page (RFC 8288)."""
    url = request.url.include_query_params(cursor=cursor)
    return f'<{address(url.path)}?{url.query}>; rel="next"'
