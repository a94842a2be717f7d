"""docs/http.md: every request in it is sent to a running service, and the answers are those that it shows."""

import json
import queue
import re
import shlex
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from service.app import create_app
from service.settings import ServiceSettings
from service.webhooks.signatures import parse_secret, sign
from tests.system.markdown import ADDRESS, ROOT, Answer, Block, Call, Shell, blocks, differences, is_path

DOCUMENT = ROOT / "docs" / "http.md"
RECEIVER = "127.0.0.1:9000"  # of webhooks, in the document


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


@pytest.fixture
def calls(shell: Shell) -> Iterator["queue.Queue[Call]"]:
    """What the service sends to the document's receiver, which answers as the document shows."""
    received: queue.Queue[Call] = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers["content-length"]))
            self.send_response(204)
            self.end_headers()
            received.put(Call(f"{self.command} {self.path}", headers, body))

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        shell.elsewhere[RECEIVER] = f"127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield received
        server.shutdown()
        thread.join()


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


def test_every_answer_is_as_the_document_shows_it(
    shell: Shell, operations: dict[tuple[str, str], Any], calls: "queue.Queue[Call]"
) -> None:
    """The service's call too, which must be signed so that the document's own lines find it to be true."""
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
        if block.heading == "Webhooks":
            wrong += _webhook(shell, calls)
    assert wrong == [], "\n".join(wrong)


def _webhook(shell: Shell, calls: "queue.Queue[Call]") -> list[str]:
    """Where the webhook of the job that was asked for last is not as the document shows it."""
    ask, _, shown, _, code = [block for block in blocks(DOCUMENT) if block.heading == "Webhooks"]
    call = calls.get(timeout=60)
    wrong = [f"docs/http.md:{shown.line}: {text}" for text in differences(shell.here(shown.text), call)]
    event = json.loads(call.body)
    job = Block("sh", f"curl -s {ADDRESS}/jobs/$job", code.line, code.heading)
    if event["data"] != json.loads(Answer.of(shell, job).body):
        wrong.append(f"docs/http.md:{shown.line}: data is not what GET /jobs/{{job_id}} says")
    names: dict[str, Any] = {}
    exec(code.text, names)
    verify, (secret,) = names["verify"], set(re.findall(r"whsec_[A-Za-z0-9+/=]+", ask.text))
    verify(secret, call.headers, call.body)
    for false in (
        (secret, call.headers, call.body.replace(b"finished", b"failed..")),
        (secret, {**call.headers, "webhook-id": "msg_0"}, call.body),
        (secret, {**call.headers, "webhook-timestamp": "1"}, call.body),
        ("whsec_" + 32 * "A", call.headers, call.body),
        (secret, *_signed_long_ago(secret)),
    ):
        with pytest.raises(ValueError, match=r"."):
            verify(*false)
    return wrong


def _signed_long_ago(secret: str) -> tuple[dict[str, str], bytes]:
    """Headers and body that somebody has kept, to send them again."""
    signature = sign([parse_secret(secret)], "msg_1", 1_700_000_000, b"{}")
    headers = {"webhook-id": "msg_1", "webhook-timestamp": "1700000000", "webhook-signature": signature}
    return headers, b"{}"


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
