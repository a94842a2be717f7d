"""Whose shard is next."""

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
from redis import Redis

from models.card import ModelCard
from tests.worker.queue.conftest import Submit
from worker.queue import keys, scripts, shards
from worker.queue.forecast import PACE
from worker.queue.job import Job, JobState
from worker.queue.jobs import JobQueue


@pytest.fixture
def worker(queue: JobQueue) -> None:
    """A worker that makes 1,000 image-steps a second, which the queue knows of."""
    queue.connection.sadd("rq:workers", "rq:worker:one")
    queue.connection.hset("rq:worker:one", PACE, json.dumps({"tiny": (0.01, 1000.0)}))
    queue.forecast.look()


def drain(queue: JobQueue, most: int = 1000, models: list[str] | None = None) -> list[str]:
    """Ids of the jobs of the shards that are taken, in order."""
    taken = []
    while len(taken) < most and (found := shards.take(queue.rq, models)):
        taken += [shard.rpartition("-")[0] for shard in found]
    return taken


def test_the_jobs_of_one_client_go_in_turn(queue: JobQueue, submit: Submit) -> None:
    first, second = submit(10), submit(4)
    assert drain(queue) == [first.id] * 3 + [second.id]
    assert queue.rq.job_ids == []


@pytest.mark.usefixtures("worker")
def test_a_grid_does_not_wait_for_what_its_client_asked_for_before_and_takes_longer(
    queue: JobQueue, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = submit(400)  # 5.2 s
    grid, like_it = submit(4), submit(4)
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 10)
    late = submit(4)
    assert drain(queue) == [grid.id, like_it.id] + [many.id] * 100 + [late.id], "in 5.2 s many would have been done"


@pytest.mark.usefixtures("worker")
def test_the_urgent_goes_first_however_long_it_takes(queue: JobQueue, submit: Submit) -> None:
    grid, urgent = submit(4, "a", "normal"), submit(400, "a", "high")
    assert drain(queue) == [urgent.id] * 100 + [grid.id]


@pytest.mark.usefixtures("worker")
def test_of_a_release_that_knew_no_virtual_finish_the_older_goes_first(
    queue: JobQueue,
    submit: Submit,
    ask,
    tiny_card: ModelCard,  # type: ignore[no-untyped-def]
) -> None:
    request, image_steps = ask(count=400)
    *named, record, rq_record, kept = queue.offer(request, tiny_card.image, image_steps, "a").arguments
    fields = json.loads(record)
    del fields[(at := fields.index("virtual_finish")) : at + 2]
    queue.connection.eval(scripts.ACCEPT, 2, *named, json.dumps(fields), rq_record, kept)
    (many,), _ = queue.listing("a", set(JobState), None, 1)
    assert many.virtual_finish == many.created_at
    grid = submit(4)
    assert drain(queue) == [many.id] * 100 + [grid.id]


def test_a_large_job_does_not_hold_up_another_client(queue: JobQueue, submit: Submit) -> None:
    large = submit(400, "a")
    drain(queue, 20)
    small = submit(8, "b")
    assert drain(queue, 4).count(small.id) == 2
    assert Counter(drain(queue)) == {large.id: 78}


def test_clients_share_by_image_steps_and_not_by_jobs(queue: JobQueue, submit: Submit) -> None:
    one = [submit(40, "a")]
    many = [submit(4, "b") for _ in range(10)]
    taken = drain(queue, 10)
    assert sum(job.id in taken for job in one) == 1
    assert taken.count(one[0].id) == 5
    assert sum(job.id in taken for job in many) == 5


def test_who_was_away_has_saved_up_nothing(queue: JobQueue, submit: Submit) -> None:
    submit(4, "b")
    drain(queue)
    one = submit(100, "a")
    drain(queue, 20)
    other = submit(100, "b")
    taken = Counter(drain(queue, 10))
    assert taken == {one.id: 5, other.id: 5}


