"""Forecast: how long a job will take, by the exact work that remains and the workers' measured pace. Torch-free."""

import json
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from threading import Lock
from typing import Any, NamedTuple

from redis import Redis
from redis.client import Pipeline
from rq.suspension import WORKERS_SUSPENDED
from rq.worker import Worker

from worker.queue import keys, scripts
from worker.queue.priority import Priority

PACE = "pace"  # field of a worker's hash in RQ: model -> [seconds of a step of one image, image-steps a second at most]
STATUS = "scoreserve"  # likewise: what else a worker tells of itself, as JSON
JOBS_AT_ONCE = 500  # are looked at in one script, which nothing else in Redis can interrupt
KEEP_SECONDS = 0.5  # how old what is known of the queue may be
KEEP_FACTOR = 50  # or so many times as old as it took to read, so that a long queue does not take all the time there is
PRIORITIES = {priority.value.encode(): priority for priority in Priority}
Turn = tuple[float, float, str]  # of a job: what its client will have had by then, its virtual finish, its id
LONGEST_SECONDS = 1e9  # that are told apart


class Task(NamedTuple):
    """A job as the forecast sees it.

    Args:
        client: whose it is.
        priority: among the client's own, and its weight among others.
        virtual_finish: when it would be done, were there no others; seconds since the epoch.
        remaining: image-steps still to do.
        id: of the job; empty for one that is only asked about.
        waits: whether nothing of it is begun.
    """

    client: str
    priority: Priority
    virtual_finish: float
    remaining: int
    id: str = ""
    waits: bool = True

    @property
    def place(self) -> tuple[int, float]:
        """Order among the client's own."""
        return self.priority.rank, self.virtual_finish


class Outlook(NamedTuple):
    """What a job has before it; None for what cannot be told, or is over.

    Args:
        seconds: until it will have ended.
        position: how many jobs that wait go before it, which waits too.
    """

    seconds: float | None = None
    position: int | None = None

    @property
    def eta(self) -> float | None:
        """The seconds as a client is told them."""
        return None if self.seconds is None else round(self.seconds, 1)


UNKNOWN = Outlook()


@dataclass(frozen=True)
class Pace:
    """What the workers that are alive can do for one model.

    Args:
        workers: how many there are.
        step_seconds: one network evaluation of a single image, on the fastest of them.
        image_steps_per_second: of all together, with all slots in use.
        fastest: likewise, of the fastest of them.
    """

    workers: int
    step_seconds: float
    image_steps_per_second: float
    fastest: float

    def seconds(self, image_steps: int, images: int, rows: int, shard_size: int) -> float:
        """How long that many image-steps take at least, with nothing else to do.

        A shard is done by one worker, and an image by one step after another.

        Args:
            image_steps: of all images.
            images: how many.
            rows: one after another, of the image that has most to go.
            shard_size: images that one worker takes on at a time.
        """
        of_shard = image_steps * min(1.0, shard_size / images)
        of_all = image_steps / self.image_steps_per_second
        return max(rows * self.step_seconds, of_shard / self.fastest, of_all)


@dataclass(frozen=True)
class Share:
    """A part of a line: image-steps, and turns, which are image-steps over their weight."""

    work: float
    turns: float


