"""Who asks, and which jobs it may see.

With keys, the client is the key; in a service without keys, what it calls itself, or its address.
"""

import asyncio
import re
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from redis.exceptions import RedisError

from service.access.keys import CLOSED, KEEP_SECONDS, KEYS, OPEN, STATE, USED, Key, parse, sha256, split
from service.answering.problems import FieldError, Problem, invalid
from service.settings import ServiceSettings
from service.together import Together
from worker.queue.job import Job, JobNotFound
from worker.queue.offer import Limits
from worker.queue.priority import Priority
from worker.queue.scripts import load

CLIENT = r"^[A-Za-z0-9._@:-]{1,64}$"
PUBLIC = {"/", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/favicon.ico"}
PUBLIC_ROOMS = ("/problems", "/static")
LOOKS = {"GET", "HEAD", "OPTIONS"}  # methods that change nothing
MOST_KEPT = 10_000  # keys that are remembered
NOTE_SECONDS = 60.0  # between two times that a service writes down that a key is used
NOTE = load(Path(__file__).with_name("used.lua"))


@dataclass(frozen=True)
class Caller:
    """Who made a request, and what it may have.

    Args:
        client: whose its jobs are, as JobQueue has it.
        limits: on what is in flight.
        requests_per_minute: None for no limit.
        key: that it has shown, so that it sees its own jobs only; None in a service without keys.
    """

    client: str
    limits: Limits
    requests_per_minute: int | None
    key: Key | None = None

    def owns(self, job: Job) -> bool:
        """Whether it may see and cancel the job. Without keys, whoever knows the id of a job may."""
        return self.key is None or job.client == self.client

    def own(self, job: Job) -> Job:
        """The job, if the caller owns it.

        Raises:
            JobNotFound: another's job is answered like one that does not exist.
        """
        if not self.owns(job):
            raise JobNotFound(job.id)
        return job

    def check(self, model: str, priority: Priority) -> None:
        """Whether it may have images of a model, so urgently.

        Raises:
            Problem: its key does not reach so far.
        """
        key = self.key
        if key is None:
            return
        if key.models is not None and model not in key.models:
            allowed = ", ".join(key.models) or "none at all"
            raise _forbidden("/model", f"this key may not ask for the model {model}", allowed)
        if priority.rank < key.priority.rank:
            allowed = ", ".join(one for one in Priority if one.rank >= key.priority.rank)
            raise _forbidden("/priority", f"this key may not ask for the priority {priority}", allowed)


@dataclass
class _Kept:
    """A key as it was read at a time of the monotonic clock, its caller, and when its use was written down."""

    key: Key
    caller: Caller
    at: float
    noted_at: float


class Auth:
    """Tells callers by their requests.

    A key is read by its id, so that a wrong one costs no more than a right one. Once there was a key the service stays
    closed, until an operator opens it: where the keys are gone, as in a Redis that is fresh or was restored from an old
    back-up, nobody is let in for that.

    Args:
        settings: whether a key is needed, and the limits of those whose key has none of its own.
        redis: where the keys are.
    """

    def __init__(self, settings: ServiceSettings, redis: Together) -> None:
        self.settings, self.redis = settings, redis
        self._kept: OrderedDict[str, _Kept] = OrderedDict()  # by id, those used last at the end
        self._closed: bool | None = None  # as was read last
        self._closed_at = 0.0
        self._reading: dict[str | None, asyncio.Task[_Kept | None]] = {}  # by the id of a key

    async def caller(self, request: Request) -> Caller:
        """Who makes the request.

        Raises:
            Problem: it needs a key and has none, has one that may not do this, or calls itself by an impossible name.
            RedisError: the key cannot be read.
        """
        authorization = request.headers.get("authorization", "")
        scheme, _, presented = authorization.partition(" ")
        found = split(presented.strip()) if scheme.lower() == "bearer" else None
        kept = None if found is None else await self._key(found[0])
        operators = of_operators(request.scope["path"])
        if kept is None:
            if not operators and not await self._needs_key():
                return self._caller(_named(request), None)
            if found is None and scheme.lower() != "bearer":
                raise _unauthorized("this needs a key, and the request has none", "")
            sha256(found[1] if found else "")  # so that the time tells no ids
        if kept is None or found is None or not kept.key.opens(found[1]):
            raise _unauthorized("there is no such key; it may have been revoked", ', error="invalid_token"')
        if closed := kept.key.closed:
            raise _unauthorized(closed, ', error="invalid_token"')
        if kept.key.read_only and request.method not in LOOKS:
            raise Problem("forbidden", f"this key may look only, and {request.method} changes something")
        if operators and not kept.key.operator:
            raise Problem("forbidden", "this needs the key of an operator: `scoreserve keys create NAME --operator`")
        await self._note(kept)
        return kept.caller

    async def stands(self, caller: Caller) -> bool:
        """Whether a caller who was let in would be again; while Redis is away it would."""
        try:
            if caller.key is None:
                return not await self._needs_key()
            kept = await self._key(caller.key.id)
        except RedisError:
            return True
        return kept is not None and kept.key.closed is None

    async def _note(self, kept: _Kept) -> None:
        """Writes down that a key is used, at most once a minute; where Redis is away or full that is left out."""
        now = time.monotonic()
        if now - kept.noted_at >= NOTE_SECONDS:
            kept.noted_at = now
            with suppress(RedisError):
                await self.redis.script(NOTE, 2, KEYS, USED, kept.key.id, round(time.time()))

    async def _needs_key(self) -> bool:
        """Whether who has no key is refused. While Redis is away it is as it was."""
        if self.settings.require_key:
            return True
        if self._closed is None:
            await self._read(None)
        elif time.monotonic() - self._closed_at > KEEP_SECONDS:
            try:
                await self._read(None)
            except RedisError:
                self._closed_at = time.monotonic()  # it is not asked for each request
        return bool(self._closed)

    async def _key(self, key_id: str) -> _Kept | None:
        """A key. While Redis is away those that were known stay known."""
        kept = self._kept.get(key_id)
        if kept is None:
            return await self._read(key_id)
        if time.monotonic() - kept.at > KEEP_SECONDS:
            try:
                return await self._read(key_id)
            except RedisError:
                kept.at = time.monotonic()
        return kept

    async def _read(self, key_id: str | None) -> _Kept | None:
        """Reads whether there are keys or were, and one of them; of many who ask at once one reads, and all wait."""
        reading = self._reading.get(key_id)
        if reading is None:
            reading = self._reading[key_id] = asyncio.create_task(self._answer(key_id))
            reading.add_done_callback(lambda _: self._reading.pop(key_id))
        return await asyncio.shield(reading)  # who goes away ends it for nobody else

    async def _answer(self, key_id: str | None) -> _Kept | None:
        """What Redis has, as it is from now on known."""
        at = time.monotonic()
        asked: list[tuple[Any, ...]] = [("EXISTS", KEYS), ("GET", STATE)]
        there, state, *stored = await self.redis.execute(*asked, *([("HGET", KEYS, key_id)] if key_id else []))
        told = {CLOSED.encode(): True, OPEN.encode(): False}.get(state, bool(self._closed))
        self._closed, self._closed_at = bool(there) or told, at
        if key_id is None:
            return None
        key = None if stored[0] is None else parse(key_id, stored[0])
        if key is None:
            self._kept.pop(key_id, None)
            return None
        before = self._kept.get(key_id)
        noted_at = before.noted_at if before else -NOTE_SECONDS
        kept = self._kept[key_id] = _Kept(key, self._caller(key.client, key), at, noted_at)
        self._kept.move_to_end(key_id)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return kept

    def _caller(self, client: str, key: Key | None) -> Caller:
        settings = self.settings
        image_steps = (key and key.image_steps) or settings.max_client_image_steps
        return Caller(
            client,
            Limits(
                image_steps,
                settings.max_queue_image_steps,
                settings.max_queue_jobs,
                settings.max_client_bytes,
            ),
            (key and key.requests_per_minute) or settings.requests_per_minute,
            key,
        )


def public(path: str) -> bool:
    """Whether a path is open to all, key or none."""
    return path in PUBLIC or any(path == room or path.startswith(f"{room}/") for room in PUBLIC_ROOMS)


def of_operators(path: str) -> bool:
    """Whether a path is for who has an operator's key, and nobody else."""
    return path == "/operator" or path.startswith("/operator/")


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


def _forbidden(pointer: str, reason: str, allowed: str) -> Problem:
    return Problem("forbidden", f"{pointer}: {reason}", [FieldError(pointer=pointer, reason=reason, allowed=allowed)])


def caller_of(request: Request) -> Caller:
    """Who made a request, as `Auth` has found."""
    found: Caller = request.scope["caller"]
    return found


async def _caller(request: Request) -> Caller:
    return caller_of(request)


InCaller = Annotated[Caller, Depends(_caller)]
