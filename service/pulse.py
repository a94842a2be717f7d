"""Pulse: whether Redis answers, felt all the time, so that while it does not each request is told so at once."""

import asyncio
import functools
from contextlib import suppress
from typing import Any

import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

BEAT_SECONDS = 0.25  # between two looks
MISSED = 2  # looks in a row that were not answered in time, after which Redis is taken for silent


class Pulse:
    """Felt by a task of its own, with a connection of its own.

    Without it a Redis that takes connections and never answers would hold each request, and the threads that requests
    share, for as long as a command may take; those that have no need of Redis would wait behind them.

    Args:
        connection: which nobody else uses.
    """

    def __init__(self, connection: redis.asyncio.Redis) -> None:
        self.connection, self.beats = connection, True
        self._stop = asyncio.Event()

    async def feel(self) -> None:
        """Looks until `stop` is called."""
        missed = 0
        while not self._stop.is_set():
            try:
                await self.connection.ping()
                self.beats, missed = True, 0
            except RedisTimeoutError:  # once may be a busy machine
                missed += 1
                self.beats = self.beats and missed < MISSED
            except (RedisError, OSError):
                self.beats = False
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), BEAT_SECONDS)
        await self.connection.aclose()

    def stop(self) -> None:
        """Ends `feel`, once the look that it takes is over."""
        self._stop.set()

    def guard(self, pool: Any) -> None:
        """Makes a pool, of redis or of redis.asyncio, raise a ConnectionError while Redis does not answer."""
        take = pool.get_connection

        @functools.wraps(take)
        def guarded(*arguments: Any, **options: Any) -> Any:
            if not self.beats:
                raise RedisConnectionError("Redis does not answer")
            return take(*arguments, **options)

        pool.get_connection = guarded
