"""What a proxy says of a request: whose it is, whether it came by https, and below which path it has this service."""

from typing import Any

from starlette.responses import RedirectResponse
from starlette.types import Message, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.answering.addresses import PREFIX, parse_prefix
from service.settings import ServiceSettings


class ForwardedMiddleware(ProxyHeadersMiddleware):
    """Takes `X-Forwarded-For`, `-Proto` and `-Prefix` from proxies that are trusted, and makes addresses of theirs.

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
        prefix = self.prefix or self._forwarded(scope)
        PREFIX.set(prefix)
        if prefix and scope["path"] == prefix:  # relative addresses of the page need the slash
            query = scope["query_string"].decode("latin-1")
            await RedirectResponse(f"{prefix}/{query and '?'}{query}", 308)(scope, receive, send)
            return
        if prefix and scope["path"].startswith(f"{prefix}/"):
            scope = {**scope, "path": scope["path"].removeprefix(prefix)}
        await super().__call__(scope, receive, _relocating(scope, send, prefix))

    def _forwarded(self, scope: Scope) -> str:
        client = scope.get("client")
        if (client[0] if client else None) not in self.trusted_hosts:
            return ""
        said = next((value for name, value in scope["headers"] if name == b"x-forwarded-prefix"), b"")
        try:
            return parse_prefix(said.decode("latin-1"))
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
