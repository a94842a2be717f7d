"""Where clients find what an answer names: below the path, if there is one, at which a proxy has this service."""

import re
from contextvars import ContextVar

PREFIX: ContextVar[str] = ContextVar("prefix", default="")  # of the request that is answered; such as /score
PLACEHOLDER = "\ue000"  # in place of a prefix, in text that is written once for many

_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")


def address(path: str) -> str:
    """A path of this service as its client sees it."""
    return f"{PREFIX.get()}{path}"


def parse_prefix(text: str) -> str:
    """A prefix, from however it was written: /score, score, /score/ or nothing.

    Raises:
        ValueError: it is none.
    """
    prefix = text.strip().removeprefix("/").removesuffix("/")
    path = f"/{prefix}" if prefix else ""
    if not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise ValueError(f"{text!r} is no path: letters, digits and . _ ~ - between slashes, such as /score")
    return path
