"""docs/http.md: every request in it is sent to a running service, and the answers are those that it shows."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from service.app import create_app
from service.settings import ServiceSettings
from tests.system.markdown import ADDRESS, ROOT, Answer, Block, Shell, blocks, differences, is_path

DOCUMENT = ROOT / "docs" / "http.md"


@dataclass(frozen=True)
class Request:
    """What a `curl` of the document asks for."""

    method: str
    path: str

    @classmethod
    def of(cls, block: Block) -> "Request":
        words = shlex.split(block.text.replace("\\\n", " "))
        (url,) = [word for word in words if word.startswith(ADDRESS)]
        head = any(word.startswith("-") and word.endswith("I") for word in words)
        method = "HEAD" if head else "POST" if {"-d", "-F"} & set(words) else "GET"
        if "-X" in words:
            method = words[words.index("-X") + 1]
        return cls(method, urlsplit(url).path)


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """What the OpenAPI document describes, by method and route."""
    app = create_app(ServiceSettings(models_dir=tmp_path_factory.mktemp("none")))
    paths = app.openapi()["paths"]
    return {(method.upper(), route): found for route, methods in paths.items() for method, found in methods.items()}


def exchanges() -> Iterator[tuple[Block, Block | None]]:
    """The shell blocks of the document, each with the answer that it shows, if it asks the service."""
    found = blocks(DOCUMENT)
    for block, following in zip(found, [*found[1:], None], strict=True):
        if block.language == "sh":
            yield block, following if following and following.language == "http" else None


def test_every_operation_is_in_the_document_under_its_own_heading(operations: dict[tuple[str, str], Any]) -> None:
    shown = {
        (request.method, route)
        for block, answer in exchanges()
        if answer
        for request in [Request.of(block)]
        for method, _, route in [block.heading.partition(" ")]
        if method == request.method and is_path(request.path, route)
    }
    assert operations.keys() - shown == set()
    headings = {block.heading for block, _ in exchanges() if block.heading.split(" ")[0].isupper()}
    assert headings == {f"{method} {route}" for method, route in operations}


def test_every_answer_is_as_the_document_shows_it(shell: Shell, operations: dict[tuple[str, str], Any]) -> None:
    wrong = []
    for block, shown in exchanges():
        if shown is None:
            shell.run(block)
            continue
        answer = Answer.of(shell, block)
        wrong += [f"docs/http.md:{shown.line}: {text}" for text in differences(shown.text, answer)]
        wrong += [f"docs/http.md:{block.line}: {text}" for text in _undescribed(Request.of(block), answer, operations)]
        if "location" in answer.headers:
            shell.variables["job"] = answer.headers["location"].rpartition("/")[2]
    assert wrong == [], "\n".join(wrong)


def _undescribed(request: Request, answer: Answer, operations: dict[tuple[str, str], Any]) -> list[str]:
    """What the OpenAPI document does not say of an answer."""
    method = "GET" if request.method == "HEAD" else request.method
    fitting = [route for asked, route in operations if asked == method and is_path(request.path, route)]
    if not fitting:
        return [] if request.path.startswith("/problems") else [f"no operation is {method} {request.path}"]
    described = operations[method, max(fitting, key=lambda route: -route.count("{"))]["responses"]
    status = answer.status.split(" ")[0]
    if status not in described:
        return [f"{status} is not described"]
    return (
        [] if answer.media_type in described[status].get("content", {}) else [f"{answer.media_type} is not described"]
    )


SHOWN = (
    'HTTP/1.1 200 OK\nETag: "..."\n\n{"id": "...", "count": 2, "links": {"self": "/jobs/...", ...}, "more": [1, ...]}'
)
TRUE = {"id": "a", "count": 2, "links": {"self": "/jobs/a", "grid": None}, "more": [1, 2, 3]}


@pytest.mark.parametrize(
    ("status", "etag", "changed", "said"),
    [
        ("200 OK", '"x"', {}, None),
        ("202 Accepted", '"x"', {}, "the status is 202 Accepted"),
        ("200 OK", "x", {}, "ETag is x"),
        ("200 OK", '"x"', {"count": 3}, "/count is 3"),
        ("200 OK", '"x"', {"count": 2.0}, "/count is 2.0"),
        ("200 OK", '"x"', {"new": 1}, "/new is not shown"),
        ("200 OK", '"x"', {"links": {"grid": None}}, "/links/self is missing"),
        ("200 OK", '"x"', {"links": {"self": "/samples/a"}}, "/links/self is '/samples/a'"),
        ("200 OK", '"x"', {"more": []}, "/more has 0 items"),
    ],
)
def test_what_is_not_as_shown_is_found(status: str, etag: str, changed: dict[str, Any], said: str | None) -> None:
    headers = {"etag": etag, "content-type": "application/json"}
    found = differences(SHOWN, Answer(status, headers, json.dumps(TRUE | changed).encode()))
    assert found == ([] if said is None else [said])
