"""`scoreserve keys`: the keys of a service."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli.console import err, fail
from cli.console import settings as read
from cli.running import DataDir, Running

if TYPE_CHECKING:
    from service.access.keys import Keys

TIMEOUT_SECONDS = 5.0

RedisUrl = Annotated[
    str | None,
    typer.Option(
        help="Redis server of the service.",
        envvar=["SCORESERVE_REDIS_URL", "REDIS_URL"],
        show_default="that of `scoreserve up`, if it runs",
    ),
]


def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, for you to know.")],
    image_steps: Annotated[
        int | None,
        typer.Option(metavar="<int>", min=1, help="The most in flight; as the service is set by default."),
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(metavar="<int>", min=1, help="As the service is set by default.")
    ] = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key, and print it: once, since only a hash of it is kept. From the first key on, all requests need one."""
    from pydantic import ValidationError  # noqa: PLC0415 (only services and workers have it)

    from models.sentences import faults  # noqa: PLC0415

    with _keys(redis_url, data_dir) as keys:
        try:
            key, secret = keys.create(name, image_steps, requests_per_minute)
        except ValidationError as error:
            fail("; ".join(map(str, faults(error))), code=2)
        if len(keys.all()) == 1:
            _wait_for_services()
            err.print("that is the first key: from now on every request needs one, and who has none is refused")
    err.print(f"key {key.id} of {key.name}; keep it, it is not shown again:", highlight=False, markup=False)
    typer.echo(secret)


def list_(redis_url: RedisUrl = None, data_dir: DataDir = None) -> None:
    """List the keys, oldest first: what is kept of them."""
    with _keys(redis_url, data_dir) as keys:
        found = keys.all()
    table = Table("id", "name", "made", "image-steps in flight", "requests a minute", box=None, pad_edge=False)
    for key in found:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(key.created_at))
        limits = (str(limit or "as the service") for limit in (key.image_steps, key.requests_per_minute))
        table.add_row(key.id, key.name, made, *limits)
    Console(markup=False, highlight=False).print(table if found else "there are no keys: whoever reaches it may ask")


def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `scoreserve keys list` has it.")],
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key worthless. Its jobs go on, unseen."""
    from service.access.keys import KeyNotFound  # noqa: PLC0415

    with _keys(redis_url, data_dir) as keys:
        try:
            keys.revoke(key_id)
        except KeyNotFound:
            fail(f"there is no key {key_id}; `scoreserve keys list` names them")
        _wait_for_services()
        if not keys.all():
            err.print("that was the last key: whoever reaches the service may ask, unless SCORESERVE_REQUIRE_KEY=true")


def _wait_for_services() -> None:
    """Until each has read the keys anew, so that what the command says is so when it ends."""
    from service.access.keys import KEEP_SECONDS  # noqa: PLC0415

    time.sleep(1.2 * KEEP_SECONDS)


@contextmanager
def _keys(redis_url: str | None, data_dir: Path | None) -> "Iterator[Keys]":
    """The keys of a Redis, or of what runs here; one clear line if it does not answer."""
    from redis.exceptions import RedisError  # noqa: PLC0415

    from service.access.keys import Keys  # noqa: PLC0415
    from worker.queue.jobs import connect, without_password  # noqa: PLC0415
    from worker.queue.settings import QueueSettings  # noqa: PLC0415

    running = None if redis_url else Running.find(data_dir)
    settings = read(QueueSettings, {"redis_url": running.redis_url if running else redis_url})
    try:
        with connect(settings.redis_url, TIMEOUT_SECONDS, attempts=0) as connection:
            yield Keys(connection)
    except (RedisError, ValueError) as error:
        fail(f"no Redis at {without_password(settings.redis_url)}: {error}; name one with --redis-url")
