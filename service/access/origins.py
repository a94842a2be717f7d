"""Which web pages a service may be asked from, and by which names it goes.

A browser sends what any page tells it to, to any address that it can reach: one on loopback too. It lets a page read
answers of its own origin alone, and says which origin a page is of that changes something. What is left is a page whose
name leads to this service once the browser has it (DNS rebinding), and which is of the same origin then: so a service
answers only by names that are its own. An address is nobody's name, and cannot be led elsewhere.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address

from fastapi import Request

from models.sentences import shortened
from service.access.auth import LOOKS
from service.answering.problems import Problem
from service.settings import ServiceSettings

ANY = "*"
FORWARDED = "forwarded_host"  # in the scope: the name that a trusted proxy was asked by
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_PORTS = {"http": ":80", "https": ":443"}  # that addresses leave out
_MOST_KNOWN = 1000  # Host headers that were looked at and let in


class Origins:
    """Refuses what a browser must not have sent.

    Args:
        settings: the names that the service goes by besides localhost, and the origins whose pages may ask.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.names = [*settings.hosts, *_names(settings.host)]
        self.origins = set(settings.origins)
        self._known: set[str] = set()

    def check(self, request: Request) -> None:
        """Whether the request may be carried out, as far as it shows where it comes from.

        Raises:
            Problem: it is for another host, or changes something and is a page's of another origin.
        """
        told = [request.headers.get("host"), request.scope.get(FORWARDED)]
        hosts = [host for host in told if host is not None]  # what has none is no browser
        for host in hosts:
            self._check_host(host)
        if request.method not in LOOKS:
            self._check_origin(request, hosts)

    def _check_host(self, host: str) -> None:
        if host in self._known:
            return
        if not self._goes_by(host):
            allowed = ", ".join(["localhost", "addresses such as 127.0.0.1", *self.names])
            what = f"this service does not go by the name {shortened(host)!r}: it does by {allowed}"
            raise Problem("misdirected", f"{what}; SCORESERVE_ALLOWED_HOSTS names others")
        if len(self._known) < _MOST_KNOWN:
            self._known.add(host)

    def _goes_by(self, host: str) -> bool:
        parts = _HOST.fullmatch(host)
        if parts is None:
            return ANY in self.names
        name = parts["name"].lower().removesuffix(".")
        with suppress(ValueError):
            ip_address(name.strip("[]"))
            return True
        return any(_matches(name, allowed) for allowed in ("localhost", ".localhost", *self.names))

    def _check_origin(self, request: Request, hosts: Sequence[str]) -> None:
        """By Sec-Fetch-Site, which browsers send by https and to loopback; elsewhere by the Origin alone."""
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        if origin is not None and not self.origins.isdisjoint({origin, ANY}):
            return
        own = site in ("same-origin", "none") or (site is None and (origin is None or _of(origin, hosts)))
        if not own:
            allowed = ", ".join(["those of this service", *sorted(self.origins)])
            what = f"a page of {shortened(origin or 'another site')} may not ask for this: pages may, {allowed}"
            raise Problem("another-origin", f"{what}; SCORESERVE_CORS_ORIGINS names others")


def _names(host: str) -> list[str]:
    """The name that a service listens by, if it is told one."""
    with suppress(ValueError):
        ip_address(host)
        return []
    return [host.lower()] if host and host != "localhost" else []


def _matches(name: str, allowed: str) -> bool:
    return allowed in (ANY, name) or (allowed.startswith(".") and name.endswith(allowed))


def _of(origin: str, hosts: Sequence[str]) -> bool:
    """Whether an origin is that of one of the hosts; by whichever scheme, which a proxy may have changed."""
    scheme, _, place = origin.lower().partition("://")
    return any(host.lower().removesuffix(_PORTS.get(scheme, "")) == place for host in hosts)
