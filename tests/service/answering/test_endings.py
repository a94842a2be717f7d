"""Endings: who waits is told by message, and looks by itself where no message comes."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.asyncio import Redis as RedisClient
from redis.exceptions import ConnectionError as RedisConnectionError

from service.answering.endings import LATELY, Endings
from worker.queue import keys


async def heard(endings: Endings) -> None:
    async with asyncio.timeout(60):
        while not endings.heard:
            await asyncio.sleep(0.01)


def test_who_waits_for_a_job_is_woken_by_its_end_alone(redis: Redis, redis_url: str) -> None:
    async def wait() -> None:
        endings = Endings(RedisClient.from_url(redis_url))
        listening = asyncio.create_task(endings.listen())
        await heard(endings)
        with endings.of("one") as one, endings.of("one") as again, endings.of("other") as other:
            redis.publish(keys.ENDED, "one")
            async with asyncio.timeout(60):
                await one.wait()
                await again.wait()
            assert not other.is_set()
        assert not endings._waiting, "nobody is waited for any more"
        with endings.of("one") as late, endings.of("other") as other:
            assert late.is_set(), "it may have ended before its acceptance was read"
            assert not other.is_set()
        for number in range(LATELY):
            endings._hear(f"after {number}")
        with endings.of("one") as late:
            assert not late.is_set()
        assert len(endings._lately) == LATELY
        listening.cancel()
        async with asyncio.timeout(60):
            await asyncio.wait([listening])

    asyncio.run(wait())


def test_where_messages_end_it_listens_again(redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait() -> None:
        monkeypatch.setattr("service.answering.endings.AWAY_SECONDS", 0.01)
        endings = Endings(RedisClient.from_url(redis_url))
        real, calls = endings._listen, []

        async def listen() -> None:
            calls.append(endings.heard)
            if len(calls) < 3:
                raise RedisConnectionError("gone")
            await real()

        monkeypatch.setattr(endings, "_listen", listen)
        listening = asyncio.create_task(endings.listen())
        await heard(endings)
        assert calls == [False] * 3
        listening.cancel()
        await asyncio.wait([listening])

    asyncio.run(wait())


def test_a_wait_ends_with_the_job_though_nobody_looks(
    client, redis: Redis, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.answering.waiting.HEARD_SECONDS", 3600)
    monkeypatch.setattr("service.answering.waiting.POLL_SECONDS", (0.001, 0.001))
    endings: Any = client.app.state.context.endings
    until(lambda: endings.heard, 60)
    monkeypatch.setattr(client.app.state.context.jobs, "ended", lambda _: pytest.fail("nobody need look"))
    pending = client.begin("POST", "/samples", json={}, headers={"Prefer": "wait=60"})
    until(lambda: redis.zcard(keys.ACTIVE) == 1, 60)
    ((job_id, _),) = redis.zrange(keys.ACTIVE, 0, -1, withscores=True)
    until(lambda: endings._waiting, 60)
    assert client.delete(f"/jobs/{job_id.decode()}").status_code == 200
    assert pending.result(50).json()["state"] == "cancelled"
