"""Forecast: how long a job will take, by the exact work that remains and the workers' measured pace. Torch-free."""

import json
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from redis import Redis
from rq.worker import Worker

from worker import shards
from worker.priority import Priority

PACE = "pace"  # field of a worker's hash in RQ: model -> [seconds of a step of one image, image-steps a second at most]
KEEP_SECONDS = 0.5  # how old what is known of the queue may be
KEEP_FACTOR = 20  # or so many times as old as it took to read, so that a long queue does not take all the time there is


@dataclass(frozen=True)
class Task:
    """A job as the forecast sees it.

    Args:
        client: whose it is.
        priority: among the client's own, and its weight among others.
        created_at: seconds since the epoch.
        remaining: image-steps still to do.
        id: of the job; empty for one that is only asked about.
    """

    client: str
    priority: Priority
    created_at: float
    remaining: int
    id: str = ""

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
        self._looked_at, self._keep = -float("inf"), KEEP_SECONDS
        self._tasks: list[Task] = []
        self._paces: list[dict[str, tuple[float, float]]] = []

    def pace(self, model: str, look: bool = True) -> Pace | None:
        """What the workers can do for a model; None if none has measured it yet."""
        if look:
            self.look()
        measured = [paces[model] for paces in self._paces if model in paces]
        if not measured:
            return None
        return Pace(len(measured), min(step for step, _ in measured), sum(rate for _, rate in measured))

    def seconds(self, task: Task, model: str, evaluations: int, look: bool = True) -> float | None:
        """When a job will be done, in seconds from now; None if no worker has measured its model's pace.

        Clients share the workers by weight. So until this job is done, another client gets at most what it still asks
        for, and at most as much as this client by their weights.

        Args:
            task: the job.
            model: its model.
            evaluations: of the network, for the image that has most to go.
            look: whether to read the queue first, if what is known of it is old.
        """
        pace = self.pace(model, look)
        if pace is None:
            return None
        lines: dict[str, list[Task]] = defaultdict(list)
        for other in self._tasks:
            if other.id != task.id:
                lines[other.client].append(other)
        own = [other for other in lines.pop(task.client, []) if other.place < task.place]
        work = _with_others([*own, task], list(lines.values()))
        return max(evaluations * pace.step_seconds, work / pace.image_steps_per_second)

    def seconds_until_done(self, client: str, image_steps: int, model: str) -> float | None:
        """When so many image-steps of what a client has in flight will be done; None as for `seconds`."""
        pace = self.pace(model)
        if pace is None:
            return None
        lines: dict[str, list[Task]] = defaultdict(list)
        for task in self._tasks:
            lines[task.client].append(task)
        first: list[Task] = []
        for task in sorted(lines.pop(client, []), key=lambda task: task.place):
            first.append(replace(task, remaining=min(task.remaining, image_steps)))
            image_steps -= first[-1].remaining
        return _with_others(first, list(lines.values())) / pace.image_steps_per_second

    @property
    def fresh(self) -> bool:
        """Whether `look` would not look."""
        return time.monotonic() - self._looked_at < self._keep

    def look(self) -> None:
        """Reads the queue, unless what is known of it is fresh."""
        with self._lock:
            if not self.fresh:
                begun = time.monotonic()
                self._read()
                self._looked_at = time.monotonic()
                self._keep = max(KEEP_SECONDS, KEEP_FACTOR * (self._looked_at - begun))

    def _read(self) -> None:
        waiting: Any = self.connection.zrange(shards.ACTIVE, 0, -1)
        active = [job_id.decode() for job_id in waiting]
        workers: Any = Worker.all_keys(connection=self.connection)
        with self.connection.pipeline(transaction=False) as pipeline:
            for job_id in active:
                pipeline.hmget(shards.job_key(job_id), "client", "priority", "created_at", "image_steps")
                pipeline.hvals(shards.progress_key(job_id))
            for worker in workers:
                pipeline.hget(worker, PACE)
            answers = pipeline.execute()
        jobs, paces = answers[: 2 * len(active)], answers[2 * len(active) :]
        self._paces = [json.loads(pace) for pace in paces if pace is not None]
        self._tasks = [
            _task(job_id, record, progress)
            for job_id, record, progress in zip(active, jobs[0::2], jobs[1::2], strict=True)
            if None not in record
        ]


def _with_others(own: list[Task], lines: list[list[Task]]) -> float:
    """Image-steps until a client's own tasks are done: theirs, and what those of others get done meanwhile."""
    work = float(sum(task.remaining for task in own))
    turns = sum(task.remaining / task.priority.weight for task in own)
    for line in lines:
        left = turns
        for other in sorted(line, key=lambda other: other.place):
            if left <= 0:
                break
            served = min(other.remaining, left * other.priority.weight)
            work += served
            left -= served / other.priority.weight
    return work


def _task(job_id: str, record: list[bytes], progress: list[bytes]) -> Task:
    client, priority, created_at, image_steps = (value.decode() for value in record)
    remaining = max(0, int(image_steps) - sum(map(int, progress)))
    return Task(client, Priority(priority), float(created_at), remaining, job_id)
