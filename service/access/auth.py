"""Who asks, and which jobs it may see.

With keys, the client is the key; in a service without keys, what it calls itself, or its address.
"""

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

import redis.asyncio
from fastapi import Depends, Request
from redis.exceptions import RedisError

from service.access.keys import KEEP_SECONDS, KEYS, Key, matching, parse
from service.answering.problems import Problem, invalid
from service.settings import ServiceSettings
from worker.queue.job import Job, JobNotFound
from worker.queue.offer import Limits

CLIENT = r"^[A-Za-z0-9._@:-]{1,64}$"
PUBLIC = {"/", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/favicon.ico"}
PUBLIC_ROOMS = ("/problems", "/static")


@dataclass(frozen=True)
class Caller:
    """Who made a request, and what it may have.

    Args:
        client: whose its jobs are, as JobQueue has it.
        limits: on what is in flight.
        requests_per_minute: None for no limit.
        by_key: whether it has shown a key, so that it sees its own jobs only.
    """

    client: str
    limits: Limits
    requests_per_minute: int | None
    by_key: bool = False

    def owns(self, job: Job) -> bool:
        """Whether it may see and cancel the job. Without keys, whoever knows the id of a job may."""
        return not self.by_key or job.client == self.client

    def own(self, job: Job) -> Job:
        """The job, if the caller owns it.

        Raises:
            JobNotFound: another's job is answered like one that does not exist.
        """
        if not self.owns(job):
            raise JobNotFound(job.id)
        return job


class Auth:
    """Tells callers by their requests.

    Args:
        settings: whether a key is needed, and the limits of those whose key has none of its own.
        connection: where the keys are.
    """

    def __init__(self, settings: ServiceSettings, connection: redis.asyncio.Redis) -> None:
        self.settings, self.connection = settings, connection
        self._keys: dict[str, Key] | None = None
        self._read_at = 0.0

    async def caller(self, request: Request) -> Caller:
        """Who makes the request.

        Raises:
            Problem: it needs a key and has none, or calls itself by an impossible name.
            RedisError: the keys cannot be read.
        """
        keys = await self._known()
        if not keys and "authorization" in request.headers:
            keys = await self._read()  # the first one may have been made a moment ago
        if not keys and not self.settings.require_key:
            return self._caller(_named(request), None)
        scheme, _, presented = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise _unauthorized("this needs a key, and the request has none", "")
        key = matching(keys, presented.strip())
        if key is None:  # it may have been made a moment ago
            key = matching(await self._read(), presented.strip())
        if key is None:
            raise _unauthorized("there is no such key; it may have been revoked", ', error="invalid_token"')
        return self._caller(f"key/{key.id}", key)

    def _caller(self, client: str, key: Key | None) -> Caller:
        settings = self.settings
        image_steps = (key and key.image_steps) or settings.max_client_image_steps
        return Caller(
            client,
            Limits(image_steps, settings.max_queue_image_steps, settings.max_queue_jobs),
            (key and key.requests_per_minute) or settings.requests_per_minute,
            by_key=key is not None,
        )

    async def _known(self) -> dict[str, Key]:
        """The keys. While Redis is away those that were known stay known."""
        if self._keys is None:
            return await self._read()
        if time.monotonic() - self._read_at > KEEP_SECONDS:
            with suppress(RedisError):
                return await self._read()
        return self._keys

    async def _read(self) -> dict[str, Key]:
        self._read_at = time.monotonic()  # at once, so that of many requests one reads
        stored: Any = self.connection.hgetall(KEYS)
        self._keys = parse(await stored)
        return self._keys


def public(path: str) -> bool:
    """Whether a path is open to all, key or none."""
    return path in PUBLIC or any(path == room or path.startswith(f"{room}/") for room in PUBLIC_ROOMS)


def _named(request: Request) -> str:
    """What the request says, or its address; told apart, so that none passes for another's address."""
    named = request.headers.get("client-id")
    if named is None:
        return f"address/{request.client.host if request.client else 'unknown'}"
    if not re.fullmatch(CLIENT, named):
        raise invalid("Client-Id", "this is no name of a client", "1 to 64 letters, digits and any of . _ @ : -")
    return f"name/{named}"


def _unauthorized(detail: str, error: str) -> Problem:
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": f'Bearer realm="scoreserve"{error}'})


def caller_of(request: Request) -> Caller:
    """Who made a request, as `Auth` has found."""
    found: Caller = request.scope["caller"]
    return found


async def _caller(request: Request) -> Caller:
    return caller_of(request)


InCaller = Annotated[Caller, Depends(_caller)]
