"""How Redis is reached, and what it says of itself."""

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, OutOfMemoryError, ResponseError

from worker.queue.jobs import JobQueue
from worker.queue.server import unavailable, without_password


def test_what_a_server_says_that_takes_nothing_for_now_is_told_from_faults() -> None:
    for said in (
        RedisConnectionError("refused"),
        OutOfMemoryError("command not allowed"),
        ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
        ResponseError("Command # 1 (SET a 1) of pipeline caused error: NOREPLICAS Not enough good replicas to write."),
        ResponseError("BUSY Redis is busy running a script."),
    ):
        assert unavailable(said)
    for said in (NoPermissionError("no permissions"), ResponseError("WRONGTYPE"), ResponseError("unknown command")):
        assert not unavailable(said)


def test_memory_is_what_redis_says(queue: JobQueue, redis) -> None:  # type: ignore[no-untyped-def]
    redis.config_set("maxmemory", 500_000_000)
    try:
        memory = queue.memory()
    finally:
        redis.config_set("maxmemory", 0)
    assert memory.limit == 500_000_000
    assert 0 < memory.used < memory.limit


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://worker:s3cret@host:6379/0", "redis://worker:***@host:6379/0"),
        ("rediss://:s3cret@host/0?ssl_ca_certs=/etc/ca.crt", "rediss://:***@host/0?ssl_ca_certs=/etc/ca.crt"),
        ("unix://worker:s3cret@/run/redis.sock", "unix://worker:***@/run/redis.sock"),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://worker:a/b:c@d@host:6379/0", "redis://worker:***@host:6379/0"),
        ("redis://host:6379/0?password=s3cret&db=1", "redis://host:6379/0?password=***&db=1"),
        ("no Redis at redis://me:s3cret@host/0: it is away", "no Redis at redis://me:***@host/0: it is away"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown
