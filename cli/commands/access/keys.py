"""`scoreserve keys`: the keys of a service, and what each may."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Column, Table

from cli.commands.access.reaching import RedisUrl, reached
from cli.console import err, fail
from cli.running import DataDir

if TYPE_CHECKING:
    from service.access.keys import Key, Keys

ID_WIDTH = 12  # of a key's id

ImageSteps = Annotated[
    int | None, typer.Option(metavar="<int>", min=1, help="The most in flight; as the service is set by default.")
]
Requests = Annotated[int | None, typer.Option(metavar="<int>", min=1, help="As the service is set by default.")]
Models = Annotated[
    str | None, typer.Option(metavar="<names>", help="The only models that it may ask for, such as mnist,cifar10.")
]
Expires = Annotated[
    str | None,
    typer.Option(metavar="<when>", help="When it ends: 30d or 12h from now, a date as 2027-01-31, or never."),
]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="As `scoreserve keys list` has it.")]
CancelJobs = Annotated[bool, typer.Option("--cancel-jobs", help="Cancel what it has in flight, too.")]


class Urgency(StrEnum):
    """`worker.queue.priority.Priority`, which only services and workers have."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, for you to know.")],
    image_steps: ImageSteps = None,
    requests_per_minute: Requests = None,
    priority: Annotated[Urgency, typer.Option(help="The most urgent that its jobs may be.")] = Urgency.NORMAL,
    models: Models = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="It may look, and ask for nothing.")] = False,
    operator: Annotated[
        bool, typer.Option("--operator", help="It may list and cancel all jobs, suspend keys, and drain models.")
    ] = False,
    expires: Expires = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key, and print it: once, since only a hash of it is kept. From the first key on, all requests need one."""
    may = {
        "priority": priority.value,
        "models": _names(models),
        "read_only": read_only,
        "operator": operator,
        "expires_at": _when(expires),
    }
    with _keys(redis_url, data_dir) as keys, _refused():
        first = not keys.closed
        key, secret = keys.create(name, image_steps, requests_per_minute, **may)
        if first:
            _wait_for_services()
            err.print("that is the first key: from now on every request needs one, and who has none is refused")
    err.print(f"key {key.id} of {key.name}; keep it, it is not shown again:", highlight=False, markup=False)
    typer.echo(secret)


def list_(redis_url: RedisUrl = None, data_dir: DataDir = None) -> None:
    """List the keys, oldest first: what is kept of them."""
    with _keys(redis_url, data_dir) as keys:
        found, used, closed = keys.all(), keys.used(), keys.closed
    table = Table(
        Column("id", no_wrap=True, min_width=ID_WIDTH),  # whole, since other commands ask for it
        *("name", "made", "last used", "image-steps in flight", "requests a minute", "may"),
        box=None,
        pad_edge=False,
    )
    for key in found:
        limits = (str(limit or "as the service") for limit in (key.image_steps, key.requests_per_minute))
        table.add_row(key.id, key.name, _date(key.created_at), _date(used.get(key.id)), *limits, _scope(key))
    nobody = "there are no keys, and nobody may ask" if closed else "there are no keys: whoever reaches it may ask"
    Console(markup=False, highlight=False).print(table if found else nobody)


def usage(
    key_id: Annotated[str | None, typer.Argument(metavar="ID", help="Of one key.", show_default="all")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for scripts.")] = False,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Tell what each key has spent since it was made, revoked ones too."""
    from service.access.usage import Spent, spent  # noqa: PLC0415

    with _keys(redis_url, data_dir) as keys:
        names, used, spent_by = {key.id: key.name for key in keys.all()}, keys.used(), spent(keys.connection)
    ids = list(names) + sorted(spent_by.keys() - names.keys())
    if key_id is not None:
        if key_id not in ids:
            _none(key_id)
        ids = [key_id]
    rows = {one: spent_by.get(one, Spent()).model_dump() for one in ids}
    if as_json:
        more = {one: {"name": names.get(one), "used_at": used.get(one)} for one in ids}
        typer.echo(json.dumps([{"id": one, **more[one], **rows[one]} for one in ids], indent=2, ensure_ascii=False))
        return
    columns = [name.replace("_", " ") for name in Spent.model_fields]
    table = Table("id", "name", "last used", *columns, box=None, pad_edge=False)
    for one in ids:
        table.add_row(one, names.get(one, "(revoked)"), _date(used.get(one)), *(f"{n:,}" for n in rows[one].values()))
    Console(markup=False, highlight=False).print(table)


