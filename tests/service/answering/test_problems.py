"""Problems: every kind has a page, and every error is one."""

import base64
import hashlib
import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    problem(client.get("/jobs/x"), 422, "invalid")


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
