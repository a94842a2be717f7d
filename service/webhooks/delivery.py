"""Webhooks: a client's URL is called once its job has ended. Signed as Standard Webhooks 1.0 has it.

What is due stands in Redis since the moment the job ended (`finish` in the queue's Lua), and is claimed with a lease:
so a call is made at least once, whoever dies, and by any of the services. It is made again with growing pauses until
the receiver answers with 2xx or 410, or the job is forgotten: what one service may not call by its settings, or has no
secret for, another may.
"""

import asyncio
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import redis.asyncio
from redis.exceptions import RedisError

from service.webhooks.addresses import Network, Refused, check_url, resolve
from service.webhooks.records import Seal, Sealed, Unreadable, Webhook
from service.webhooks.signatures import parse_secret, sign
from worker.queue import keys
from worker.queue.scripts import load

log = logging.getLogger(__name__)

CLAIM, AGAIN = (load(Path(__file__).with_name(f"{name}.lua")) for name in ("claim", "again"))

ATTEMPT_SECONDS = 15.0  # that a receiver has to answer
CONNECT_SECONDS = 5.0  # of them, for each of its addresses
LEASE_SECONDS = 30.0  # within which an attempt is made, else another service makes it
LOOK_SECONDS = 0.5  # between two looks for what is due
AWAY_SECONDS = 2.0  # between two tries to reach a Redis that is away
LOOKED_AT = 1000  # of what is due, at a time
PUT_OFF_SECONDS = 1.0  # what finds no slot of its client, or of its host
MOST_ADDRESSES = 4  # of a host that are tried
FIRST_PAUSE, PAUSE_FACTOR, LONGEST_PAUSE = 5.0, 3.0, 3600.0  # seconds between two attempts

Describe = Callable[[str], Awaitable[dict[str, Any] | None]]
Count = Callable[[str], None]


@dataclass(frozen=True)
class Slots:
    """How many attempts one service makes at once.

    Args:
        all: of all jobs.
        client: of one client's.
        host: to one host, whoever asked for them; so that one that never answers holds up its own.
    """

    all: int
    client: int
    host: int


