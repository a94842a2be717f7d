"""`scoreserve keys`: made, listed and revoked."""

import json
import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from redis import Redis
from typer.testing import CliRunner

from cli.main import app
from cli.running import Running
from models.card import ModelCard
from service.access.keys import KEYS, USED, Keys
from worker.queue import server
from worker.queue.job import Job
from worker.queue.jobs import JobQueue
from worker.queue.keys import SPENT
from worker.queue.requests import SampleRequest
from worker.queue.settings import QueueSettings


@pytest.fixture
def run(service_url: str):  # type: ignore[no-untyped-def]
    """Runs a command as who may do no more in Redis than the service."""
    environment = {"SCORESERVE_REDIS_URL": service_url, "COLUMNS": "200"}
    return lambda *arguments: CliRunner(env=environment).invoke(app, ["keys", *arguments])


@pytest.fixture
def submit_for(redis: Redis, tiny_card: ModelCard) -> Callable[[str], Callable[[], Job]]:
    """Puts a job of a client on the queue; what it returns looks it up."""
    queue = JobQueue(redis, QueueSettings())

    def submit(client: str) -> Callable[[], Job]:
        request = SampleRequest(
            model="tiny", version=1, weights_sha256=tiny_card.weights_sha256, count=1, seed=0, sampler=tiny_card.sampler
        )
        job = queue.accept(queue.offer(request, tiny_card.image, 13, client))
        return lambda: queue.get(job.id)

    return submit


def test_a_key_is_made_listed_and_revoked(run, redis: Redis, service_url: str) -> None:  # type: ignore[no-untyped-def]
    made = run("create", "alice", "--image-steps", "5000", "--requests-per-minute", "60")
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()
    (key,) = Keys(redis).all()
    assert secret[:17] == f"ssk_{key.id}_"
    assert key.opens(secret[17:])
    assert (key.name, key.image_steps, key.requests_per_minute) == ("alice", 5000, 60)
    assert "from now on every request needs one" in made.stderr
    another = run("create", "bob")
    assert another.exit_code == 0
    assert "from now on" not in another.stderr
    narrow = CliRunner(env={"SCORESERVE_REDIS_URL": service_url, "COLUMNS": "60"}).invoke(app, ["keys", "list"])
    assert key.id in narrow.stdout
    listed = run("list").stdout
    assert [line.split()[1] for line in listed.splitlines()[1:]] == ["alice", "bob"]
    assert secret[17:] not in listed
    assert run("revoke", key.id).exit_code == 0
    assert [key.name for key in Keys(redis).all()] == ["bob"]
    last = run("revoke", Keys(redis).all()[0].id)
    assert "last key" in last.stderr
    assert "nobody may ask" in run("list").stdout
    assert "that is the first key" not in run("create", "carol").stderr, "the service was closed already"


def test_a_service_without_keys_is_opened_by_hand_only(run, redis: Redis) -> None:  # type: ignore[no-untyped-def]
    run("create", "alice")
    refused = run("open")
    assert refused.exit_code == 1
    assert "there are keys" in refused.stderr
    run("revoke", Keys(redis).all()[0].id)
    assert run("open").exit_code == 0
    assert "whoever reaches it may ask" in run("list").stdout


def test_what_a_key_may_is_said_and_changed(run, redis: Redis) -> None:  # type: ignore[no-untyped-def]
    options = "--priority", "high", "--models", "tiny, other", "--read-only", "--operator", "--expires", "2031-01-31"
    assert run("create", "alice", *options).exit_code == 0
    (key,) = Keys(redis).all()
    assert (key.priority, key.models, key.read_only, key.operator) == ("high", ["tiny", "other"], True, True)
    assert key.expires_at == datetime(2031, 1, 31).astimezone().timestamp()
    assert "operator, look only, models tiny,other, until 2031-01-31 00:00" in run("list").stdout
    changes = "--priority", "low", "--models", "all", "--read-write", "--no-operator", "--expires", "never"
    assert run("change", key.id, *changes, "--image-steps", "7").exit_code == 0
    (key,) = Keys(redis).all()
    assert (key.priority, key.models, key.read_only, key.operator) == ("low", None, False, False)
    assert (key.expires_at, key.image_steps, key.name) == (None, 7, "alice")
    assert run("change", key.id, "--expires", "30d").exit_code == 0
    assert Keys(redis).all()[0].expires_at == pytest.approx(time.time() + 30 * 86400, abs=600)
    nothing = run("change", key.id)
    assert (nothing.exit_code, "name an option" in nothing.stderr) == (2, True)
    impossible = run("change", key.id, "--expires", "soon")
    assert (impossible.exit_code, "30d or 12h" in impossible.stderr) == (2, True)
    assert run("change", "0" * 12, "--priority", "low").exit_code == 1


