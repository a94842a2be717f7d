"""Addresses that the service may call for a client: public ones, and those of networks that the operator allows.

A name is resolved once, and what is connected to is the address that was checked: so a name that answers something else
the second time gains nothing.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Sequence
from concurrent.futures import Executor

import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST_URL = 2048
LONGEST_NAME, LONGEST_LABEL = 253, 63  # of a host, and between its dots: RFC 1035
_PORTS = {80, 443}  # below 1024; others there are those of mail, files and the like

# What is not somebody's public host: IANA's special-purpose registries (RFC 6890), multicast, and the address under
# which Azure's virtual machines find the services of their host.
_PRIVATE_4 = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
        "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
    )
]  # fmt: skip
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
_PRIVATE_6 = [ipaddress.IPv6Network(n) for n in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Refused(ValueError):
    """The service does not call this address."""


def parse_networks(text: str) -> list[Network]:
    """Networks with commas between them, such as `10.0.0.0/8,fd00::/8`.

    Raises:
        ValueError: one is none.
    """
    return [ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip()]


def check_url(text: str, networks: Sequence[Network]) -> httpx.URL:
    """A URL that may be called, as far as can be told without resolving its name.

    Raises:
        Refused: it may not.
    """
    try:
        url = httpx.URL(text)
        port = url.port
        name = url.raw_host.decode("ascii")
        _ = url.host  # which is no name where its international letters cannot be read
    except (httpx.InvalidURL, ValueError) as error:
        raise Refused(f"this is no URL: {error}") from error
    if len(text) > LONGEST_URL:
        raise Refused(f"it is longer than {LONGEST_URL} characters")
    if url.scheme != "https" and not (url.scheme == "http" and networks):
        raise Refused(f"its scheme is {url.scheme or 'missing'}, not https")
    if not name:
        raise Refused("it names no host")
    if url.userinfo or url.fragment:
        raise Refused("it has a user, a password or a fragment")
    if port is not None and port not in _PORTS and not 1024 <= port <= 65535:
        raise Refused(f"its port is {port}, not 80, 443, or 1024 to 65535")
    if name == "localhost" or name.endswith(".localhost"):
        check_address(ipaddress.IPv4Address("127.0.0.1"), url.scheme, networks)
    elif (address := _literal(name)) is not None:
        check_address(address, url.scheme, networks)
    return url


def check_address(address: Address, scheme: str, networks: Sequence[Network]) -> None:
    """Whether an address may be called.

    Args:
        address: that would be connected to.
        scheme: `http`, which only allowed networks may be called by, or `https`.
        networks: that the operator allows.

    Raises:
        Refused: it may not.
    """
    plain = _embedded(address)
    if any(plain in network for network in networks):
        return
    if scheme != "https":
        raise Refused(f"{address} is called by https only")
    if isinstance(plain, ipaddress.IPv4Address):
        private = any(plain in network for network in _PRIVATE_4)
    else:
        private = plain not in _PUBLIC_6 or any(plain in network for network in _PRIVATE_6)
    if private:
        raise Refused(f"{address} is not a public address")


async def resolve(url: httpx.URL, networks: Sequence[Network], executor: Executor) -> list[Address]:
    """The addresses of a URL's host, every one of which may be called, best first.

    Args:
        url: as `check_url` returns it.
        networks: that the operator allows.
        executor: threads that may be blocked by a slow name server.

    Raises:
        Refused: one of them may not be called.
        OSError: the name has no address.
    """
    found = await asyncio.get_running_loop().run_in_executor(
        executor, lambda: socket.getaddrinfo(url.raw_host.decode("ascii").strip("[]"), None, type=socket.SOCK_STREAM)
    )
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    for address in addresses:
        check_address(address, url.scheme, networks)
    return list(dict.fromkeys(addresses))


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, if it stands for one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _literal(name: str) -> Address | None:
    """The address that a host is, if it is no name. Numbers that only some programs read as an address are refused."""
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError as error:
        last = name.rstrip(".").rpartition(".")[2]
        if ":" in name or re.fullmatch(r"[0-9]+|0[xX][0-9a-fA-F]*", last):
            raise Refused(f"{name} is neither a name nor an address") from error
        if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?", name):
            raise Refused(f"{name} is no name of a host") from error
        if len(name.rstrip(".")) > LONGEST_NAME or max(map(len, name.split("."))) > LONGEST_LABEL:
            allowed = f"at most {LONGEST_NAME} characters, {LONGEST_LABEL} between dots"
            raise Refused(f"its host has a name that is too long: {allowed}") from error
        return None
