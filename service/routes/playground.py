"""The playground: a page at `/` and its files below `/static`."""

from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)

DIRECTORY = Path(__file__).parents[1] / "playground"
KEPT = "no-cache"  # kept, but asked for again: a file's name stays when it changes
_FILES = StaticFiles(directory=DIRECTORY)


@router.get("/")
async def page(request: Request) -> Response:
    """The page."""
    return await _file("index.html", request)


@router.get("/static/{path:path}")
async def static(path: str, request: Request) -> Response:
    """A file of the page; 304 if the browser has it."""
    return await _file(path, request)


async def _file(path: str, request: Request) -> Response:
    response = await _FILES.get_response(path, request.scope)
    response.headers["Cache-Control"] = KEPT
    return response
