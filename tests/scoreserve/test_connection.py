"""What of the environment a client heeds: nothing where the service is on this machine."""

import os
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from scoreserve import AsyncClient, Client, Unreachable
from scoreserve.connection import OF_ENVIRONMENT

HERE = ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "http://a.localhost:1", "http://0.0.0.0:1"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    for name in list(os.environ):
        if name.upper() in OF_ENVIRONMENT:
            monkeypatch.delenv(name)
    return monkeypatch.setenv


def proxied(client: Client | AsyncClient, url: str) -> bool:
    """Whether a request goes through a proxy."""
    http: Any = client._http
    pool = http._transport_for_url(httpx.URL(url))._pool
    return "Proxy" in type(pool).__name__


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("server", HERE)
def test_this_machine_is_behind_no_proxy(kind: Any, server: str, environment: Callable[[str, str], None]) -> None:
    environment("all_proxy", "http://127.0.0.1:2")
    assert not proxied(kind(server), server)
    assert proxied(kind("http://service.example"), "http://service.example")
    environment("no_proxy", "10.0.0.1,service.example")
    assert not proxied(kind("http://service.example"), "http://service.example")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("all_proxy", "socks5://127.0.0.1:2"),
        ("HTTP_PROXY", "ftp://127.0.0.1:2"),
        ("https_proxy", "http://127.0.0.1:none"),
        ("NO_PROXY", "http://[fd00::"),
        ("SSL_CERT_FILE", "/nowhere"),
    ],
)
def test_what_cannot_be_used_is_named(name: str, value: str, environment: Callable[[str, str], None]) -> None:
    environment(name, value)
    with pytest.raises(Unreachable, match=f"no service at http://service.example: {name} in the environment cannot be"):
        Client("http://service.example")
    if name != "SSL_CERT_FILE":  # of which TLS has need here as well
        Client(HERE[0]).close()
