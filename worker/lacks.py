"""Lacks: what a worker was asked for and cannot run, though another might; and when no worker can.

Stores may differ from worker to worker: a checkpoint is not copied to all machines yet, or was damaged on its way, or
is of a network that only some have. Such a shard is put back, and its model is left to others for a while. A job
fails only once all workers that are alive have said that they cannot run it.
"""

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass

from models.store import ModelStore
from worker.queue import keys
from worker.queue.jobs import JobQueue, Lack, WorkerStatus
from worker.queue.requests import Request

log = logging.getLogger(__name__)

PAUSE_SECONDS = 2.0  # in which a worker takes nothing of a model, of which it could not run what it took
KEEP_SECONDS = 60.0  # for which a lack is told, and not tried, unless the model's files change
MOST_NAMED = 5  # workers, in the reason why a job failed


@dataclass(frozen=True)
class Known:
    """A lack, and since when.

    Args:
        lack: as it is told.
        stamp: of the version's files, when it was found.
        at: when that was, on the monotonic clock.
    """

    lack: Lack
    stamp: tuple[int, ...]
    at: float


class Lacks:
    """What one worker cannot run.

    Args:
        store: where its models come from.
        only: the only models that it serves; None for all.
    """

    def __init__(self, store: ModelStore, only: list[str] | None) -> None:
        self.store, self.only = store, only
        self._known: dict[tuple[str, int, str | None], Known] = {}
        self._pauses: dict[str, float] = {}  # model -> until when nothing of it is taken

    def add(self, request: Request, reason: str) -> None:
        """A request was taken whose model cannot be run here."""
        lack = Lack(model=request.model, version=request.version, reason=reason)
        log.warning("model %s version %d is left to other workers: %s", lack.model, lack.version, reason)
        self._known[_of(request)] = Known(lack, self._stamp(lack), time.monotonic())

    def pause(self, model: str) -> None:
        """For a while nothing of a model is taken, so that others can."""
        self._pauses[model] = time.monotonic() + PAUSE_SECONDS

    def why(self, request: Request) -> str | None:
        """Why a request cannot be run, if that is known and its files are what they were."""
        self._forget()
        known = self._known.get(_of(request))
        return None if known is None else known.lack.reason

    def told(self) -> list[Lack]:
        """All that others should know of."""
        self._forget()
        return [known.lack for known in self._known.values()]

    def taking(self, queue: JobQueue) -> list[str] | None:
        """The only models that shards are to be taken of now; None for all."""
        self._forget()
        now = time.monotonic()
        self._pauses = {model: until for model, until in self._pauses.items() if now < until}
        if not self._pauses:
            return self.only
        waiting: Collection[bytes] = queue.connection.smembers(keys.LINES)  # type: ignore[assignment]
        return [name for name in self.only or map(bytes.decode, waiting) if name not in self._pauses]

    def of_all(self, queue: JobQueue, worker: str, request: Request, reason: str) -> str | None:
        """Why no worker that is alive can run a request; None as long as one might.

        Args:
            queue: of all jobs.
            worker: name of this one.
            request: that it was asked for.
            reason: why it cannot run it.
        """
        statuses = queue.worker_statuses()
        others = [status for status in statuses if status.name != worker]
        if len(statuses) < queue.workers():  # one has just begun, and has said nothing yet
            return None
        found = {worker: reason}
        for status in others:
            said = _said(status, request)
            if said is None:
                return None
            found[status.name] = said
        named = [f"worker {name}: {why}" for name, why in list(found.items())[:MOST_NAMED]]
        more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        return f"no worker can run model {request.model} version {request.version}: {'; '.join(named)}{more}"

    def _forget(self) -> None:
        """What was long ago, or may be otherwise since a file has changed; then it is tried again at once."""
        now = time.monotonic()
        for key, known in list(self._known.items()):
            changed = self._stamp(known.lack) != known.stamp
            if changed:
                self._pauses.pop(known.lack.model, None)
            if changed or now - known.at > KEEP_SECONDS:
                del self._known[key]

    def _stamp(self, lack: Lack) -> tuple[int, ...]:
        return self.store.stamp(lack.model, lack.version)


def _of(request: Request) -> tuple[str, int, str | None]:
    return request.model, request.version, request.weights_sha256


def _said(status: WorkerStatus, request: Request) -> str | None:
    """Why a worker cannot run a request, as it has told; None if it may."""
    if status.only is not None and request.model not in status.only:
        return f"serves only {', '.join(status.only)}"
    return next((one.reason for one in status.lacks if (one.model, one.version) == _of(request)[:2]), None)