class Webhooks:
    """Delivers what is due, with all other services of the same Redis.

    Args:
        connection: to Redis.
        describe: the body's `data` of a job by its id, and None if there is no such job any more.
        seal: that opens what is written down of a webhook.
        secrets: that are signed with where a job has no secret of its own.
        networks: private ones that may be called.
        slots: how many attempts at once.
        count: told the result of every attempt: delivered, failed, refused, gone or forgotten.
    """

    def __init__(
        self,
        connection: redis.asyncio.Redis,
        describe: Describe,
        seal: Seal,
        secrets: Sequence[bytes],
        networks: Sequence[Network],
        slots: Slots,
        count: Count,
    ) -> None:
        self.connection, self.describe, self.seal, self.secrets = connection, describe, seal, secrets
        self.networks, self.slots, self.count = networks, slots, count
        self._tasks: set[asyncio.Task[None]] = set()
        self._of_clients, self._of_hosts = Counter[str](), Counter[str]()  # under way
        self._resolver = ThreadPoolExecutor(slots.all, "resolver")  # one each: a name server may be slow on purpose
        self._http: httpx.AsyncClient | None = None
        self._away = False
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Delivers until it is stopped; what is under way then is due again when its lease is over."""
        try:
            while not self._stopped.is_set():
                try:
                    pause = await self._look()
                except Exception:  # of one delivery, which must not end all others
                    log.exception("webhooks could not be looked for")
                    pause = AWAY_SECONDS
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), pause)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._resolver.shutdown(wait=False, cancel_futures=True)
            if self._http is not None:
                await self._http.aclose()

    def stop(self) -> None:
        """Ends `run` soon; to cancel it would be to trust that nothing it waits for swallows that."""
        self._stopped.set()

    async def _look(self) -> float:
        """Begins what is due; returns after how many seconds to look again."""
        room = self.slots.all - len(self._tasks)
        if room <= 0:
            return LOOK_SECONDS
        try:
            busy = json.dumps(self._of_clients)
            options = LEASE_SECONDS, room, self.slots.client, LOOKED_AT, PUT_OFF_SECONDS
            claimed: Any = await self.connection.eval(CLAIM, 0, *map(str, options), busy)
        except (RedisError, OSError) as error:
            if not self._away:
                log.warning("webhooks wait: %s", error)
            self._away = True
            return AWAY_SECONDS
        self._away = False
        for job_id, webhook, attempt, client in claimed:
            if webhook is None:
                self.count("forgotten")
                continue
            task = asyncio.create_task(self._in_slot(job_id.decode(), webhook, int(attempt), client.decode()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return LOOK_SECONDS if len(claimed) < room else 0.0

    async def _in_slot(self, job_id: str, record: bytes, attempt: int, client: str) -> None:
        """One attempt, if the host has a slot for it; else it is put off, and was none."""
        host = self._host(record)
        if self._of_hosts[host] >= self.slots.host:
            with suppress(RedisError):  # else it is due again when its lease is over
                await self.connection.eval(AGAIN, 0, job_id, str(PUT_OFF_SECONDS), "1")
            return
        self._of_clients[client] += 1
        self._of_hosts[host] += 1
        try:
            await self._attempt(job_id, record, attempt)
        finally:
            for counter, name in ((self._of_clients, client), (self._of_hosts, host)):
                counter[name] -= 1
                if not counter[name]:
                    del counter[name]

    def _host(self, record: bytes) -> str:
        """Whom a webhook calls; nothing, where that cannot be read."""
        try:
            return httpx.URL(self.seal.open(record).url).host
        except (Unreadable, httpx.InvalidURL, ValueError):  # the last of what another release has taken for a name
            return ""

    async def _attempt(self, job_id: str, record: bytes, attempt: int) -> None:
        """One attempt, and what follows from it. A record that cannot be read harms no other's webhook."""
        pause: float | None = None
        none = False  # whether there was an attempt at all
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                data = await self.describe(job_id)
                if data is None:
                    result, said = "forgotten", "the job is forgotten"
                else:
                    webhook = self.seal.open(record)
                    result, said, pause = await self._post(job_id, webhook, data)
        except Refused as error:
            result, said = "refused", str(error)
        except Unreadable as error:
            result, said, none = "failed", str(error), isinstance(error, Sealed)
        except RedisError as error:
            log.warning("the webhook of job %s waits: %s", job_id, error, extra={"job": job_id})
            return
        except Exception as error:  # whatever a receiver makes of a client
            result, said = "failed", str(error) or type(error).__name__
        self.count(result)
        log.log(
            logging.INFO if result == "delivered" else logging.WARNING,
            "webhook of job %s, attempt %d: %s: %s", job_id, attempt, result, said, extra={"job": job_id},
        )  # fmt: skip
        try:
            if result in ("failed", "refused"):  # another service may be set up to do it
                seconds = max(pause or 0.0, _pause(1 if none else attempt))
                await self.connection.eval(AGAIN, 0, job_id, str(seconds), str(int(none)))
            else:
                await self.connection.zrem(keys.WEBHOOKS, job_id)
        except RedisError as error:
            log.warning("the webhook of job %s may come twice: %s", job_id, error, extra={"job": job_id})

    async def _post(self, job_id: str, webhook: Webhook, data: dict[str, Any]) -> tuple[str, str, float | None]:
        """Calls the URL; returns the result, what was said, and how long the receiver wants to be left alone."""
        url = check_url(webhook.url, self.networks)
        addresses = await resolve(url, self.networks, self._resolver)
        event = {"type": f"job.{data['state']}", "timestamp": data["ended_at"], "data": data}
        body = json.dumps(event, separators=(",", ":")).encode()
        secrets = [parse_secret(webhook.secret)] if webhook.secret else self.secrets
        if not secrets:
            raise ValueError("the service has no secret any more to sign with")
        message_id, timestamp = f"msg_{job_id}", int(time.time())
        headers = {
            "Host": url.netloc.decode("ascii"),
            "Content-Type": "application/json",
            "User-Agent": "scoreserve",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(secrets, message_id, timestamp, body),
        }
        name = url.raw_host.decode("ascii")
        self._http = http = self._http or _client()  # not before it is needed, since reading certificates takes time
        for number, address in enumerate(addresses[:MOST_ADDRESSES], 1):
            request = http.build_request(
                "POST",
                url.copy_with(host=str(address)),
                content=body,
                headers=headers,
                timeout=httpx.Timeout(ATTEMPT_SECONDS, connect=CONNECT_SECONDS),
                extensions={"sni_hostname": name},
            )
            try:
                response = await http.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if number == len(addresses[:MOST_ADDRESSES]):
                    raise
                continue
            await response.aclose()  # what it says besides its status is not read
            return _result(response)
        raise OSError("the name has no address")


def _client() -> httpx.AsyncClient:
    """Follows no redirect, takes no proxy from the environment, and uses no connection twice: the next call under the
    same address may be meant for another name."""
    transport = httpx.AsyncHTTPTransport(
        verify=httpx.create_ssl_context(),
        trust_env=False,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
    )
    return httpx.AsyncClient(transport=transport, trust_env=False, follow_redirects=False)


def _result(response: httpx.Response) -> tuple[str, str, float | None]:
    said = f"answered {response.status_code}"
    if response.is_success:
        return "delivered", said, None
    if response.status_code == 410:
        return "gone", said, None
    return "failed", said, _wish(response.headers.get("retry-after", "").strip())


def _wish(retry_after: str) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date; None if it is neither."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after), LONGEST_PAUSE)
    try:
        seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, seconds), LONGEST_PAUSE)


def _pause(attempt: int) -> float:
    """Seconds after attempt 1, 2, ... before the next: growing, and not quite the same for all."""
    return float(min(FIRST_PAUSE * PAUSE_FACTOR ** min(attempt - 1, 20), LONGEST_PAUSE) * random.uniform(0.9, 1.1))  # noqa: S311
