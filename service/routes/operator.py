"""/operator: everybody's jobs, all keys, and models to drain. `service.access.auth` asks for an operator's key."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from models.card import ModelName
from service.access.drains import Drains
from service.access.keys import SETTLED_SECONDS, Key, KeyNotFound, Keys
from service.access.usage import Spent, spent
from service.answering.job_view import EXAMPLE_JOB, JobView
from service.answering.paging import cursor_of, link_to, place_of
from service.answering.problems import Problem, responses
from service.context import Context, InContext
from service.routes.jobs import JobId
from service.routes.models import Name
from service.routes.threaded import ThreadedRoute
from worker.queue.job import Job, JobState
from worker.queue.jobs import CANCELLED_BY_OPERATOR, JobEnded
from worker.queue.priority import Priority

router = APIRouter(prefix="/operator", tags=["operator"], route_class=ThreadedRoute)

KeyId = Annotated[str, Path(pattern=r"^[0-9a-f]{12}$", description="Id of a key.", examples=["527d7207c7bc"])]
_NOT_FOUND = responses("not-found", "invalid", "unavailable")


_CLIENT = "Whose it is: `key/` and the id of a key; in a service without keys `name/` or `address/` and which."
_EXAMPLE_JOB: dict[str, Any] = {"client": "key/527d7207c7bc", "job": EXAMPLE_JOB}
_EXAMPLE_KEY: dict[str, Any] = {
    "id": "527d7207c7bc",
    "name": "alice",
    "image_steps": None,
    "requests_per_minute": 600,
    "priority": "normal",
    "models": ["mnist"],
    "read_only": False,
    "operator": False,
    "suspended": False,
    "created_at": "2026-01-02T03:04:05Z",
    "used_at": "2026-01-02T04:05:00Z",
    "expires_at": None,
    "spent": {
        "requests": 30,
        "jobs": 10,
        "images": 160,
        "image_steps": 22400,
        "bytes_received": 2000,
        "bytes_sent": 400000,
    },
}
_EXAMPLE_MODEL: dict[str, Any] = {"name": "mnist", "drained_at": "2026-01-02T03:04:05Z", "jobs": 3}


class ClientJob(BaseModel):
    """A job, and whose it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE_JOB]})

    client: str = Field(description=_CLIENT)
    job: JobView


class ClientJobs(BaseModel):
    """A page of jobs of many clients."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"jobs": [_EXAMPLE_JOB], "next": None}]})

    jobs: list[ClientJob] = Field(description="Newest first.")
    next: str | None = Field(description="The `cursor` of the next page; null on the last.")


class KeyView(BaseModel):
    """A key, without its secret: what it may, and what it has spent."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE_KEY]})

    id: str
    name: str
    image_steps: int | None = Field(description="The most in flight; null for the service's own limit.")
    requests_per_minute: int | None = Field(description="Null for the service's own limit.")
    priority: Priority = Field(description="The most urgent that its jobs may be.")
    models: list[ModelName] | None = Field(description="Those that it may ask for; null for all.")
    read_only: bool
    operator: bool
    suspended: bool
    created_at: datetime
    used_at: datetime | None = Field(description="When it was used last, to the minute.")
    expires_at: datetime | None
    spent: Spent

    @classmethod
    def of(cls, key: Key, used: Mapping[str, float], spent: Mapping[str, Spent]) -> "KeyView":
        """The view of a key, with when each key was used last and what it has spent, by its id."""
        own = key.model_dump(exclude={"secret_sha256", "created_at", "expires_at"})
        times = {"created_at": key.created_at, "used_at": used.get(key.id), "expires_at": key.expires_at}
        told = {name: None if at is None else datetime.fromtimestamp(at, UTC) for name, at in times.items()}
        return cls(**own, **told, spent=spent.get(key.id, Spent()))


class SuspendedKey(BaseModel):
    """A key that was suspended or resumed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"key": _EXAMPLE_KEY, "cancelled": 0}]})

    key: KeyView
    cancelled: int = Field(description="Jobs of it that were in flight, and are cancelled.")


class ModelState(BaseModel):
    """Whether a model takes new requests."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE_MODEL]})

    name: str
    drained_at: datetime | None = Field(description="Since when it takes none; null where it does.")
    jobs: int = Field(description="Of it that have not ended.")


VIEWS = ClientJob, ClientJobs, KeyView, SuspendedKey, ModelState


