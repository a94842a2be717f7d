"""/openapi.json, and /docs: Swagger UI of it, from files of our own, so that it needs no other web site."""

import asyncio
import base64
import hashlib
import json
import re
from importlib.resources import files

from fastapi import FastAPI, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from service.answering.addresses import PREFIX

MAX_PREFIXES = 16  # whose documents are remembered
ROOM = "static/docs"  # relative: to the page, and so to wherever a proxy has it


def install(app: FastAPI) -> None:
    """Adds the page and its files to an application without one."""
    assets = files("fastapi_offline") / "static"
    app.mount(f"/{ROOM}", StaticFiles(directory=str(assets)), name="docs")
    html = bytes(
        get_swagger_ui_html(
            openapi_url="openapi.json",
            title=f"{app.title}: documentation",
            swagger_js_url=f"{ROOM}/swagger-ui-bundle.js",
            swagger_css_url=f"{ROOM}/swagger-ui.css",
            swagger_favicon_url=f"{ROOM}/favicon.png",
        ).body
    ).decode()
    policy = _policy(html)

    texts: dict[str, bytes] = {}  # of the document, below each path that a proxy has it at
    making = asyncio.Lock()

    @app.get("/openapi.json", include_in_schema=False)
    async def document() -> Response:
        """Made and written down once, in a thread, since that takes a while."""
        prefix = PREFIX.get()
        if prefix not in texts:
            async with making:
                if prefix not in texts:
                    made = await run_in_threadpool(lambda: json.dumps(app.openapi(), ensure_ascii=False).encode())
                    if len(texts) >= MAX_PREFIXES:
                        texts.clear()
                    texts[prefix] = made
        return Response(texts[prefix], media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})


def _policy(html: str) -> str:
    """Allows the page's own script, by its hash; styles of elements, which Swagger UI sets, cannot be told by one."""
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{h}'" for h in hashes)
    return (
        "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
        f"base-uri 'none'; frame-ancestors 'none'; script-src 'self' {allowed}"
    )
