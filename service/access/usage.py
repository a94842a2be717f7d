"""Usage: what each key has spent.

Jobs, images and image-steps are counted in Redis by the very scripts that accept a job, take its progress and store its
images: each once, though a worker dies or a request is sent again. Requests and bytes are counted here by each service,
and added every few seconds: one that is killed loses those of the last few.
"""

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field
from redis import Redis
from redis.exceptions import RedisError

from service.together import Together
from worker.queue import keys
from worker.queue.scripts import load

log = logging.getLogger(__name__)

SPENT = load(Path(__file__).with_name("spent.lua"))
ADD_SECONDS = 5.0  # between two times that a service adds what it has counted
FIELDS_AT_ONCE = 1000  # that one script adds


class Spent(BaseModel):
    """What a key has spent since it was made."""

    requests: int = Field(0, description="Answered, whatever the answer was.")
    jobs: int = Field(0, description="Accepted.")
    images: int = Field(0, description="Made.")
    image_steps: int = Field(0, description="Done for it, those of jobs that failed or were cancelled too.")
    bytes_received: int = Field(0, description="In bodies of requests.")
    bytes_sent: int = Field(0, description="In bodies of answers.")


class Usage:
    """Counts what requests take of one service.

    Args:
        redis: where all is added up.
    """

    def __init__(self, redis: Together) -> None:
        self.redis = redis
        self._counted: dict[str, int] = defaultdict(int)  # by field of what is spent, since it was added last
        self._sent: list[Any] = []  # fields and amounts that are added now, or were without an answer
        self._number = 1  # of what is sent
        self._service = secrets.token_hex(8)

    def count(self, key_id: str, bytes_received: int, bytes_sent: int) -> None:
        """Counts a request that was answered."""
        for name, amount in (("requests", 1), ("bytes_received", bytes_received), ("bytes_sent", bytes_sent)):
            if amount:
                self._counted[f"{key_id}:{name}"] += amount

    async def run(self) -> None:
        """Adds what was counted, every few seconds, and once more when it is cancelled."""
        away = False
        try:
            while True:
                await asyncio.sleep(ADD_SECONDS)
                try:
                    await self.add()
                    away = False
                except RedisError as error:
                    if not away:
                        log.warning("what keys spend waits to be added: %s", error)
                    away = True
        finally:
            with suppress(RedisError):
                await self.add()

    async def add(self) -> None:
        """Adds what was counted.

        Raises:
            RedisError: it waits; what was sent may have been added, and is not added twice.
        """
        while self._sent or self._counted:
            if not self._sent:
                some = list(self._counted)[:FIELDS_AT_ONCE]
                self._sent = [part for name in some for part in (name, self._counted.pop(name))]
            await self.redis.script(SPENT, 2, keys.SPENT, f"{keys.SPENT}:{self._service}", self._number, *self._sent)
            self._sent, self._number = [], self._number + 1


def spent(connection: Redis) -> Mapping[str, Spent]:
    """What each key has spent, by its id; those that were revoked too."""
    found: Any = connection.hgetall(keys.SPENT)
    by_key: dict[str, dict[str, int]] = defaultdict(dict)
    for field, amount in found.items():
        key_id, _, name = field.decode().partition(":")
        by_key[key_id][name] = int(amount)
    return {key_id: Spent(**amounts) for key_id, amounts in by_key.items()}
