"""Commands of many requests that go to Redis together: each gets its own answer, and its own refusal."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import redis.asyncio
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.together import PIPELINES, REQUESTS, Together


@pytest.fixture
def run(redis_url: str) -> Callable[[Callable[[Together], Coroutine[Any, Any, Any]]], Any]:
    """Runs a coroutine function that takes a Together of the test's own Redis."""

    def start(body: Callable[[Together], Coroutine[Any, Any, Any]]) -> Any:
        async def inside() -> Any:
            async with redis.asyncio.Redis.from_url(redis_url) as connection:
                return await asyncio.wait_for(body(Together(connection)), 20)

        return asyncio.run(inside())

    return start


def count_round_trips(together: Together) -> list[int]:
    """How many commands each of the pipelines has that are sent from now on."""
    sizes: list[int] = []
    answers = together._answers

    async def counted(commands: Any) -> Any:
        sizes.append(len(commands))
        return await answers(commands)

    together._answers = counted  # type: ignore[method-assign]
    return sizes


def test_each_request_gets_its_own_answers_in_few_round_trips(run: Callable[..., Any]) -> None:
    async def body(together: Together) -> None:
        sizes = count_round_trips(together)
        first = [together.execute(("SET", f"k{i}", i), ("GET", f"k{i}")) for i in range(50)]
        assert await asyncio.gather(*first) == [[True, str(i).encode()] for i in range(50)]
        assert sum(sizes) == 100
        assert len(sizes) == -(-50 // REQUESTS)

    run(body)


def test_what_comes_while_redis_is_asked_goes_with_the_next(run: Callable[..., Any]) -> None:
    async def body(together: Together) -> None:
        sizes = count_round_trips(together)
        first = []
        while len(sizes) < PIPELINES:
            first.append(asyncio.create_task(together.execute(("INCR", "n"))))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        rest = [asyncio.create_task(together.execute(("INCR", "n"))) for _ in range(5)]
        answers = await asyncio.gather(*first, *rest)
        assert sorted(answer for (answer,) in answers) == list(range(1, len(first) + 6))
        assert sizes == [1] * PIPELINES + [5]

    run(body)


def test_a_refused_command_is_refused_to_its_request_alone(run: Callable[..., Any]) -> None:
    async def body(together: Together) -> list[Any]:
        requests = [("SET", "text", "a"), ("INCR", "text"), ("GET", "text")]
        return await asyncio.gather(*(together.execute(request) for request in requests), return_exceptions=True)

    done, refused, read = run(body)
    assert (done, read) == ([True], [b"a"])
    assert isinstance(refused, ResponseError)


def test_who_has_gone_disturbs_nobody(run: Callable[..., Any]) -> None:
    async def body(together: Together) -> Any:
        gone, there = (asyncio.create_task(together.execute(("ECHO", word))) for word in ("gone", "there"))
        await asyncio.sleep(0)
        gone.cancel()
        return await there

    assert run(body) == [b"there"]


def test_a_script_that_redis_has_forgotten_is_sent_again(run: Callable[..., Any]) -> None:
    async def body(together: Together) -> list[Any]:
        answers = [await together.script("return {KEYS[1], ARGV[1]}", 1, "key", "one")]
        await together.execute(("SCRIPT", "FLUSH"))
        return [*answers, await together.script("return {KEYS[1], ARGV[1]}", 1, "key", "two")]

    assert run(body) == [[b"key", b"one"], [b"key", b"two"]]


def test_all_who_waited_are_told_that_redis_does_not_answer_and_later_ones_are_answered(
    run: Callable[..., Any],
) -> None:
    async def body(together: Together) -> list[Any]:
        answers, stalled = together._answers, 0

        async def stall(_: Any) -> Any:
            nonlocal stalled
            stalled += 1
            await asyncio.sleep(0.1)
            raise RedisTimeoutError("Timeout reading")

        together._answers = stall  # type: ignore[method-assign]
        sent = []
        while stalled < PIPELINES:
            sent.append(asyncio.create_task(together.execute(("PING",))))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        together._answers = answers  # type: ignore[method-assign]
        behind = asyncio.create_task(together.execute(("PING",)))
        told = await asyncio.gather(*sent, behind, return_exceptions=True)
        return [*told, await together.execute(("PING",))]

    *told, later = run(body)
    assert all(isinstance(error, RedisError) for error in told), told
    assert later == [True]
