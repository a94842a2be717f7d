"""What both clients need of httpx: options, and a request for a call."""

from typing import Any

import httpx

from scoreserve.calls import Call
from scoreserve.errors import Unreachable


def options(server: str, api_key: str | None, client_id: str | None, timeout: float) -> dict[str, Any]:
    """Arguments of httpx.Client and httpx.AsyncClient.

    Raises:
        Unreachable: `server` is no address.
    """
    try:
        url = httpx.URL(server)
    except httpx.InvalidURL as error:
        raise Unreachable(f"no service at {server} ({error})") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise Unreachable(f"no service at {server}: an address is such as http://127.0.0.1:8000")
    headers = {"User-Agent": "scoreserve-client"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    if client_id is not None:
        headers["Client-Id"] = client_id
    return {"base_url": url, "headers": headers, "timeout": httpx.Timeout(timeout, connect=min(5.0, timeout))}


def request(http: httpx.Client | httpx.AsyncClient, call: Call) -> httpx.Request:
    """The request of a call."""
    return http.build_request(
        call.method, call.path, params=call.parameters or None, json=call.body, headers=dict(call.headers)
    )
