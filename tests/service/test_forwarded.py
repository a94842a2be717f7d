"""Behind a proxy: below a path, for another host, by https, and only from proxies that are trusted."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from service.settings import ServiceSettings

PREFIX = "/score"
FORWARDED = {"X-Forwarded-Prefix": PREFIX}


@pytest.fixture(params=["the header", "the setting", "the setting, and the proxy leaves the path as it is"])
def behind(request: pytest.FixtureRequest, new_client: Callable, settings: ServiceSettings) -> Callable[..., Any]:
    """Asks a service that is below /score of a proxy."""
    by_header = request.param == "the header"
    client = new_client(settings if by_header else settings.model_copy(update={"root_path": PREFIX}))
    left = PREFIX if "leaves" in request.param else ""

    def ask(path: str, method: str = "GET", headers: Any = None, **options: Any) -> Any:
        told = {**(headers or {}), **(FORWARDED if by_header else {})}
        return client.begin(method, f"{left}{path}", headers=told, **options).result(60)

    return ask


def test_every_address_has_the_prefix(behind: Callable, work: Callable[[], None]) -> None:
    accepted = behind("/samples", "POST", json={"count": 1, "frames": 2})
    job = accepted.json()
    base = f"{PREFIX}/jobs/{job['id']}"
    assert accepted.headers["location"] == base
    assert {link.startswith(base) for link in job["links"].values()} == {True}
    behind("/samples", "POST", json={"count": 1})
    assert behind("/jobs?limit=1").headers["link"].startswith(f"<{PREFIX}/jobs?limit=1&cursor=")
    missing = behind("/nothing")
    assert (missing.status_code, missing.json()["type"]) == (404, f"{PREFIX}/problems/not-found")
    work()
    listed = behind("/jobs").json()["jobs"][0]
    assert listed["links"]["self"].startswith(f"{PREFIX}/jobs/")
    events = behind(f"/jobs/{job['id']}/events").text
    ended = json.loads(events.rpartition("data: ")[2])
    assert ended["links"]["self"] == base
    assert behind(f"/jobs/{job['id']}/grid.png").status_code == 200
    document = behind("/openapi.json").json()
    assert document["servers"] == [{"url": PREFIX}]


@pytest.mark.parametrize("path", ["/jobs/", "/models/", "/static/docs"])
def test_what_is_moved_stays_below_the_prefix_and_with_its_scheme(behind: Callable, path: str) -> None:
    for host in ("test", "example.com:8443"):
        moved = behind(path, headers={"Host": host, "X-Forwarded-Proto": "https"})
        if moved.status_code == 404:
            continue
        assert moved.status_code in (307, 308)
        assert moved.headers["location"].startswith(f"{PREFIX}/")


def test_the_pages_load_what_is_below_the_prefix(behind: Callable) -> None:
    docs = behind("/docs").text
    assert '"/' not in docs.replace('"/>', "")
    assert "'/" not in docs
    assert "openapi.json" in docs
    assert behind("/static/docs/swagger-ui-bundle.js").status_code == 200
    assert f'href="{PREFIX}/problems/not-found"' in behind("/problems").text
    assert f'href="{PREFIX}/docs"' in behind("/problems/not-found").text
    assert 'src="/' not in behind("/").text


def test_the_path_without_its_slash(new_client: Callable, settings: ServiceSettings) -> None:
    client = new_client(settings.model_copy(update={"root_path": PREFIX}))
    moved = client.get("/score?x=1")
    assert (moved.status_code, moved.headers["location"]) == (308, "/score/?x=1")
    assert client.get("/score/").status_code == 200
    assert client.get("/scoreboard").json()["detail"].startswith("GET /scoreboard")


@pytest.mark.parametrize("prefix", ["//example.com", "/a//b", "/../b", 'a"b', "/a b", "http://example.com"])
def test_a_prefix_that_is_none_is_not_taken(client, prefix: str) -> None:
    job = client.post("/samples", json={}, headers={"X-Forwarded-Prefix": prefix})
    assert job.headers["location"] == job.json()["links"]["self"] == f"/jobs/{job.json()['id']}"
    with pytest.raises(ValidationError, match="is no path"):
        ServiceSettings(root_path=prefix)


@pytest.mark.parametrize(
    ("allowed", "trusted"),
    [("127.0.0.1", True), ("10.0.0.0/8,127.0.0.0/8", True), ("*", True), ("10.0.0.0/8", False), ("::1", False)],
)
def test_only_proxies_that_are_trusted_are_believed(
    new_client: Callable, settings: ServiceSettings, redis: Any, allowed: str, trusted: bool
) -> None:
    client = new_client(settings.model_copy(update={"forwarded_allow_ips": allowed}))
    job = client.post("/samples", json={}, headers={**FORWARDED, "X-Forwarded-For": "192.0.2.7"})
    assert job.headers["location"].startswith(PREFIX) is trusted
    (listed,) = client.get("/jobs", headers={"X-Forwarded-For": "192.0.2.7"}).json()["jobs"]
    assert listed["id"] == job.json()["id"]
    others = client.get("/jobs", headers={"X-Forwarded-For": "192.0.2.8"}).json()["jobs"]
    assert len(others) == (0 if trusted else 1), "who is behind a proxy is told apart if it is believed"


def test_settings_of_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ServiceSettings().forwarded_allow_ips == "127.0.0.1,::1"
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.0/8")
    assert ServiceSettings().forwarded_allow_ips == "10.0.0.0/8"
    monkeypatch.setenv("SCORESERVE_FORWARDED_ALLOW_IPS", "10.1.0.0/16")
    assert ServiceSettings().forwarded_allow_ips == "10.1.0.0/16"
    with pytest.raises(ValidationError, match="is no address"):
        ServiceSettings(forwarded_allow_ips="10.0.0.0/8,nginx")