def change(
    key_id: KeyId,
    image_steps: ImageSteps = None,
    requests_per_minute: Requests = None,
    priority: Annotated[Urgency | None, typer.Option(help="The most urgent that its jobs may be.")] = None,
    models: Annotated[
        str | None, typer.Option(metavar="<names>", help="The only models that it may ask for; all for all.")
    ] = None,
    read_only: Annotated[bool | None, typer.Option("--read-only/--read-write", help="It may look only.")] = None,
    operator: Annotated[bool | None, typer.Option("--operator/--no-operator", help="The operator's role.")] = None,
    expires: Expires = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Change what a key may. What is not named stays as it is."""
    may: dict[str, Any] = {
        "image_steps": image_steps,
        "requests_per_minute": requests_per_minute,
        "priority": priority and priority.value,
        "read_only": read_only,
        "operator": operator,
    }
    may = {name: value for name, value in may.items() if value is not None}
    if models is not None:
        may["models"] = None if models == "all" else _names(models)
    if expires is not None:
        may["expires_at"] = _when(expires)
    if not may:
        fail("nothing is to be changed: name an option, as in `scoreserve keys change ID --priority high`", code=2)
    _changed(key_id, redis_url, data_dir, **may)


def suspend(
    key_id: KeyId, cancel_jobs: CancelJobs = False, redis_url: RedisUrl = None, data_dir: DataDir = None
) -> None:
    """Let a key open nothing until it is resumed. Its streams end; its jobs go on."""
    _changed(key_id, redis_url, data_dir, suspended=True)
    if cancel_jobs:
        _cancel_jobs(key_id, "cancelled, since its key is suspended", redis_url, data_dir)


def resume(key_id: KeyId, redis_url: RedisUrl = None, data_dir: DataDir = None) -> None:
    """Let a suspended key open again what it did."""
    _changed(key_id, redis_url, data_dir, suspended=False)


def revoke(
    key_id: KeyId,
    keep_jobs: Annotated[bool, typer.Option("--keep-jobs", help="Let its jobs go on, unseen.")] = False,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key worthless, end its streams, and cancel its jobs."""
    from service.access.keys import KeyNotFound  # noqa: PLC0415

    with _keys(redis_url, data_dir) as keys:
        try:
            keys.revoke(key_id)
        except KeyNotFound:
            _none(key_id)
        _wait_for_services()
        if not keys.all():
            err.print("that was the last key: nobody may ask until there is another, or `scoreserve keys open`")
    if not keep_jobs:
        _cancel_jobs(key_id, "cancelled, since its key was revoked", redis_url, data_dir)


def open_(redis_url: RedisUrl = None, data_dir: DataDir = None) -> None:
    """Let everybody ask again, where all keys are revoked."""
    with _keys(redis_url, data_dir) as keys:
        if not keys.open():
            fail("there are keys: revoke them all first, as `scoreserve keys list` names them")
        _wait_for_services()
    err.print("whoever reaches the service may ask, unless SCORESERVE_REQUIRE_KEY=true")


def _changed(key_id: str, redis_url: str | None, data_dir: Path | None, **may: Any) -> None:
    from service.access.keys import KeyNotFound  # noqa: PLC0415

    with _keys(redis_url, data_dir) as keys, _refused():
        try:
            key = keys.change(key_id, **may)
        except KeyNotFound:
            _none(key_id)
        _wait_for_services()
    err.print(f"key {key.id} of {key.name}: {_scope(key)}", highlight=False, markup=False)


def _cancel_jobs(key_id: str, reason: str, redis_url: str | None, data_dir: Path | None) -> None:
    """Cancels what a key has in flight, once no service takes any more from it."""
    from worker.queue.jobs import JobQueue  # noqa: PLC0415
    from worker.queue.settings import QueueSettings  # noqa: PLC0415

    with _keys(redis_url, data_dir) as keys:
        cancelled = JobQueue(keys.connection, QueueSettings()).cancel_all(f"key/{key_id}", reason)
    err.print(f"{cancelled} of its jobs were in flight, and are cancelled", highlight=False)


def _none(key_id: str) -> NoReturn:
    from service.access.keys import masked  # noqa: PLC0415

    fail(f"there is no key {masked(key_id)}; `scoreserve keys list` names them by their ids")


def _names(models: str | None) -> list[str] | None:
    return None if models is None else [name.strip() for name in models.split(",") if name.strip()]


def _when(text: str | None) -> float | None:
    """Seconds since the epoch of `30d`, `12h`, a date, or None of `never`; ends the command if it is none of these."""
    if text is None or text == "never":
        return None
    if span := re.fullmatch(r"(\d{1,6})([dh])", text):
        return time.time() + int(span[1]) * {"d": 86400, "h": 3600}[span[2]]
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError):
        fail(f"--expires is {text!r}; allowed: 30d or 12h from now, a date such as 2027-01-31, or never", code=2)


def _date(seconds: float | None) -> str:
    return "never" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _scope(key: "Key") -> str:
    """What a key may, for people."""
    words = ["operator"] if key.operator else []
    words += ["look only" if key.read_only else f"priority up to {key.priority}"]
    words += ["models " + ",".join(key.models)] if key.models is not None else []
    words += [f"until {_date(key.expires_at)}"] if key.expires_at is not None else []
    words += ["suspended"] if key.suspended else []
    return ", ".join(words)


def _wait_for_services() -> None:
    """Until each has read the keys anew, so that what the command says is so when it ends."""
    from service.access.keys import SETTLED_SECONDS  # noqa: PLC0415

    time.sleep(SETTLED_SECONDS)


@contextmanager
def _refused() -> Iterator[None]:
    """What a key cannot be ends the command with one line."""
    from pydantic import ValidationError  # noqa: PLC0415 (only services and workers have it)

    from models.sentences import faults  # noqa: PLC0415

    try:
        yield
    except ValidationError as error:
        fail("; ".join(map(str, faults(error))), code=2)


@contextmanager
def _keys(redis_url: str | None, data_dir: Path | None) -> "Iterator[Keys]":
    """The keys of a Redis, or of what runs here; one clear line if it does not answer."""
    from service.access.keys import Keys  # noqa: PLC0415

    with reached(redis_url, data_dir) as connection:
        yield Keys(connection)