class Line:
    """One client's tasks in order, summed up once, so that each question takes a search and no pass over them."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        ordered = sorted(tasks, key=lambda task: task.place)
        self.places = [task.place for task in ordered]
        self.weights = [task.priority.weight for task in ordered]
        self.work = [0, *accumulate(task.remaining for task in ordered)]
        self.turns = [0.0, *accumulate(task.remaining / task.priority.weight for task in ordered)]
        self.waiting: list[Turn] = [
            (turns, task.virtual_finish, task.id)
            for turns, task in zip(self.turns, ordered, strict=False)
            if task.waits
        ]

    def before(self, place: tuple[int, float]) -> Share:
        """What goes before a place."""
        number = bisect_left(self.places, place)
        return Share(self.work[number], self.turns[number])

    def first(self, image_steps: int) -> Share:
        """Its first so many image-steps. Of those that it is not known to have yet the weight is taken to be 1."""
        number = bisect_right(self.work, image_steps) - 1
        rest = image_steps - self.work[number]
        return Share(image_steps, self.turns[number] + rest / (*self.weights, 1.0)[number])

    def meanwhile(self, turns: float) -> float:
        """Image-steps that it gets done in so many turns."""
        number = bisect_right(self.turns, turns) - 1
        if number == len(self.places):
            return self.work[-1]
        return self.work[number] + (turns - self.turns[number]) * self.weights[number]


NOBODY = Line([])


class Forecast:
    """Looks at the queue of one Redis, at most twice a second.

    Args:
        connection: to it.
        shard_size: images that one worker takes on at a time.
    """

    def __init__(self, connection: Redis, shard_size: int) -> None:
        self.connection, self.shard_size = connection, shard_size
        self._lock = Lock()  # of many requests at once, one looks
        self._looked_at, self._keep = -float("inf"), KEEP_SECONDS
        self._paced_at = -float("inf")
        self._lines: dict[str, Line] = {}
        self._paces: dict[str, Pace] = {}  # by model
        self._turns: list[Turn] = []
        self._positions: dict[str, int] = {}

    def position(self, task: Task, look: bool = True) -> int:
        """How many jobs that wait will be begun before one that waits too.

        Clients take turns, by weight. So a job is begun once its client has had what its own jobs before it ask for.
        """
        if look:
            self.look()
        if task.id in self._positions:
            return self._positions[task.id]
        turns = self._lines.get(task.client, NOBODY).before(task.place).turns
        return bisect_right(self._turns, (turns, task.virtual_finish, task.id))

    def pace(self, model: str, look: bool = True) -> Pace | None:
        """What the workers can do for a model; None if none has measured it yet."""
        if look:
            self.look()
        return self._paces.get(model)

    def virtual_finish(self, model: str, image_steps: int, images: int, rows: int) -> float:
        """When a job that is asked for now would be done, were there no others; seconds since the epoch.

        By it a client's jobs go (the order of weighted fair queueing: Demers, Keshav & Shenker 1989), so that a grid
        does not wait for 50,000 images that its client asked for before, and these wait at most for what is asked for
        while they alone would have been on their way. By what is known of the pace already; that of now if nothing is.

        Args:
            model: its model.
            image_steps: of all images.
            images: how many.
            rows: one after another, of each image.
        """
        pace = self.pace(model, look=False)
        alone = 0.0 if pace is None else pace.seconds(image_steps, images, rows, self.shard_size)
        return time.time() + min(alone, LONGEST_SECONDS)

    def seconds(self, task: Task, model: str, images: int, rows: int, look: bool = True) -> float | None:
        """When a job will be done, in seconds from now; None if no worker has measured its model's pace.

        Clients share the workers by weight. So until this job is done, another client gets at most what it still asks
        for, and at most as much as this client by their weights.

        Args:
            task: the job.
            model: its model.
            images: how many it has.
            rows: one after another, of the image that has most to go.
            look: whether to read the queue first, if what is known of it is old.
        """
        pace = self.pace(model, look)
        if pace is None:
            return None
        ahead = self._lines.get(task.client, NOBODY).before(task.place)
        turns = ahead.turns + task.remaining / task.priority.weight
        work = ahead.work + task.remaining + self._others(task.client, turns)
        alone = pace.seconds(task.remaining, images, rows, self.shard_size)
        return max(alone, work / pace.image_steps_per_second)

    def seconds_until_done(self, client: str, image_steps: int, model: str) -> float | None:
        """When so many image-steps of what a client has in flight will be done; None as for `seconds`."""
        pace = self.pace(model)
        if pace is None:
            return None
        done = self._lines.get(client, NOBODY).first(image_steps)
        return (done.work + self._others(client, done.turns)) / pace.image_steps_per_second

    def _others(self, client: str, turns: float) -> float:
        """Image-steps that the other clients get done while one has so many turns."""
        return sum(line.meanwhile(turns) for other, line in self._lines.items() if other != client)

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

    def wants_pace(self, model: str) -> bool:
        """Whether `look_at_paces` might tell a model's pace, which is not known."""
        return model not in self._paces and time.monotonic() - self._paced_at >= KEEP_SECONDS

    def look_at_paces(self, model: str) -> None:
        """Reads what the workers can do, if that of a model is wanted still: of many who want it at once, one looks.

        Of the queue it reads nothing: what is known of that stays as fresh as it is.
        """
        with self._lock:
            if not self.wants_pace(model):
                return
            workers: Any = Worker.all_keys(connection=self.connection)
            with self.connection.pipeline(transaction=False) as pipeline:
                _ask_paces(pipeline, workers)
                self._take_paces(pipeline.execute())

    def _take_paces(self, answers: Sequence[Any]) -> None:
        *paces, suspended = answers
        known = [] if suspended else [_paces(pace) for pace in paces if pace is not None]  # `rq suspend`: no end
        self._paces, self._paced_at = _together(known), time.monotonic()

    def _read(self) -> None:
        many: Any = self.connection.zcard(keys.ACTIVE)
        workers: Any = Worker.all_keys(connection=self.connection)
        with self.connection.pipeline(transaction=False) as pipeline:
            _ask_paces(pipeline, workers)
            for first in range(0, many, JOBS_AT_ONCE):
                pipeline.eval(scripts.LOOK, 0, first, first + JOBS_AT_ONCE - 1)
            answers = pipeline.execute()
        self._take_paces(answers[: len(workers) + 1])
        looks = answers[len(workers) + 1 :]
        # One may move while it is looked at.
        tasks = {task.id: task for jobs in looks for task in map(_task, jobs) if task is not None}
        lines: dict[str, list[Task]] = defaultdict(list)
        for task in tasks.values():
            lines[task.client].append(task)
        self._lines = {client: Line(tasks) for client, tasks in lines.items()}
        self._turns = sorted(turn for line in self._lines.values() for turn in line.waiting)
        self._positions = {job_id: place for place, (_, _, job_id) in enumerate(self._turns)}


def _ask_paces(pipeline: Pipeline, workers: Sequence[str]) -> None:
    """Asks for the pace of each worker, and whether they are suspended."""
    for worker in workers:
        pipeline.hget(worker, PACE)
    pipeline.exists(WORKERS_SUSPENDED)


def _paces(told: bytes) -> dict[str, tuple[float, float]]:
    """What a worker has measured, by model; nothing where that cannot be read."""
    try:
        return {model: (float(step), float(rate)) for model, (step, rate) in json.loads(told).items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _task(job: tuple[bytes, bytes, bytes, bytes, int, int]) -> Task | None:
    """What waits of a job; None where its record is damaged."""
    job_id, client, priority, virtual_finish, remaining, begun = job
    if priority not in PRIORITIES:
        return None
    return Task(client.decode(), PRIORITIES[priority], float(virtual_finish), remaining, job_id.decode(), not begun)


def _together(paces: Sequence[Mapping[str, tuple[float, float]]]) -> dict[str, Pace]:
    """What all workers can do, by model, of what each has measured."""
    measured: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for of_worker in paces:
        for model, pace in of_worker.items():
            measured[model].append(pace)
    all_of_them: dict[str, Pace] = {}
    for model, found in measured.items():
        steps, rates = zip(*found, strict=True)
        all_of_them[model] = Pace(len(found), min(steps), sum(rates), max(rates))
    return all_of_them
