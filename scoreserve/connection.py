"""What both clients need of httpx: a connection, and a request for a call."""

import os
from ipaddress import ip_address
from typing import Any, TypeVar

import httpx

from scoreserve import calls
from scoreserve.calls import Call
from scoreserve.errors import ScoreserveError, Unreachable, WrongArgument

H = TypeVar("H", httpx.Client, httpx.AsyncClient)
OF_ENVIRONMENT = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"}


def connect(
    kind: type[H], server: str, api_key: str | None, client_id: str | None, timeout: float | None, transport: Any
) -> H:
    """An httpx.Client or httpx.AsyncClient of a service.

    What listens on this machine is asked directly, anything else through the proxies that the environment names.

    Raises:
        Unreachable: `server` is no address, or something in the environment cannot be used.
        WrongArgument: another argument cannot be.
    """
    limit = calls.seconds("timeout", timeout)
    try:
        url = httpx.URL(server)
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise Unreachable(f"no service at {server} ({error})") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise Unreachable(f"no service at {server}: an address is such as http://127.0.0.1:8000")
    headers = {"User-Agent": "scoreserve-client"}
    if api_key is None:
        api_key = os.environ.get("SCORESERVE_API_KEY") or None
    if api_key is not None:
        headers["Authorization"] = f"Bearer {_header('api_key', api_key)}"
    if client_id is not None:
        headers["Client-Id"] = _header("client_id", client_id)
    try:
        if transport is None and _here(url.host):
            transport = httpx.HTTPTransport() if issubclass(kind, httpx.Client) else httpx.AsyncHTTPTransport()
        wait = httpx.Timeout(limit, connect=5.0 if limit is None else min(5.0, limit))
        return kind(base_url=url, headers=headers, timeout=wait, transport=transport)
    except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
        names = " or ".join(name for name in os.environ if name.upper() in OF_ENVIRONMENT and os.environ[name])
        raise Unreachable(f"no service at {server}: {names} in the environment cannot be used ({error})") from error


def _here(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def request(http: httpx.Client | httpx.AsyncClient, call: Call) -> httpx.Request:
    """The request of a call.

    Raises:
        ScoreserveError: it cannot be made of what was given, or the client is closed.
    """
    if http.is_closed:
        raise ScoreserveError("this client is closed: ask inside its `with`")
    headers = {name: _header(name, value) for name, value in call.headers.items()}
    try:
        return http.build_request(
            call.method, call.path, params=call.parameters or None, json=call.body, headers=headers
        )
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise WrongArgument(f"{call.method} {call.path} cannot be asked for: {error}") from error


def _header(name: str, value: Any) -> str:
    if not isinstance(value, str) or not (value.isascii() and value.isprintable() and value == value.strip()):
        shown = "not shown" if name == "api_key" else repr(value)
        raise WrongArgument(f"{name} is {shown}; printable ASCII is allowed, without space around it")
    return value