@router.get(
    "/jobs",
    operation_id="listClientJobs",
    summary="Jobs of all clients, newest first",
    responses=responses("invalid", "unavailable"),
)
def jobs(
    request: Request,
    response: Response,
    context: InContext,
    client: Annotated[
        str | None, Query(description="Only jobs of this client, as a job names it.", max_length=200)
    ] = None,
    state: Annotated[list[JobState] | None, Query(description="Only jobs in this state; may repeat.")] = None,
    model: Annotated[list[ModelName] | None, Query(description="Only jobs of this model; may repeat.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Jobs on a page.")] = 20,
    cursor: Annotated[str | None, Query(description="`next` of the page before.", max_length=200)] = None,
) -> ClientJobs:
    """The jobs of all clients that have not ended; or all of one `client`, until they are forgotten. Newest first.

    A page may have fewer jobs than `limit`, even none, where few of many jobs are wanted; `next` then still leads on.
    """
    after = None if cursor is None else place_of(cursor)
    found, following = context.queue.listing(client, state or list(JobState), model, limit, after)
    page = ClientJobs(jobs=[_view(context, job) for job in found], next=following and cursor_of(following))
    if page.next is not None:
        response.headers["Link"] = link_to(request, page.next)
    return page


@router.post(
    "/jobs/{job_id}/cancel",
    operation_id="cancelClientJob",
    summary="Cancel a job of any client",
    responses=_NOT_FOUND | responses("already-ended"),
)
def cancel(job_id: JobId, context: InContext) -> ClientJob:
    """Cancels a job, whosever it is. Its client is told that an operator did."""
    try:
        return _view(context, context.queue.cancel(job_id, CANCELLED_BY_OPERATOR))
    except JobEnded as error:
        raise Problem("already-ended", str(error)) from error


@router.get("/keys", operation_id="listKeys", summary="All keys", responses=responses("unavailable"))
def keys(context: InContext) -> list[KeyView]:
    """All keys, oldest first: what each may, when it was used last, and what it has spent."""
    connection = context.queue.connection
    found, used, spent_by = Keys(connection).all(), Keys(connection).used(), spent(connection)
    return [KeyView.of(key, used, spent_by) for key in found]


@router.post("/keys/{key_id}/suspend", operation_id="suspendKey", summary="Suspend a key", responses=_NOT_FOUND)
async def suspend(
    key_id: KeyId,
    context: InContext,
    cancel_jobs: Annotated[bool, Query(description="Cancel what it has in flight, too.")] = False,
) -> SuspendedKey:
    """Lets a key open nothing until it is resumed. Its streams end; its jobs go on, unless they are to be cancelled."""
    view = await run_in_threadpool(_set_suspended, context, key_id, True)
    cancelled = 0
    if cancel_jobs:
        await asyncio.sleep(SETTLED_SECONDS)  # then no service takes any more from it
        cancelled = await run_in_threadpool(context.queue.cancel_all, f"key/{key_id}", CANCELLED_BY_OPERATOR)
    return SuspendedKey(key=view, cancelled=cancelled)


@router.post("/keys/{key_id}/resume", operation_id="resumeKey", summary="Resume a suspended key", responses=_NOT_FOUND)
def resume(key_id: KeyId, context: InContext) -> SuspendedKey:
    """Lets a suspended key open again what it did."""
    return SuspendedKey(key=_set_suspended(context, key_id, False), cancelled=0)


@router.get(
    "/models", operation_id="listModelStates", summary="Which models are drained", responses=responses("unavailable")
)
def models(context: InContext) -> list[ModelState]:
    """All models, whether each takes new requests, and how many of its jobs have not ended."""
    return _states(context)


@router.post("/models/{name}/drain", operation_id="drainModel", summary="Drain a model", responses=_NOT_FOUND)
def drain(name: Name, context: InContext) -> ModelState:
    """Lets a model take no new requests: they are answered with the problem `drained`. What was accepted is done."""
    if name not in context.store.names():
        raise _no_model(context)
    Drains(context.queue.connection).begin(name)
    return _state(context, name)


@router.post(
    "/models/{name}/resume", operation_id="resumeModel", summary="Resume a drained model", responses=_NOT_FOUND
)
def resume_model(name: Name, context: InContext) -> ModelState:
    """Lets a drained model take new requests again."""
    if not Drains(context.queue.connection).end(name) and name not in context.store.names():
        raise _no_model(context)
    return _state(context, name)


def _view(context: Context, job: Job) -> ClientJob:
    return ClientJob(client=job.client, job=context.view(job))


def _set_suspended(context: Context, key_id: str, suspended: bool) -> KeyView:
    connection = context.queue.connection
    try:
        key = Keys(connection).change(key_id, suspended=suspended)
    except KeyNotFound as error:
        raise Problem("not-found", f"there is no key {key_id}") from error
    return KeyView.of(key, Keys(connection).used(), spent(connection))


def _states(context: Context) -> list[ModelState]:
    drains = Drains(context.queue.connection)
    drained, unended = drains.all(), drains.unended()
    names = sorted({*context.store.names(), *drained, *unended})
    since = {name: datetime.fromtimestamp(at, UTC) for name, at in drained.items()}
    return [ModelState(name=name, drained_at=since.get(name), jobs=unended[name]) for name in names]


def _state(context: Context, name: str) -> ModelState:
    found = [state for state in _states(context) if state.name == name]
    return found[0] if found else ModelState(name=name, drained_at=None, jobs=0)


def _no_model(context: Context) -> Problem:
    return Problem("not-found", f"there is no such model; there is: {', '.join(context.store.names())}")
