"""Endings: who waits for a job is woken by Redis' message that it has ended: no answer is late by half a look."""

import asyncio
import logging
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import redis.asyncio
from redis.exceptions import RedisError

from worker.queue import keys

log = logging.getLogger(__name__)

AWAY_SECONDS = 0.5  # between two attempts to listen
LOOK_SECONDS = 1.0  # between two looks at whether the connection is sound
LATELY = 1000  # jobs that have ended, of which is known for a moment that they have


class Endings:
    """Heard by a task of its own, with a connection of its own.

    A message may be lost, with a connection say: so those who wait look by themselves too, but seldom while `heard`.

    Args:
        connection: which nobody else uses.
    """

    def __init__(self, connection: redis.asyncio.Redis) -> None:
        self.connection = connection
        self.heard = False  # whether messages come
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._lately: OrderedDict[str, None] = OrderedDict()
        self.closed = False  # whether nobody is to wait any more

    @contextmanager
    def of(self, job_id: str) -> Iterator[asyncio.Event]:
        """What is set once a job has ended, while it is waited for; one that was accepted just now may have already."""
        ended = asyncio.Event()
        if job_id in self._lately:
            ended.set()
        self._waiting[job_id].add(ended)
        try:
            yield ended
        finally:
            self._waiting[job_id].discard(ended)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    async def listen(self) -> None:
        """Hears of all jobs until it is cancelled, whatever happens to Redis."""
        try:
            while True:
                try:
                    await self._listen()
                except (RedisError, OSError) as error:
                    log.debug("no messages for now: %s", error)
                    await asyncio.sleep(AWAY_SECONDS)
                finally:
                    self.heard = False
        finally:
            await self.connection.aclose()

    def close(self) -> None:
        """Wakes all who wait, though their jobs have not ended, and lets nobody wait any more."""
        self.closed = True
        for waiting in self._waiting.values():
            for ended in waiting:
                ended.set()

    async def _listen(self) -> None:
        async with self.connection.pubsub() as messages:
            await messages.subscribe(keys.ENDED)
            while True:
                message = await messages.get_message(timeout=LOOK_SECONDS)
                if message is None:
                    continue
                self.heard = True  # the first says that we are listened to
                if message["type"] == "message":
                    self._hear(message["data"].decode())

    def _hear(self, job_id: str) -> None:
        self._lately[job_id] = None
        if len(self._lately) > LATELY:
            self._lately.popitem(last=False)
        for ended in self._waiting.get(job_id, ()):
            ended.set()
