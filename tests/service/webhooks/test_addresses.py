"""Which addresses are called for a client, and which are not."""

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from service.webhooks.addresses import Refused, check_address, check_url, parse_networks, resolve

PRIVATE = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.9.9.9", "168.63.129.16",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.168.1.1", "198.18.0.1", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b:1::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "fc00::1",
    "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "172.15.0.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_not_called_unless_its_network_is_allowed(address: str) -> None:
    found = ipaddress.ip_address(address)
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(Refused, match="not a public address"):
        check_address(found, "https", [])
    with pytest.raises(Refused, match="not a public address"):
        check_url(f"https://{host}/hook", [])
    check_address(found, "http", parse_networks("0.0.0.0/0, ::/0"))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_called_by_https_only(address: str) -> None:
    check_address(ipaddress.ip_address(address), "https", [])
    with pytest.raises(Refused, match="https only"):
        check_address(ipaddress.ip_address(address), "http", parse_networks("10.0.0.0/8"))


@pytest.mark.parametrize(
    "url",
    [
        "", "hook", "/hook", "https://", "http://example.com/", "ftp://example.com/", "file:///etc/passwd",
        "gopher://example.com/", "https://user:secret@example.com/", "https://example.com/#part",
        "https://example.com:22/", "https://example.com:0/", "https://example.com:99999/", "https://localhost/",
        "https://LOCALHOST:8443/", "https://a.localhost/", "https://2130706433/", "https://0x7f000001/",
        "https://127.1/", "https://0177.0.0.1/", "https://[::1]/", "https://example.com/" + "x" * 3000,
        "https://xn--/", "https://xn--a-.example/", "https://" + "a" * 64 + ".com/", "https://" + "a." * 127 + "com/",
        "https://127.0.0.1./", "https://[fe80::1%25eth0]/", "https://exa mple.com/", "https://\x00/",
    ],
)  # fmt: skip
def test_what_can_be_told_from_the_url_is_told_at_once(url: str) -> None:
    with pytest.raises(Refused):
        check_url(url, [])


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com:8443/a?b=c",
        "https://1.1.1.1/",
        "https://bücher.example/",
        "https://a.b",
    ],
)
def test_public_urls_may_be_called(url: str) -> None:
    assert check_url(url, []) == httpx.URL(url)


def test_allowed_networks_may_be_called_by_http() -> None:
    networks = parse_networks("10.0.0.0/8, 127.0.0.0/8")
    for url in ("http://10.0.0.1/", "http://127.0.0.1:9000/", "http://localhost:9000/", "http://inside.example/"):
        check_url(url, networks)
    with pytest.raises(Refused):
        check_url("http://192.168.0.1/", networks)


def found(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch, url: str = "https://example.com/", networks: str = ""
) -> Any:
    """What `resolve` makes of a name with these addresses."""

    def getaddrinfo(name: str, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, 1, 6, "", (a, 0)) for a in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with ThreadPoolExecutor() as executor:
        return asyncio.run(resolve(httpx.URL(url), parse_networks(networks), executor))


def test_every_address_of_a_name_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(map(str, found(["1.1.1.1", "2606:4700::1111", "1.1.1.1"], monkeypatch))) == [
        "1.1.1.1",
        "2606:4700::1111",
    ]
    for private in ("10.0.0.1", "fe80::1%eth0", "::ffff:127.0.0.1"):
        with pytest.raises(Refused):
            found(["1.1.1.1", private], monkeypatch)
    assert found(["10.0.0.1"], monkeypatch, "http://inside.example/", "10.0.0.0/8")
    with pytest.raises(Refused, match="https only"):
        found(["1.1.1.1"], monkeypatch, "http://outside.example/", "10.0.0.0/8")
