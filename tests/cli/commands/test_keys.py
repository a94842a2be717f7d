"""`scoreserve keys`: made, listed and revoked."""

import os

import pytest
from redis import Redis
from typer.testing import CliRunner

from cli.main import app
from cli.running import Running
from service.access.keys import Keys, matching


@pytest.fixture
def run(service_url: str):  # type: ignore[no-untyped-def]
    """Runs a command as who may do no more in Redis than the service."""
    environment = {"SCORESERVE_REDIS_URL": service_url, "COLUMNS": "200"}
    return lambda *arguments: CliRunner(env=environment).invoke(app, ["keys", *arguments])


def test_a_key_is_made_listed_and_revoked(run, redis: Redis) -> None:  # type: ignore[no-untyped-def]
    made = run("create", "alice", "--image-steps", "5000", "--requests-per-minute", "60")
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()
    (key,) = Keys(redis).all()
    assert matching({key.id: key}, secret) == key
    assert (key.name, key.image_steps, key.requests_per_minute) == ("alice", 5000, 60)
    assert "from now on every request needs one" in made.stderr
    another = run("create", "bob")
    assert another.exit_code == 0
    assert "from now on" not in another.stderr
    listed = run("list").stdout
    assert [line.split()[1] for line in listed.splitlines()[1:]] == ["alice", "bob"]
    assert secret.rpartition("_")[2] not in listed
    assert run("revoke", key.id).exit_code == 0
    assert [key.name for key in Keys(redis).all()] == ["bob"]
    last = run("revoke", Keys(redis).all()[0].id)
    assert "last key" in last.stderr
    assert "there are no keys" in run("list").stdout


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


def test_the_queue_of_what_runs_here_is_found(service_url: str, redis: Redis, tmp_path) -> None:  # type: ignore[no-untyped-def]
    held = Running(1, "http://127.0.0.1:1", service_url, {}).write_down(tmp_path)
    unset = dict.fromkeys(("SCORESERVE_REDIS_URL", "REDIS_URL"), "")
    invoke = CliRunner(env={**unset, "SCORESERVE_DATA_DIR": str(tmp_path)}).invoke
    assert invoke(app, ["keys", "create", "alice"]).exit_code == 0
    assert [key.name for key in Keys(redis).all()] == ["alice"]
    assert held is not None
    os.close(held)