def test_of_one_client_the_urgent_goes_first(queue: JobQueue, submit: Submit) -> None:
    low, normal, high = (submit(8, "a", priority) for priority in ("low", "normal", "high"))
    assert drain(queue) == [high.id] * 2 + [normal.id] * 2 + [low.id] * 2


def test_who_has_had_most_makes_way_for_who_has_had_less(queue: JobQueue, submit: Submit) -> None:
    ids = {client: submit(400, client).id for client in "abc"}
    drain(queue, 60)
    held = [(shards.Shard(ids[client], 0, 0, 4, 60), done) for client, done in [("a", 40), ("b", 90), ("c", 0)]]
    assert shards.make_way(queue.rq, None, held) is None, "those that wait have had as much"
    submit(4, "d")
    assert shards.make_way(queue.rq, None, held) == (1, "tiny")
    assert shards.make_way(queue.rq, ["tiny"], held[:1]) == (0, "tiny")
    assert shards.make_way(queue.rq, ["tiny"], held[2:]) is None, "nothing of it is done"
    assert shards.make_way(queue.rq, ["another"], held) is None


@pytest.mark.usefixtures("worker")
def test_many_images_make_way_for_their_own_clients_grid_and_not_for_as_many(queue: JobQueue, submit: Submit) -> None:
    many = submit(400)
    drain(queue, 1)
    held = [(shards.Shard(many.id, 0, 0, 4, 60), 40)]
    submit(400)
    assert shards.make_way(queue.rq, None, held) is None
    submit(4)
    assert shards.make_way(queue.rq, None, held) == (0, "tiny")


def test_a_clients_own_urgent_job_is_not_hidden_by_others_that_wait(queue: JobQueue, submit: Submit) -> None:
    submit(2, "b")
    drain(queue)
    job = submit(4, "a")
    drain(queue)
    held = [(shards.Shard(job.id, 0, 0, 4, 60), 0)]
    submit(4, "b")
    assert shards.make_way(queue.rq, None, held) is None, "b has had more than what is done"
    submit(4, "a", "normal")
    assert shards.make_way(queue.rq, None, held) is None
    submit(4, "a", "high")
    assert shards.make_way(queue.rq, None, held) == (0, "tiny")


def test_between_clients_priority_is_a_weight_that_locks_out_nobody(queue: JobQueue, submit: Submit) -> None:
    high, normal = submit(2000, "a", "high"), submit(400, "b")
    assert Counter(drain(queue, 90)) == {high.id: 80, normal.id: 10}
    low = submit(400, "c", "low")
    assert drain(queue, 90).count(low.id) == 2, "one at once, since it is new, and then one of 73"


def test_only_shards_of_some_models_can_be_taken(queue: JobQueue, submit: Submit) -> None:
    first, second = submit(4, model="one"), submit(4, model="two")
    assert drain(queue, models=["three"]) == []
    assert drain(queue, models=["two", "three"]) == [second.id]
    assert drain(queue) == [first.id]


def test_nobody_is_locked_out_of_slow_workers_while_others_are_served_by_fast_ones(
    queue: JobQueue, submit: Submit
) -> None:
    submit(4000, "a", model="fast")
    large, small = submit(400, "b", model="slow"), submit(40, "c", model="slow")
    taken = []
    for _ in range(10):
        drain(queue, 20, models=["fast"])
        submit(4, "c", model="slow")  # to ask again loses no place
        taken += drain(queue, 1, models=["slow"])
    assert taken.count(large.id) == taken.count(small.id) == 5
    late = submit(4, "d", model="slow")
    drain(queue, 20, models=["fast"])
    assert late.id in drain(queue, 3, models=["slow"])


