"""When a job will be done."""

import json
import time

import pytest
from rq.suspension import resume, suspend

from tests.worker.queue.conftest import Submit
from worker.queue.forecast import PACE, Forecast, Line, Share, Task
from worker.queue.jobs import JobQueue
from worker.queue.priority import Priority


@pytest.fixture
def workers(queue: JobQueue) -> None:
    """Two workers that make 1,000 and 300 image-steps a second."""
    for name, pace in (("one", (0.01, 1000.0)), ("two", (0.02, 300.0))):
        key = f"rq:worker:{name}"
        queue.connection.sadd("rq:workers", key)
        queue.connection.hset(key, PACE, json.dumps({"tiny": pace}))


def seconds(queue: JobQueue, client: str, steps: int, priority: Priority = Priority.NORMAL) -> float | None:
    """For images of 13 evaluations."""
    task = Task(client, priority, time.time(), steps)
    return Forecast(queue.connection, 16).seconds(task, "tiny", images=max(1, steps // 13), rows=13)


def test_nothing_is_told_of_what_was_never_measured(queue: JobQueue) -> None:
    assert seconds(queue, "a", 13) is None
    assert Forecast(queue.connection, 16).pace("tiny") is None


@pytest.mark.usefixtures("workers")
def test_an_empty_queue_leaves_the_work_itself(queue: JobQueue) -> None:
    assert seconds(queue, "a", 13_000) == pytest.approx(10)
    assert seconds(queue, "a", 13) == pytest.approx(0.13), "one image cannot use all slots"


@pytest.mark.usefixtures("workers")
def test_a_shard_is_done_by_one_worker(queue: JobQueue) -> None:
    for name in range(8):
        key = f"rq:worker:more {name}"
        queue.connection.sadd("rq:workers", key)
        queue.connection.hset(key, PACE, json.dumps({"tiny": (0.01, 1000.0)}))
    assert seconds(queue, "a", 16 * 13) == pytest.approx(0.208), "of the ten only one can have it"
    assert seconds(queue, "a", 160 * 13) == pytest.approx(160 * 13 / 9300)


@pytest.mark.usefixtures("workers")
def test_what_is_half_done_needs_half_the_time(queue: JobQueue, submit: Submit) -> None:
    job = submit(4, "a")
    whole = queue.outlook(job).seconds
    half = job.model_copy(update={"image_steps_done": job.image_steps // 2})
    assert whole is not None
    assert queue.outlook(half).seconds == pytest.approx(whole / 2, rel=0.1)


@pytest.mark.usefixtures("workers")
def test_a_guided_row_is_two_image_steps_and_one_after_another(queue: JobQueue) -> None:
    task, forecast = Task("a", Priority.NORMAL, time.time(), 26), Forecast(queue.connection, 16)
    assert forecast.seconds(task, "tiny", images=1, rows=13) == pytest.approx(0.13)
    many = Task("a", Priority.NORMAL, time.time(), 16 * 26)
    assert forecast.seconds(many, "tiny", images=16, rows=13) == pytest.approx(16 * 26 / 1000)


@pytest.mark.usefixtures("workers")
def test_one_clients_earlier_jobs_go_before(queue: JobQueue, submit: Submit) -> None:
    job = submit(100, "a")
    assert seconds(queue, "a", 1300) == pytest.approx(2)
    assert seconds(queue, "a", 1300, Priority.HIGH) == pytest.approx(1)
    assert queue.outlook(job).seconds == pytest.approx(1)


@pytest.mark.usefixtures("workers")
def test_a_job_would_be_done_when_its_work_is_were_there_no_others(queue: JobQueue, submit: Submit) -> None:
    forecast = Forecast(queue.connection, 16)
    assert forecast.virtual_finish("tiny", 13_000, 1000, 13) == pytest.approx(time.time(), abs=1), "of a pace not known"
    submit(1000, "a")
    forecast.look()
    assert forecast.virtual_finish("tiny", 13_000, 1000, 13) == pytest.approx(time.time() + 10, abs=1)
    assert forecast.virtual_finish("other", 13_000, 1000, 13) == pytest.approx(time.time(), abs=1)
    assert forecast.virtual_finish("tiny", 10**18, 1000, 13) == pytest.approx(time.time() + 1e9, abs=1)


@pytest.mark.usefixtures("workers")
def test_paces_alone_are_read_at_most_twice_a_second_and_leave_the_queue_to_be_looked_at(queue: JobQueue) -> None:
    forecast = Forecast(queue.connection, 16)
    assert forecast.wants_pace("tiny")
    forecast.look_at_paces("tiny")
    assert forecast.pace("tiny", look=False)
    queue.connection.delete("rq:worker:one", "rq:worker:two")
    forecast.look_at_paces("tiny")
    assert forecast.pace("tiny", look=False), "of many who want it one looks"
    assert not forecast.wants_pace("tiny")
    assert not forecast.wants_pace("other"), "it was not there a moment ago"
    assert not forecast.fresh
    forecast.look()
    assert forecast.fresh


@pytest.mark.usefixtures("workers")
def test_a_grid_is_told_that_it_goes_before_its_clients_many_images(queue: JobQueue, submit: Submit) -> None:
    queue.forecast.look()
    many, grid = submit(1000, "a"), submit(10, "a")
    forecast = JobQueue(queue.connection, queue.settings)
    assert [forecast.outlook(job).position for job in (many, grid)] == [1, 0]
    assert forecast.outlook(grid).seconds == pytest.approx(0.13), "nothing goes before it"
    assert forecast.outlook(many).seconds == pytest.approx(10.1)


@pytest.mark.usefixtures("workers")
def test_of_others_as_much_goes_before_as_they_get_meanwhile(queue: JobQueue, submit: Submit) -> None:
    submit(1000, "b")
    submit(10, "c")
    assert seconds(queue, "a", 1300) == pytest.approx((1300 + 1300 + 130) / 1300)
    assert seconds(queue, "a", 1300, Priority.HIGH) == pytest.approx((1300 + 1300 / 8 + 130) / 1300)
    assert seconds(queue, "a", 1300, Priority.LOW) == pytest.approx((1300 + 8 * 1300 + 130) / 1300)


@pytest.mark.usefixtures("workers")
def test_when_so_much_of_a_clients_work_is_done(queue: JobQueue, submit: Submit) -> None:
    submit(100, "a")
    submit(10, "b")
    forecast = Forecast(queue.connection, 16)
    assert forecast.seconds_until_done("a", 65, "tiny") == pytest.approx((65 + 65) / 1300), "they take turns"
    assert forecast.seconds_until_done("a", 1300, "tiny") == pytest.approx((1300 + 130) / 1300)
    assert forecast.seconds_until_done("a", 1300, "other") is None


def test_a_line_is_summed_up_as_its_tasks_one_by_one() -> None:
    tasks = [Task("a", list(Priority)[i % 3], float(i), 10 * i + 7, str(i)) for i in range(9)]
    line, ordered = Line(tasks), sorted(tasks, key=lambda task: task.place)
    for number, task in enumerate(ordered):
        ahead = ordered[:number]
        work, turns = sum(t.remaining for t in ahead), sum(t.remaining / t.priority.weight for t in ahead)
        assert line.before(task.place) == Share(work, pytest.approx(turns))
        half = task.remaining / 2
        share = Share(work + half, pytest.approx(turns + half / task.priority.weight))
        assert line.first(work + half) == share  # type: ignore[arg-type]
        assert line.meanwhile(turns + half / task.priority.weight) == pytest.approx(work + half)
    everything = sum(task.remaining for task in tasks)
    assert line.meanwhile(1e9) == everything
    assert line.first(everything + 5).turns == pytest.approx(line.turns[-1] + 5)


@pytest.mark.usefixtures("workers")
def test_nothing_ends_while_workers_are_suspended(queue: JobQueue, submit: Submit) -> None:
    job = submit(4, "a")
    suspend(queue.connection)
    assert queue.outlook(job).seconds is None
    assert queue.outlook(job).position == 0
    assert seconds(queue, "a", 13_000) is None
    resume(queue.connection)
    assert seconds(queue, "b", 13_000) is not None
