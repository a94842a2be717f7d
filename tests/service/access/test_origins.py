"""What browsers send for pages of others is refused; what programs and the service's own pages send is not."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError
from redis import Redis

from service.settings import ServiceSettings
from worker.queue.keys import ACTIVE

PAGE = "http://evil.example"


@pytest.fixture
def plain(new_client: Callable, settings: ServiceSettings) -> Any:
    """A service as it is by default."""
    return new_client(settings.model_copy(update={"allowed_hosts": ""}))


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "localhost.", "score.localhost:80", "127.0.0.1:8000", "10.1.2.3", "[::1]:8000"],
)
def test_it_goes_by_loopback_names_and_addresses(plain: Any, host: str) -> None:
    """Health checks of a container ask by its address."""
    for path in ("/healthz", "/models", "/"):
        assert plain.get(path, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "xlocalhost", "api:8000", "", "a b", "[::1", "1.2.3.4.evil.example"],
)
def test_by_another_name_nothing_is_read(plain: Any, host: str, problem: Callable[..., Any]) -> None:
    for path in ("/", "/jobs", "/models", "/metrics", "/healthz", "/openapi.json", "/nowhere"):
        told = problem(plain.get(path, headers={"Host": host}), 421, "misdirected")["detail"]
        assert "localhost, addresses such as 127.0.0.1; SCORESERVE_ALLOWED_HOSTS names others" in told
    assert plain.post("/samples", json={}, headers={"Host": host}).status_code == 421


def test_names_can_be_allowed(new_client: Callable, settings: ServiceSettings, problem: Callable[..., Any]) -> None:
    client = new_client(
        settings.model_copy(update={"allowed_hosts": "Score.example.com, .inside.test", "host": "gpu7"})
    )
    for host in ("score.example.com", "SCORE.EXAMPLE.COM:8443", "a.inside.test", "a.b.inside.test:80", "gpu7:8000"):
        assert client.get("/models", headers={"Host": host}).status_code == 200
    for host in ("example.com", "evil-score.example.com", "inside.test", "xinside.test"):
        told = problem(client.get("/models", headers={"Host": host}), 421, "misdirected")["detail"]
        assert "score.example.com, .inside.test, gpu7" in told
    anybody = new_client(settings.model_copy(update={"allowed_hosts": "*"}))
    assert anybody.get("/models", headers={"Host": "what.ever"}).status_code == 200


@pytest.mark.parametrize(
    "hosts", ["https://a.example", "a.example:80", "a.example/", "*.example.com", "a b", ".", ".."]
)
def test_a_name_that_is_none_is_told_at_the_start(hosts: str) -> None:
    with pytest.raises(ValidationError, match="is no name of a host: score"):
        ServiceSettings(allowed_hosts=hosts)
    ServiceSettings(allowed_hosts=" api, .example.com,my_host,*,")


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site", "Origin": PAGE},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
    {"Origin": PAGE},  # a browser that reaches the service by http, and not on loopback
    {"Origin": "null"},
    {"Origin": "http://localhost:8001"},
    {"Origin": "http://localhost.evil.example"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=lambda headers: "-".join(headers.values()))
def test_a_page_of_another_origin_changes_nothing(
    client: Any, redis: Redis, problem: Callable[..., Any], png: Callable, picture: Any, headers: dict[str, str]
) -> None:
    job = client.submit(count=1)
    files = {"image": png(picture), "mask": png(picture)}
    for answer in (
        client.post("/inpaint", files=files, headers=headers),
        client.post("/samples", json={}, headers=headers),
        client.delete(job["links"]["cancel"], headers=headers),
    ):
        told = problem(answer, 403, "another-origin")["detail"]
        assert "those of this service; SCORESERVE_CORS_ORIGINS names others" in told
    assert redis.zcard(ACTIVE) == 1
    answer = client.get(job["links"]["self"], headers=headers)
    assert answer.json()["state"] == "queued"
    assert not [name for name in answer.headers if name.startswith("access-control")], "nor can the page read it"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin", "nor show a picture"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://score.example.com"},  # of a proxy that tells no name
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost"},
        {"Origin": "https://localhost"},
        {"Origin": "https://EXAMPLE.com:8443", "Host": "example.com:8443"},
        {"Origin": "http://example.com", "Host": "Example.com:80"},
        {"Origin": "http://[::1]:8000", "Host": "[::1]:8000"},
    ],
    ids=lambda headers: "-".join(headers.values()),
)
def test_programs_and_pages_of_the_service_may_ask(client: Any, headers: dict[str, str]) -> None:
    answer = client.post("/samples", json={"count": 1}, headers=headers)
    assert answer.status_code == 202
    assert client.delete(answer.headers["location"], headers=headers).status_code == 200


def test_pages_of_origins_that_are_named_may_ask(new_client: Callable, settings: ServiceSettings) -> None:
    client = new_client(settings.model_copy(update={"cors_origins": "https://friend.example"}))
    friend = {"Origin": "https://friend.example", "Sec-Fetch-Site": "cross-site"}
    answer = client.post("/samples", json={"count": 1}, headers=friend)
    assert answer.status_code == 202
    assert "cross-origin-resource-policy" not in answer.headers
    refused = client.post("/samples", json={"count": 1}, headers={**friend, "Origin": PAGE})
    assert refused.status_code == 403
    assert "those of this service, https://friend.example" in refused.json()["detail"]
    anybody = new_client(settings.model_copy(update={"cors_origins": "*"}))
    assert anybody.post("/samples", json={}, headers={**friend, "Origin": PAGE}).status_code == 202


def test_the_name_that_a_proxy_was_asked_by_counts_too(
    new_client: Callable, settings: ServiceSettings, problem: Callable[..., Any]
) -> None:
    """Whether or not it passes it on as the host; what a client says of it without a proxy counts for nothing."""
    page = {"Origin": "https://score.example.com", "Host": "127.0.0.1:8000"}
    told = {**page, "X-Forwarded-Host": "score.example.com, inner"}
    settings = settings.model_copy(update={"allowed_hosts": "score.example.com"})
    behind = new_client(settings)
    assert behind.post("/samples", json={}, headers=told).status_code == 202
    assert behind.post("/samples", json={}, headers=page).status_code == 403
    problem(behind.get("/models", headers={**page, "X-Forwarded-Host": "evil.example"}), 421, "misdirected")
    problem(
        behind.get("/models", headers={"Host": "evil.example", "X-Forwarded-Host": "localhost"}), 421, "misdirected"
    )
    alone = new_client(settings.model_copy(update={"forwarded_allow_ips": "10.0.0.1"}))
    assert alone.post("/samples", json={}, headers=told).status_code == 403
    assert alone.get("/models", headers={**page, "X-Forwarded-Host": "evil.example"}).status_code == 200
