"""The server, Redis or Valkey: how it is reached, and what it says of itself. Torch-free."""

import re

from pydantic import BaseModel
from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

NOT_NOW = "MISCONF", "NOREPLICAS", "MASTERDOWN", "BUSY"  # what a server says that takes no writes for now


class Memory(BaseModel):
    """Bytes that Redis uses, and that it may use; 0 without a limit."""

    used: int
    limit: int

    @property
    def half_full(self) -> bool:
        return 0 < self.limit < 2 * self.used


def connect(url: str, timeout: float, attempts: int) -> Redis:
    """A connection pool to a Redis or Valkey server.

    Args:
        url: redis://, rediss:// or unix://.
        timeout: seconds that one command may take.
        attempts: how often a command is tried again, with growing pauses of up to 2 s, while the server is away, or is
            a replica: then by a new connection, since the address may lead elsewhere by now.
    """
    return Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(ExponentialBackoff(cap=2, base=0.05), attempts),
        retry_on_error=[RedisConnectionError, RedisTimeoutError, ReadOnlyError],  # the last: what is the master now?
        health_check_interval=30,
    )


def unavailable(error: RedisError) -> bool:
    """Whether a server is away, full, or takes no writes for now, so that what failed may be tried again later."""
    later = isinstance(error, RedisConnectionError | RedisTimeoutError | OutOfMemoryError | ReadOnlyError)
    return later or any(word in str(error) for word in NOT_NOW)


def without_password(text: str) -> str:
    """The address of a server, or a text with such, as a log may show it, whatever a password consists of."""
    hidden = re.sub(r"(://[^\s:/@]*:)\S*@", r"\1***@", text)
    return re.sub(r"([?&](?:password|username)=)[^\s&'\"]*", r"\1***", hidden)


def wrong_type(error: Exception) -> bool:
    """Whether Redis says that something of another type lies there."""
    return isinstance(error, ResponseError) and str(error).startswith("WRONGTYPE")
