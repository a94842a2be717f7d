"""How commands of who runs a service reach its Redis."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import fail
from cli.console import settings as read
from cli.running import Running, say_taken

if TYPE_CHECKING:
    from redis import Redis

TIMEOUT_SECONDS = 5.0

RedisUrl = Annotated[
    str | None,
    typer.Option(
        help="Redis server.",
        envvar=["SCORESERVE_REDIS_URL", "REDIS_URL"],
        show_default="what `scoreserve up` runs here, or else redis://127.0.0.1:6379/0",
    ),
]


@contextmanager
def reached(redis_url: str | None, data_dir: Path | None) -> "Iterator[Redis]":
    """The Redis that is named, or of what runs here, or else the usual one: which that is, is said then.

    One that does not answer ends the command with one clear line.
    """
    from redis.exceptions import RedisError  # noqa: PLC0415

    from worker.queue.server import connect, without_password  # noqa: PLC0415
    from worker.queue.settings import QueueSettings  # noqa: PLC0415

    running = None if redis_url else Running.find(data_dir)
    settings = read(QueueSettings, {"redis_url": running.redis_url if running else redis_url})
    if not (redis_url or running):
        say_taken(settings.redis_url, data_dir)
    try:
        with connect(settings.redis_url, TIMEOUT_SECONDS, attempts=0) as connection:
            yield connection
    except (RedisError, ValueError) as error:
        said = f"no Redis at {settings.redis_url}: {error}; name one with --redis-url, or the --data-dir of its service"
        fail(without_password(said))