def test_what_is_put_back_goes_first_and_is_charged_once(queue: JobQueue, submit: Submit) -> None:
    mine, other = submit(40, "a"), submit(40, "b")
    for _ in range(20):
        (shard,) = shards.take(queue.rq, ["tiny"])
        (job,) = shards.ShardJob.fetch_many([shard], queue.connection, queue.rq.serializer)
        assert job is not None
        with queue.connection.pipeline() as pipeline:
            pipeline.zrem(keys.TAKEN, shard)
            shards.again(queue.rq, job, job.shard, pipeline)
            pipeline.execute()
    assert len(queue.rq.job_ids) == 3, "the first shard, what it was cut from, and the other job"
    assert Counter(drain(queue, 10)) == {mine.id: 5, other.id: 5}


def test_nothing_is_left_of_lines_in_which_nobody_stands(queue: JobQueue, submit: Submit, redis: Redis) -> None:
    submit(8, "a")
    queue.cancel(submit(100, "b").id)
    drain(queue)
    assert redis.keys("scoreserve:line*") == []
    assert redis.keys("scoreserve:job:*:waiting") == []
    for number in range(50):
        queue.cancel(submit(4, f"passer-by {number}").id)
    submit(400, "a")
    drain(queue, 50)
    assert queue.connection.zcard("scoreserve:served") <= 2
    for number in range(20):
        submit(4, f"asleep {number}", model="served by nobody")
    for number in range(50):
        queue.cancel(submit(4, f"passer-by {number}").id)
    drain(queue, 50, models=["tiny"])
    assert queue.connection.zcard("scoreserve:served") <= 22


def test_what_is_taken_together_is_of_one_model_and_what_may_kill_its_worker_comes_last(
    queue: JobQueue, submit: Submit
) -> None:
    jobs = [submit(4, model=model) for model in ("one", "two", "one", "one", "one")]
    assert shards.take(queue.rq, None, free=8) == [shards.shard_id(jobs[0].id, 0)]
    assert shards.take(queue.rq, None, free=8) == [shards.shard_id(jobs[1].id, 0)]
    queue.connection.hset(f"rq:job:{shards.shard_id(jobs[3].id, 0)}", "retries_left", shards.RETRIES - 3)
    assert shards.take(queue.rq, None, free=100) == [shards.shard_id(job.id, 0) for job in jobs[2:4]]
    assert shards.take(queue.rq, None, free=100) == [shards.shard_id(jobs[4].id, 0)]


class Plain:
    """The rule of whose turn it is, told plainly: everybody is looked at for every shard."""

    def __init__(self) -> None:
        self.now = 0.0
        self.served: dict[str, float] = {}
        self.jobs: list[Job] = []
        self.waiting: dict[str, list[tuple[int, int]]] = {}  # of each job: shards that wait, and images of each
        self.suspects: set[str] = set()

    def accept(self, job: Job) -> None:
        if not any(self.waiting[other.id] and other.client == job.client for other in self.jobs):
            self.served[job.client] = self.had(job.client)
        self.jobs.append(job)
        self.waiting[job.id] = [(0, job.request.count)]

    def had(self, client: str) -> float:
        return max(self.now, self.served.get(client, 0.0))

    def next(self, models: list[str]) -> Job | None:
        waiting = [job for job in self.jobs if self.waiting[job.id] and job.request.model in models]
        return min(waiting, default=None, key=self._order)

    def _order(self, job: Job) -> tuple[float, ...]:
        return self.had(job.client), self.served[job.client], job.priority.rank, job.created_at

    def take(self, models: list[str], free: int) -> list[str]:
        taken: list[str] = []
        model, now = None, self.now
        while free > 0 and (job := self.next(models)) and model in (None, job.request.model):
            waiting = self.waiting[job.id]
            number, images = waiting.pop(0)
            if images > job.shard_size:
                waiting.insert(0, (job.shards, images - job.shard_size))
                job.shards, images = job.shards + 1, job.shard_size
            model, now, free = job.request.model, self.had(job.client), free - images
            steps = job.image_steps / job.request.count * images
            self.served[job.client] = self.had(job.client) + steps / job.priority.weight
            taken.append(shards.shard_id(job.id, number))
            if job.id in self.suspects:
                break
        self.now = now
        return taken


