"""`scoreserve operator`: everybody's jobs, and models that are drained."""

from collections.abc import Callable

import pytest
from redis import Redis
from typer.testing import CliRunner

from cli.main import app
from models.card import ModelCard
from service.access.drains import Drains
from worker.queue.job import Job
from worker.queue.jobs import CANCELLED_BY_OPERATOR, JobQueue
from worker.queue.offer import Drained
from worker.queue.requests import SampleRequest
from worker.queue.settings import QueueSettings


@pytest.fixture
def run(service_url: str):  # type: ignore[no-untyped-def]
    """Runs a command as who may do no more in Redis than the service."""
    environment = {"SCORESERVE_REDIS_URL": service_url, "COLUMNS": "200"}
    return lambda *arguments: CliRunner(env=environment).invoke(app, ["operator", *arguments])


@pytest.fixture
def queue(redis: Redis) -> JobQueue:
    return JobQueue(redis, QueueSettings())


@pytest.fixture
def submit_for(queue: JobQueue, tiny_card: ModelCard) -> Callable[[str], Job]:
    def submit(client: str) -> Job:
        request = SampleRequest(
            model="tiny", version=1, weights_sha256=tiny_card.weights_sha256, count=1, seed=0, sampler=tiny_card.sampler
        )
        return queue.accept(queue.offer(request, tiny_card.image, 13, client))

    return submit


def test_jobs_of_all_are_listed(run, submit_for, queue: JobQueue) -> None:  # type: ignore[no-untyped-def]
    made = [submit_for(client) for client in ("key/a", "name/b", "key/a")]
    header, *lines = run("jobs").stdout.splitlines()
    assert header.split()[3:5] == ["model", "version"]
    assert lines[0].split()[3:5] == ["tiny", "1"]
    rows = [line.split()[:3] for line in lines]
    assert rows == [[job.id, job.client, "queued"] for job in reversed(made)]
    queue.cancel(made[0].id)
    own = run("jobs", "--client", "key/a").stdout.splitlines()[1:]
    assert [line.split()[::2][:2] for line in own] == [[made[2].id, "queued"], [made[0].id, "cancelled"]]
    assert len(run("jobs", "--client", "key/a", "--state", "cancelled").stdout.splitlines()) == 2
    assert len(run("jobs", "--limit", "1").stdout.splitlines()) == 2


def test_any_job_is_cancelled(run, submit_for, queue: JobQueue) -> None:  # type: ignore[no-untyped-def]
    one, other = submit_for("key/a"), submit_for("key/b")
    assert run("cancel", one.id, other.id).exit_code == 0
    assert [queue.get(job.id).error for job in (one, other)] == [CANCELLED_BY_OPERATOR] * 2
    ended = run("cancel", one.id)
    assert (ended.exit_code, "has ended" in ended.stderr) == (1, True)
    nobody = run("cancel", "0" * 24)
    assert (nobody.exit_code, "operator jobs" in nobody.stderr) == (1, True)


def test_a_model_is_drained_and_resumed(run, submit_for, redis: Redis) -> None:  # type: ignore[no-untyped-def]
    submit_for("key/a")
    done = run("drain", "tiny")
    assert done.exit_code == 0
    assert "1 of its jobs" in done.stderr
    assert "no model tiny here" in done.stderr, "the models that ship do not have it"
    with pytest.raises(Drained):
        submit_for("key/a")
    assert run("drained").stdout.splitlines()[1].split()[::3] == ["tiny", "1"]
    assert run("resume", "tiny").exit_code == 0
    assert Drains(redis).all() == {}
    submit_for("key/a")
    again = run("resume", "tiny")
    assert (again.exit_code, "not drained" in again.stderr) == (1, True)