def test_what_keys_have_spent_is_told_of_revoked_ones_too(run, redis: Redis) -> None:  # type: ignore[no-untyped-def]
    alice, bob = (Keys(redis).create(name)[0].id for name in ("alice", "bob"))
    redis.hset(SPENT, mapping={f"{alice}:image_steps": 12345678, f"{alice}:bytes_sent": 9, f"{bob}:jobs": 2})
    redis.hset(USED, alice, 1.8e9)
    run("revoke", bob)
    told = run("usage").stdout.splitlines()
    assert told[0].split()[-2:] == ["bytes", "sent"]
    assert "12,345,678" in told[1]
    assert [line.split()[1] for line in told[1:]] == ["alice", "(revoked)"]
    (found,) = json.loads(run("usage", alice, "--json").stdout)
    assert (found["name"], found["image_steps"], found["bytes_sent"], found["used_at"]) == ("alice", 12345678, 9, 1.8e9)
    assert run("usage", "0" * 12).exit_code == 1
    listed = run("list").stdout.splitlines()
    assert time.strftime("%Y-%m-%d %H:%M", time.localtime(1.8e9)) in listed[1]


def test_a_key_that_ends_takes_its_jobs_with_it_or_not(run, redis: Redis, service_url: str, submit_for) -> None:  # type: ignore[no-untyped-def]
    for command, options, state in (
        ("revoke", (), "cancelled"),
        ("revoke", ("--keep-jobs",), "queued"),
        ("suspend", (), "queued"),
        ("suspend", ("--cancel-jobs",), "cancelled"),
    ):
        key, _ = Keys(redis).create("alice")
        own, others = submit_for(key.client), submit_for("key/another")
        assert run(command, key.id, *options).exit_code == 0
        assert (own().state, others().state) == (state, "queued")
        if command == "suspend":
            assert "suspended" in run("list").stdout
            assert run("resume", key.id).exit_code == 0
            assert not Keys(redis).all()[-1].suspended


def test_a_record_that_cannot_be_read_is_listed_by_nobody_and_revoked(run, redis: Redis) -> None:  # type: ignore[no-untyped-def]
    Keys(redis).create("alice")
    redis.hset(KEYS, "0" * 12, "{")
    redis.hset(KEYS, b"\xff", "{}")
    assert "alice" in run("list").stdout
    assert run("change", "0" * 12, "--priority", "low").exit_code == 1
    assert run("revoke", "0" * 12).exit_code == 0
    assert redis.hlen(KEYS) == 2


def test_no_more_of_a_key_is_shown_than_its_id(run, redis: Redis) -> None:  # type: ignore[no-untyped-def]
    _, secret = Keys(redis).create("alice")
    said = run("revoke", secret).stderr
    assert "ssk_" in said
    assert secret[17:] not in said


def test_what_cannot_be_is_said_in_one_line(run, tmp_path) -> None:  # type: ignore[no-untyped-def]
    unknown = run("revoke", "0" * 12)
    assert unknown.exit_code == 1
    assert "no key 000000000000" in unknown.stderr
    nameless = run("create", "")
    assert nameless.exit_code == 2
    assert "name" in nameless.stderr
    away = run("list", "--redis-url", f"unix://{tmp_path}/nothing")
    assert away.exit_code == 1
    assert "no Redis at" in away.stderr


@pytest.mark.parametrize("arguments", [["keys", "list"], ["operator", "drained"]], ids=" ".join)
def test_which_redis_is_taken_is_said_where_none_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str]
) -> None:
    for name in ("SCORESERVE_REDIS_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(server, "connect", lambda url, *_, **options: Redis.from_url(f"unix://{tmp_path}/nothing"))
    first = CliRunner().invoke(app, [*arguments, "--data-dir", str(tmp_path)]).stderr.splitlines()[0]
    assert first.startswith("takes redis://127.0.0.1:6379/0: no Redis is named, nor does `scoreserve up` run")
    assert first.endswith(str(tmp_path))
    named = CliRunner().invoke(app, [*arguments, "--redis-url", f"unix://{tmp_path}/nothing"])
    assert "takes" not in named.stderr
    held = Running(1, "http://127.0.0.1:1", f"unix://{tmp_path}/nothing", {}).write_down(tmp_path)
    assert "takes" not in CliRunner().invoke(app, [*arguments, "--data-dir", str(tmp_path)]).stderr
    assert held is not None
    os.close(held)


def test_the_queue_of_what_runs_here_is_found(service_url: str, redis: Redis, tmp_path) -> None:  # type: ignore[no-untyped-def]
    held = Running(1, "http://127.0.0.1:1", service_url, {}).write_down(tmp_path)
    unset = dict.fromkeys(("SCORESERVE_REDIS_URL", "REDIS_URL"), "")
    invoke = CliRunner(env={**unset, "SCORESERVE_DATA_DIR": str(tmp_path)}).invoke
    assert invoke(app, ["keys", "create", "alice"]).exit_code == 0
    assert [key.name for key in Keys(redis).all()] == ["alice"]
    assert held is not None
    os.close(held)
