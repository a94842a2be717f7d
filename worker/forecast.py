"""Forecast: how long a job will take, by the exact work that remains and the workers' measured pace. Torch-free."""

import json
import time
from bisect import bisect
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from threading import Lock
from typing import Any

from redis import Redis
from rq.worker import Worker

from worker import shards
from worker.priority import Priority

PACE = "pace"  # field of a worker's hash in RQ: model -> [seconds of a step of one image, image-steps a second at most]
STATUS = "scoreserve"  # likewise: what else a worker tells of itself, as JSON
FIELDS = "client", "priority", "created_at", "image_steps", "started_at"
KEEP_SECONDS = 0.5  # how old what is known of the queue may be
Turn = tuple[float, float, str]  # of a job: what its client will have had by then, when it was created, its id


@dataclass(frozen=True)
class Task:
    """A job as the forecast sees it.

    Args:
        client: whose it is.
        priority: among the client's own, and its weight among others.
        created_at: seconds since the epoch.
        remaining: image-steps still to do.
        id: of the job; empty for one that is only asked about.
        waits: whether nothing of it is begun.
    """

    client: str
    priority: Priority
    created_at: float
    remaining: int
    id: str = ""
    waits: bool = True

    @property
    def place(self) -> tuple[int, float]:
        """Order among the client's own."""
        return self.priority.rank, self.created_at


@dataclass(frozen=True)
class Pace:
    """What the workers that are alive can do for one model.

    Args:
        workers: how many there are.
        step_seconds: one network evaluation of a single image, on the fastest of them.
        image_steps_per_second: of all together, with all slots in use.
    """

    workers: int
    step_seconds: float
    image_steps_per_second: float


class Forecast:
    """Looks at the queue of one Redis, at most twice a second."""

    def __init__(self, connection: Redis) -> None:
        self.connection = connection
        self._lock = Lock()  # of many requests at once, one looks
        self._looked_at = -float("inf")
        self._tasks: list[Task] = []
        self._paces: list[dict[str, tuple[float, float]]] = []
        self._turns: list[Turn] = []
        self._positions: dict[str, int] = {}

    def position(self, task: Task) -> int:
        """How many jobs that wait will be begun before one that waits too.

        Clients take turns, by weight. So a job is begun once its client has had what its own jobs before it ask for.
        """
        self._look()
        if task.id in self._positions:
            return self._positions[task.id]
        own = (other for other in self._tasks if other.client == task.client and other.place < task.place)
        share = sum(other.remaining / other.priority.weight for other in own)
        return bisect(self._turns, (share, task.created_at, task.id))

    def pace(self, model: str) -> Pace | None:
        """What the workers can do for a model; None if none has measured it yet."""
        self._look()
        measured = [paces[model] for paces in self._paces if model in paces]
        if not measured:
            return None
        return Pace(len(measured), min(step for step, _ in measured), sum(rate for _, rate in measured))

    def seconds(self, task: Task, model: str, evaluations: int) -> float | None:
        """When a job will be done, in seconds from now; None if no worker has measured its model's pace.

        Clients share the workers by weight. So until this job is done, another client gets at most what it still asks
        for, and at most as much as this client by their weights.

        Args:
            task: the job.
            model: its model.
            evaluations: of the network, for the image that has most to go.
        """
        pace = self.pace(model)
        if pace is None:
            return None
        lines: dict[str, list[Task]] = defaultdict(list)
        for other in self._tasks:
            if other.id != task.id:
                lines[other.client].append(other)
        own = [other for other in lines.pop(task.client, []) if other.place < task.place]
        work = float(sum(other.remaining for other in own) + task.remaining)
        turns = sum(other.remaining / other.priority.weight for other in [*own, task])
        for line in lines.values():
            left = turns
            for other in sorted(line, key=lambda other: other.place):
                served = min(other.remaining, left * other.priority.weight)
                work += served
                left -= served / other.priority.weight
        return max(evaluations * pace.step_seconds, work / pace.image_steps_per_second)

    def _look(self) -> None:
        with self._lock:
            if time.monotonic() - self._looked_at >= KEEP_SECONDS:
                self._read()
                self._looked_at = time.monotonic()

    def _read(self) -> None:
        waiting: Any = self.connection.zrange(shards.ACTIVE, 0, -1)
        active = [job_id.decode() for job_id in waiting]
        workers: Any = Worker.all_keys(connection=self.connection)
        with self.connection.pipeline(transaction=False) as pipeline:
            for job_id in active:
                pipeline.hmget(shards.job_key(job_id), *FIELDS)
                pipeline.hvals(shards.progress_key(job_id))
            for worker in workers:
                pipeline.hget(worker, PACE)
            answers = pipeline.execute()
        jobs, paces = answers[: 2 * len(active)], answers[2 * len(active) :]
        self._paces = [json.loads(pace) for pace in paces if pace is not None]
        self._tasks = [
            _task(job_id, record, progress)
            for job_id, record, progress in zip(active, jobs[0::2], jobs[1::2], strict=True)
            if None not in record[:-1]
        ]
        self._turns = _turns(self._tasks)
        self._positions = {job_id: place for place, (_, _, job_id) in enumerate(self._turns)}


def _turns(tasks: Sequence[Task]) -> list[Turn]:
    """Of the tasks that wait, in the order in which they will be begun if clients share the workers by weight."""
    lines: dict[str, list[Task]] = defaultdict(list)
    for task in sorted(tasks, key=lambda task: task.place):
        lines[task.client].append(task)
    turns: list[Turn] = []
    for line in lines.values():
        shares = accumulate((task.remaining / task.priority.weight for task in line), initial=0.0)
        turns += [(share, task.created_at, task.id) for share, task in zip(shares, line, strict=False) if task.waits]
    return sorted(turns)


def _task(job_id: str, record: list[bytes | None], progress: list[bytes]) -> Task:
    *known, started_at = record
    client, priority, created_at, image_steps = (value.decode() for value in known if value is not None)
    remaining = max(0, int(image_steps) - sum(map(int, progress)))
    return Task(client, Priority(priority), float(created_at), remaining, job_id, waits=started_at is None)