@pytest.mark.parametrize("seed", range(6))
def test_whose_turn_it_is_does_not_depend_on_how_many_are_taken_at_once(
    queue: JobQueue, submit: Submit, redis: Redis, seed: int
) -> None:
    chance, plain = random.Random(seed), Plain()
    models = ["one", "two", "three"][: 1 + seed % 3]
    plain.accept(rich := submit(1, "rich", model="one"))
    plain.served["rich"] = 1e6  # who has had more than all others, and so makes way for them
    redis.zadd("scoreserve:served", plain.served)
    clients = "abcdefghijkl"[: 2 + 2 * seed]
    for _ in range(25):
        for _ in range(chance.randrange(8)):
            priority, model = chance.choice(["high", "normal", "normal", "low"]), chance.choice(models)
            plain.accept(job := submit(chance.choice([1, 4, 4, 9, 15]), chance.choice(clients), priority, model))
            if chance.random() < 0.1:
                plain.suspects.add(job.id)
                queue.connection.hset(f"rq:job:{shards.shard_id(job.id, 0)}", "retries_left", shards.RETRIES - 3)
        asked = chance.sample(models, chance.randint(1, len(models)))
        job = plain.next(asked)
        found = (0, job.request.model) if job and plain.had(job.client) < plain.had("rich") else None
        assert shards.make_way(queue.rq, asked, [(shards.Shard(rich.id, 0, 0, 1, 60), 10**6)]) == found
        free = chance.choice([1, 3, 8, 40])
        assert shards.take(queue.rq, asked, free) == plain.take(asked, free)


def commands(redis: Redis, call: Callable[[], object]) -> int:
    """How many commands Redis carries out for a call, those of scripts included; but for HSET, which keeps the clock
    once a second."""

    def calls() -> int:
        found = redis.info("commandstats")
        return sum(stats["calls"] for name, stats in found.items() if name != "cmdstat_hset")

    before = calls()
    call()
    return calls() - before


@pytest.mark.parametrize("alike", [True, False])
def test_what_it_costs_to_take_and_to_make_way_does_not_grow_with_slots_times_clients(
    queue: JobQueue, submit: Submit, redis: Redis, alike: bool
) -> None:
    takes, ways = {}, {}
    for clients, free in product((40, 160), (8, 32)):
        redis.flushdb()
        jobs = [submit(1, f"client {number}") for number in range(clients)]
        for number, job in enumerate(jobs):
            redis.zadd("scoreserve:served", {job.client: 1.0 if alike else 1.0 + number / 1000})
        held = [(shards.Shard(jobs[0].id, 0, 0, 1, 60), 10**6)]
        ways[clients, free] = commands(redis, partial(shards.make_way, queue.rq, None, held))
        takes[clients, free] = commands(redis, partial(shards.take, queue.rq, None, free))
    assert takes[160, 32] - takes[160, 8] == takes[40, 32] - takes[40, 8], "a slot costs the same among many clients"
    assert takes[160, 8] - takes[40, 8] <= 120, "of each client no more is asked than how old its job is"
    assert len(set(ways.values())) == 1


@pytest.mark.parametrize("status", ["queued", "started", "nonsense", None])
def test_nothing_is_left_of_what_is_removed(queue: JobQueue, submit: Submit, redis: Redis, status: str | None) -> None:
    """Whatever RQ knows of it by then."""
    rq_id = shards.shard_id(submit(4).id, 0)
    rq_job = shards.fetch(queue.connection, rq_id)
    assert rq_job is not None
    redis.delete(rq_job.key)
    if status is not None:
        redis.hset(rq_job.key, "status", status)
    shards.remove(rq_job)
    assert queue.rq.job_ids == []
    assert not redis.exists(rq_job.key)
