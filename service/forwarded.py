"""What a proxy says of a request: whose it is, how it came, and below which path it has this service."""

from typing import Any

from starlette.responses import RedirectResponse
from starlette.types import Message, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.access.origins import FORWARDED
from service.answering.addresses import PREFIX, parse_prefix
from service.settings import ServiceSettings


class ForwardedMiddleware(ProxyHeadersMiddleware):
    """Takes `X-Forwarded-For`, `-Host`, `-Proto` and `-Prefix` from trusted proxies, and makes addresses of theirs.

    The rest of the application knows paths without the prefix, whether or not the proxy takes it away.

    Args:
        app: the application.
        settings: which proxies are trusted, and a prefix that holds in place of the header.
    """

    def __init__(self, app: Any, settings: ServiceSettings) -> None:
        super().__init__(app, settings.forwarded_allow_ips)
        self.prefix = settings.root_path

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        client = scope.get("client")
        trusted = (client[0] if client else None) in self.trusted_hosts
        if trusted and (host := _first(scope, b"x-forwarded-host")) is not None:
            scope = {**scope, FORWARDED: host.partition(",")[0].strip()}  # of several, the client's
        prefix = self.prefix or (_prefix(scope) if trusted else "")
        PREFIX.set(prefix)
        if prefix and scope["path"] == prefix:  # relative addresses of the page need the slash
            query = scope["query_string"].decode("latin-1")
            await RedirectResponse(f"{prefix}/{query and '?'}{query}", 308)(scope, receive, send)
            return
        if prefix and scope["path"].startswith(f"{prefix}/"):
            scope = {**scope, "path": scope["path"].removeprefix(prefix)}
        await super().__call__(scope, receive, _relocating(scope, send, prefix))


def _first(scope: Scope, header: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == header), None)


def _prefix(scope: Scope) -> str:
    try:
        return parse_prefix(_first(scope, b"x-forwarded-prefix") or "")
    except ValueError:
        return ""


def _relocating(scope: Scope, send: Send, prefix: str) -> Any:
    """Sends on; what is moved within this service is named by its path, so that scheme and host stay as they are."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]

    async def relocate(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [_header(*header) for header in message["headers"]]}
        await send(message)

    def _header(name: bytes, value: bytes) -> tuple[bytes, bytes]:
        if name.lower() == b"location":
            for host in hosts:
                value = value.removeprefix(b"http://" + host).removeprefix(b"https://" + host)
            if value.startswith(b"/"):
                value = prefix.encode() + value
        return name, value

    return relocate
