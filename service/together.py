"""Together: commands of many requests to Redis, sent at once, since a round trip costs more than what it asks."""

import asyncio
from functools import lru_cache
from hashlib import sha1
from typing import Any

import redis.asyncio
from redis.exceptions import NoScriptError

Command = tuple[Any, ...]
PIPELINES = 2  # that are on their way: while Redis works on one, the next is made
REQUESTS = 8  # whose commands are in one, at most: all of its answers come at its end


class Together:
    """Sends what requests ask of Redis in few pipelines; what comes while they are on their way goes with the next.

    Args:
        connection: whose timeout bounds the wait of all.
    """

    def __init__(self, connection: redis.asyncio.Redis) -> None:
        self.connection = connection
        self._waiting: list[tuple[tuple[Command, ...], asyncio.Future[list[Any]]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending = 0

    async def execute(self, *commands: Command) -> list[Any]:
        """The answers to some commands, sent one after another.

        Raises:
            RedisError: Redis does not answer, or refuses one of them; the others were carried out.
        """
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((commands, future))
        if self._sending < PIPELINES:
            self._sending += 1
            task = asyncio.create_task(self._send())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def script(self, text: str, keys: int, *arguments: Any) -> Any:
        """What a script answers. Its text is sent only where Redis does not know it yet.

        Raises:
            RedisError: as `execute`.
        """
        try:
            (answer,) = await self.execute(("EVALSHA", _sha1(text), keys, *arguments))
        except NoScriptError:
            (answer,) = await self.execute(("EVAL", text, keys, *arguments))
        return answer

    async def _send(self) -> None:
        while self._waiting:
            sent, self._waiting = self._waiting[:REQUESTS], self._waiting[REQUESTS:]
            try:
                answers = iter(await self._answers([command for commands, _ in sent for command in commands]))
            except Exception as error:
                # Who has come meanwhile has waited as well, for a Redis that does not answer.
                sent, self._waiting = sent + self._waiting, []
                for _, future in sent:
                    if not future.done():
                        future.set_exception(error)
                continue
            for commands, future in sent:
                own = [next(answers) for _ in commands]
                refused = next((answer for answer in own if isinstance(answer, Exception)), None)
                if future.done():  # the client has gone
                    continue
                if refused is None:
                    future.set_result(own)
                else:
                    future.set_exception(refused)
        self._sending -= 1

    async def _answers(self, commands: list[Command]) -> list[Any]:
        async with self.connection.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return await pipeline.execute(raise_on_error=False)


@lru_cache
def _sha1(script: str) -> str:
    return sha1(script.encode()).hexdigest()  # noqa: S324  what Redis names scripts by
