"""Problems: every kind has a page, and every error is one."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service import problems
from service.problems import KINDS


def test_every_kind_has_a_page(client) -> None:
    for code, (status, title, remedy) in KINDS.items():
        response = client.get(f"/problems/{code}")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/plain")
        assert all(words in response.text for words in (code, str(status), title, remedy))


def test_an_unknown_kind_is_a_problem_itself(client, problem: Callable[..., Any]) -> None:
    assert "invalid" in problem(client.get("/problems/gone"), 404, "not-found")["detail"]


def test_every_kind_is_used_and_every_code_is_a_kind() -> None:
    text = "".join(path.read_text() for path in Path(problems.__file__).parent.rglob("*.py"))
    used = {code for code in re.findall(r'"([a-z-]+)"', text.replace('"code":', "")) if code in KINDS}
    assert used == set(KINDS)
    assert set(re.findall(r'Problem\(\s*"([a-z-]+)"', text)) <= set(KINDS)


def test_an_unforeseen_error_tells_nothing_of_the_inside(
    client, problem: Callable[..., Any], monkeypatch: Any, caplog: Any
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr("worker.queue.JobQueue.get", fail)
    response = client.get("/jobs/" + 24 * "0")
    body = problem(response, 500, "internal")
    assert "swordfish" not in response.text
    assert body["request_id"] in caplog.text
    assert "swordfish" in caplog.text
