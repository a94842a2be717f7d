"""Pulse: whether Redis answers and takes writes, felt all the time: while not, each request is told so at once."""

import asyncio
import functools
import inspect
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

BEAT_SECONDS = 0.25  # between two looks
MISSED = 2  # looks in a row that were not answered in time, after which Redis is taken for silent


class Pulse:
    """Felt by a task of its own, with a connection of its own.

    Without it a Redis that takes connections and never answers would hold each request, and the threads that requests
    share, for as long as a command may take; those that have no need of Redis would wait behind them. And after a
    failover behind the same address, connections would stay with a server that is a replica now and refuses writes:
    all that were made before are made anew.

    Args:
        connection: which nobody else uses.
    """

    def __init__(self, connection: redis.asyncio.Redis) -> None:
        self.connection, self.beats = connection, True
        self._why = ""  # it does not
        self._moves = 0  # how often what answered was a replica
        self._moving = False  # whether what answered last was one
        self._held: list[Any] = []
        self._stop = asyncio.Event()

    async def feel(self) -> None:
        """Looks until `stop` is called."""
        missed = 0
        while not self._stop.is_set():
            try:
                if await self._takes_writes():
                    if self._moving:  # who listened anew in the meantime may have come to the replica once more
                        self._moving = False
                        await self._let_go(self._held)
                    self.beats, missed = True, 0
                else:
                    await self._move()
            except RedisTimeoutError:  # once may be a busy machine
                missed += 1
                if missed >= MISSED:
                    self._miss("Redis does not answer")
            except (RedisError, OSError):
                self._miss("Redis does not answer")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), BEAT_SECONDS)
        await self.connection.aclose()

    def stop(self) -> None:
        """Ends `feel`, once the look that it takes is over."""
        self._stop.set()

    def guard(self, pool: Any) -> None:
        """Makes a pool, of redis or of redis.asyncio, raise a ConnectionError while Redis does not answer.

        A connection that was made to what is a replica by now is made anew before it is used.
        """
        take = pool.get_connection

        def stale(connection: Any) -> bool:
            made, connection.made_after = getattr(connection, "made_after", self._moves), self._moves
            return bool(made != self._moves)

        @functools.wraps(take)
        def guarded(*arguments: Any, **options: Any) -> Any:
            self._check()
            connection = take(*arguments, **options)
            if stale(connection):
                connection.disconnect()
            return connection

        @functools.wraps(take)
        async def guarded_async(*arguments: Any, **options: Any) -> Any:
            self._check()
            connection = await take(*arguments, **options)
            if stale(connection):
                await connection.disconnect()
            return connection

        pool.get_connection = guarded_async if inspect.iscoroutinefunction(take) else guarded

    def release(self, pool: Any) -> None:
        """Closes what is held of a pool of redis.asyncio, by who listens on it, once that is a replica."""
        self._held.append(pool)

    def _check(self) -> None:
        if not self.beats:
            raise RedisConnectionError(self._why)

    def _miss(self, why: str) -> None:
        self.beats, self._why = False, why

    async def _takes_writes(self) -> bool:
        try:
            said: Any = await self.connection.info("replication")
        except NoPermissionError:  # a user of Redis that may do less than ours: whether it answers is all that is known
            return bool(await self.connection.ping())
        return bool(said["role"] == "master")

    async def _move(self) -> None:
        """Whoever is the master now is asked for by the address anew."""
        self._miss("Redis is a replica, and takes no writes")
        self._moves += 1
        self._moving = True
        await self._let_go([self.connection.connection_pool, *self._held])

    async def _let_go(self, pools: Sequence[Any]) -> None:
        for pool in pools:
            await pool.disconnect(inuse_connections=True)
