"""Keys and quotas over two API processes, asked by many clients at once."""

import asyncio
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.ports import free_port

CLIENTS = 50
JOB = 2 * 13  # image-steps of two images of `tiny`
QUOTA = 20 * JOB


@pytest.fixture
def addresses(start: Callable, service_url: str, until: Callable) -> list[str]:
    """Two API processes on one Redis."""
    found = []
    for _ in range(2):
        port = free_port()
        start("api", "--port", str(port), "--redis-url", service_url)
        found.append(f"http://127.0.0.1:{port}")
    until(lambda: all(_answers(address) for address in found))
    return found


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def _new_key(url: str, *options: str) -> dict[str, str]:
    command = [sys.executable, "-m", "cli.main", "keys", "create", "somebody", *options, "--redis-url", url]
    done = subprocess.run(command, capture_output=True, check=True)
    return {"Authorization": f"Bearer {done.stdout.decode().strip()}"}


async def _ask(address: str, headers: dict[str, str], times: int) -> list[httpx.Response]:
    """One client: it asks again and again over one connection."""
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=60) as client:
        return [await client.post("/samples", json={"count": 2}) for _ in range(times)]


def test_a_quota_holds_over_two_processes_and_fifty_clients(addresses: list[str], service_url: str) -> None:
    alice = _new_key(service_url, "--image-steps", str(QUOTA), "--requests-per-minute", "100000")
    bob = _new_key(service_url, "--requests-per-minute", "60")

    async def crowd(headers: dict[str, str]) -> list[httpx.Response]:
        asking = [_ask(addresses[i % 2], headers, 3) for i in range(CLIENTS)]
        return [answer for answers in await asyncio.gather(*asking) for answer in answers]

    answers = asyncio.run(crowd(alice))
    assert Counter(answer.status_code for answer in answers) == {202: 20, 429: 3 * CLIENTS - 20}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 429} == {"quota-exceeded"}
    jobs = [answer.json()["id"] for answer in answers if answer.status_code == 202]
    for address in addresses:
        assert httpx.get(f"{address}/jobs/{jobs[0]}", headers=alice).status_code == 200
        assert httpx.get(f"{address}/jobs/{jobs[0]}", headers=bob).status_code == 404
        assert httpx.delete(f"{address}/jobs/{jobs[0]}", headers=bob).status_code == 404
        assert httpx.get(f"{address}/jobs/{jobs[0]}").status_code == 401
    assert httpx.delete(f"{addresses[0]}/jobs/{jobs[0]}", headers=alice).status_code == 200
    answers = asyncio.run(crowd(alice))
    assert Counter(answer.status_code for answer in answers)[202] == 1, "as much as was cancelled"

    counts = Counter(answer.json().get("code") for answer in asyncio.run(crowd(bob)))
    accepted = counts[None] + 4  # those above
    assert 60 <= accepted <= 75, "60 at once, and one more each second"
    assert counts["rate-limited"] == 3 * CLIENTS - counts[None]


def test_what_a_command_says_of_keys_is_so_everywhere_when_it_ends(addresses: list[str], service_url: str) -> None:
    ended = threading.Event()

    def keep_asking(address: str) -> None:
        """So that what each process has read of the keys is as new as can be, and the old news last."""
        with httpx.Client(base_url=address) as client:
            while not ended.is_set():
                client.get("/jobs", headers=headers)
                time.sleep(0.01)

    headers: dict[str, str] = {}
    with ThreadPoolExecutor(2) as pool:
        try:
            asking = [pool.submit(keep_asking, address) for address in addresses]
            headers = _new_key(service_url)
            unknown = [httpx.get(f"{address}/jobs").status_code for address in addresses]
            known = [httpx.get(f"{address}/jobs", headers=headers).status_code for address in addresses]
            key_id = headers["Authorization"].split("_")[1]
            command = [sys.executable, "-m", "cli.main", "keys", "revoke", key_id, "--redis-url", service_url]
            _new_key(service_url)  # so that a key is still needed
            subprocess.run(command, capture_output=True, check=True)
            revoked = [httpx.get(f"{address}/jobs", headers=headers).status_code for address in addresses]
        finally:
            ended.set()
        for one in asking:
            one.result()
    assert (unknown, known, revoked) == ([401, 401], [200, 200], [401, 401])
