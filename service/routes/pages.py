"""/problems: a page for each kind of problem, which its `type` leads to."""

import base64
import hashlib
from html import escape

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from models.sentences import shortened
from service.answering.addresses import address
from service.answering.problems import KINDS, Problem

router = APIRouter(include_in_schema=False)

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem;color-scheme:light dark}"
    "code{font-family:ui-monospace,monospace}td{padding:.2rem 1rem .2rem 0;vertical-align:top}"
)
# The page loads nothing, and runs nothing.
POLICY = (
    "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
)


@router.get("/problems")
async def problems() -> HTMLResponse:
    """All kinds."""
    home = address("/problems")
    rows = "".join(
        f'<tr><td>{status}</td><td><a href="{home}/{code}"><code>{code}</code></a></td><td>{escape(title)}</td></tr>'
        for code, (status, title, _) in KINDS.items()
    )
    text = "Every error of this service is a problem (RFC 9457) of one of these kinds."
    return _page("Problems", f"<p>{text}</p><table>{rows}</table>")


@router.get("/problems/{code}")
async def problem(code: str) -> HTMLResponse:
    """What a kind of problem means, and what to do."""
    if code not in KINDS:
        raise Problem("not-found", f"there is no problem {shortened(code)!r}; there is: {', '.join(KINDS)}")
    status, title, remedy = KINDS[code]
    body = (
        f"<p><code>{code}</code>, status {status}.</p><p>{_marked(remedy)}</p>"
        "<p>The answer's <code>detail</code> says what was wrong with that very request, and <code>errors</code> which "
        "fields, and what is allowed. Its <code>request_id</code> finds it in the service's log.</p>"
        f'<p><a href="{address("/problems")}">All problems</a> &middot; '
        f'<a href="{address("/docs")}">Documentation</a></p>'
    )
    return _page(title, body)


def _page(title: str, body: str) -> HTMLResponse:
    html = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)} - scoreserve</title><style>{STYLE}</style><h1>{escape(title)}</h1>{body}</html>\n"
    )
    return HTMLResponse(html, headers={"Content-Security-Policy": POLICY})


def _marked(text: str) -> str:
    """Text as HTML, `code` marked."""
    parts = escape(text, quote=False).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
