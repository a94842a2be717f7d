"""Problems: every kind has a page, and every error is one."""

import base64
import hashlib
import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.answering import problems
from service.answering.problems import KINDS


def test_every_kind_has_a_page(client) -> None:
    for code, (status, title, remedy) in KINDS.items():
        response = client.get(f"/problems/{code}")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/html")
        text = html.unescape(re.sub("<.*?>", "", response.text))
        assert all(words in text for words in (code, str(status), title, remedy.replace("`", "")))
        assert not re.search(r"(src|href)=.?(http|//)", response.text), "it loads something from elsewhere"


def test_the_page_of_all_kinds_leads_to_each(client) -> None:
    links = re.findall(r'href="(/problems/[^"]+)"', client.get("/problems").text)
    assert links == [f"/problems/{code}" for code in KINDS]


def test_a_page_has_a_style_that_its_policy_allows_and_no_more(client) -> None:
    response = client.get("/problems/invalid")
    (style,) = re.findall("<style>(.*?)</style>", response.text)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in response.headers["content-security-policy"]
    assert "default-src 'none'" in response.headers["content-security-policy"]


def test_what_the_framework_refuses_is_a_problem_too(client, problem: Callable[..., Any]) -> None:
    assert "/nowhere" in problem(client.get("/nowhere"), 404, "not-found")["detail"]
    refused = client.post("/jobs/" + 24 * "0")
    problem(refused, 405, "method-not-allowed")
    assert refused.headers["allow"] == "GET, DELETE, HEAD"
    assert client.get("/samples").headers["allow"] == "POST"
    problem(client.post("/samples", content=b"{"), 415, "unsupported-media-type")
    problem(client.post("/samples", content=b"{", headers={"Content-Type": "application/json"}), 400, "malformed")
    problem(client.post("/samples", json={"count": 0}), 422, "invalid")
    said = problem(client.get("/jobs/x"), 422, "invalid")["detail"]
    assert said == "job_id is 'x'; allowed: 24 hexadecimal digits"


def test_an_unknown_kind_is_a_problem_itself(client, problem: Callable[..., Any]) -> None:
    assert "invalid" in problem(client.get("/problems/gone"), 404, "not-found")["detail"]


def test_every_kind_is_used_and_every_code_is_a_kind() -> None:
    text = "".join(path.read_text() for path in Path(problems.__file__).parents[1].rglob("*.py"))
    used = {code for code in re.findall(r'"([a-z-]+)"', text.replace('"code":', "")) if code in KINDS}
    assert used == set(KINDS)
    assert set(re.findall(r'Problem\(\s*"([a-z-]+)"', text)) <= set(KINDS)


def test_an_unforeseen_error_tells_nothing_of_the_inside(
    client, problem: Callable[..., Any], monkeypatch: Any, caplog: Any
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr("service.jobs.job_of", fail)
    response = client.get("/jobs/" + 24 * "0")
    body = problem(response, 500, "internal")
    assert "swordfish" not in response.text
    assert body["request_id"] in caplog.text
    assert "swordfish" in caplog.text


LONG = "a" * 5000


@pytest.mark.parametrize(
    ("method", "url", "options"),
    [
        ("POST", "/samples", {"json": {LONG: 1}}),
        ("POST", "/samples", {"json": {"model": LONG}}),
        ("POST", "/samples", {"json": {"seed": LONG, "sampler": {"name": LONG}}}),
        ("POST", "/samples", {"json": {"sampler": {LONG: 1}, "priority": LONG, "label": [LONG], "labels": [LONG]}}),
        ("POST", "/samples", {"json": {"webhook": {"url": f"https://{LONG}", "secret": LONG}}}),
        ("POST", "/samples", {"json": {}, "headers": {"Accept": f"x/{LONG}"}}),
        ("POST", "/samples", {"json": {}, "headers": {"Content-Type": LONG}}),
        ("POST", "/samples", {"json": {}, "headers": {"Content-Encoding": LONG}}),
        ("POST", "/samples", {"json": {}, "headers": {"Client-Id": LONG}}),
        ("POST", "/samples", {"json": {}, "headers": {"Idempotency-Key": LONG}}),
        ("POST", "/inpaint", {"files": {LONG: b"x", "image": b"y"}}),
        ("POST", "/inpaint", {"files": {"image": b"y"}, "data": {LONG: "1"}}),
        ("POST", "/inpaint", {"json": {"image": LONG + "!"}}),
        ("GET", f"/{LONG}", {}),
        ("GET", f"/jobs/{LONG}", {}),
        ("GET", f"/models/{LONG}", {}),
        ("GET", f"/problems/{LONG}", {}),
        ("GET", f"/jobs?limit={LONG}&cursor={LONG}", {}),
    ],
)
def test_what_a_client_sends_does_not_come_back_whole(client, method: str, url: str, options: dict[str, Any]) -> None:
    response = client.begin(method, url, **options).result(60)
    assert 400 <= response.status_code < 500
    assert not re.search("a{101}", response.text)


@pytest.mark.parametrize(
    "body",
    [
        {f"a{i}": 1 for i in range(3000)},
        {"sampler": {f"a{i}": 1 for i in range(3000)}},
        {"labels": [{}] * 9000},
        {"sampler": {"sigmas": ["x"] * 3000}},
    ],
    ids=["fields", "of a sampler", "labels", "levels"],
)
def test_of_many_mistakes_the_first_are_told(client, problem: Callable[..., Any], body: dict[str, Any]) -> None:
    told = problem(client.post("/samples", json=body), 422, "invalid")
    assert 1 <= len(told["errors"]) <= 20
    assert len(str(told)) < 20_000
