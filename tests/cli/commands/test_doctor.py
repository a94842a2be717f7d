"""`scoreserve doctor`: what it finds in sick deployments, and that it finds nothing in a sound one."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq.suspension import resume, suspend

import cli.diagnosis
from cli.diagnosis import driver, judge, judge_driver
from cli.running import Running
from tests.cli.conftest import Service, as_json, problem

Command = Callable[..., Any]
SOUND = {
    "redis_version": "7.2.4",
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "used_memory": 10 * 2**20,
    "maxmemory": 100 * 2**20,
}


def findings(result: Any) -> dict[str, tuple[str, str]]:
    """State, and what was found and is to be done, of the last finding on each subject."""
    listed = json.loads(result.stdout)["findings"]
    return {one["subject"]: (one["state"], f"{one['found']} | {one['remedy']}") for one in listed}


@pytest.fixture
def sound(service: Service, redis: Redis, worker_url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Where a deployment is in which nothing is missing, on a machine without GPUs."""
    monkeypatch.setattr("cli.diagnosis.driver", lambda: None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    service.answers |= {"GET /readyz": as_json({"status": "ready", "workers": 1}), "GET /models": as_json([])}
    redis.sadd("rq:workers:scoreserve", "rq:worker:w")
    redis.sadd("rq:workers", "rq:worker:w")
    redis.hset("rq:worker:w", "pace", json.dumps({"mnist": [0.01, 1234.5]}))
    before = {name: redis.config_get(name)[name] for name in ("appendonly", "maxmemory-policy", "maxmemory")}
    redis.config_set("appendonly", "yes")
    redis.config_set("maxmemory", 2**30)
    yield {"SCORESERVE_REDIS_URL": worker_url}
    for name, value in before.items():
        redis.config_set(name, value)


def test_a_sound_deployment(command: Command, sound: dict[str, str]) -> None:
    result = command("doctor", "--json", **sound)
    states = {subject: state for subject, (state, _) in findings(result).items()}
    assert set(states.values()) == {"good"}, result.stdout
    assert set(states) == {
        "redis",
        "eviction",
        "persistence",
        "memory",
        "workers",
        "pace",
        "models",
        "device",
        "service",
    }
    assert result.exit_code == 0
    assert json.loads(result.stdout)["healthy"] is True
    assert "1,234" in findings(result)["pace"][1]
    told = command("doctor", **sound)
    assert told.exit_code == 0
    assert "Valkey" in told.stdout, "a report is what was asked for"
    assert told.stderr == ""


def test_workers_that_give_an_image_other_bits_are_told_of(
    command: Command, sound: dict[str, str], redis: Redis
) -> None:
    status = {"device": "cpu", "models": ["mnist"], "slots": 16, "slots_active": 0, "image_steps_per_second": 0.0}
    for name, arithmetic in (("w", "eager float32 on a CPU"), ("v", "eager float32 on a CPU")):
        told = json.dumps(status | {"arithmetics": {"mnist": arithmetic}})
        redis.hset(f"rq:worker:{name}", mapping={"scoreserve": told, "last_heartbeat": "2026-01-02T03:04:05Z"})
        redis.sadd("rq:workers:scoreserve", f"rq:worker:{name}")
        redis.sadd("rq:workers", f"rq:worker:{name}")
    assert "arithmetic" not in findings(command("doctor", "--json", **sound))
    told = json.dumps(status | {"arithmetics": {"mnist": "eager float32 on a GPU"}})
    redis.hset("rq:worker:v", "scoreserve", told)
    result = command("doctor", "--json", **sound)
    state, said = findings(result)["arithmetic"]
    assert state == "note"
    assert "mnist in eager float32 on a CPU and eager float32 on a GPU" in said
    assert result.exit_code == 0


def test_a_worker_of_a_gpu_with_few_slots_is_told_of(command: Command, sound: dict[str, str], redis: Redis) -> None:
    def told(device: str, slots: int) -> tuple[str, str] | None:
        status = {"device": device, "models": [], "slots": slots, "slots_active": 0, "image_steps_per_second": 0.0}
        found = {"scoreserve": json.dumps(status), "last_heartbeat": "2026-01-02T03:04:05Z"}
        redis.hset("rq:worker:w", mapping=found)
        return findings(command("doctor", "--json", **sound)).get("slots")

    assert told("cuda", 256) is None
    assert told("cpu", 16) is None
    state, said = told("cuda:1", 16) or ("", "")
    assert (state, "16 on cuda:1" in said) == ("note", True)


@pytest.mark.parametrize(
    ("version", "cuda", "gpus", "state", "remedy"),
    [
        (None, "13.0", 0, None, ""),
        ("580.65.06", "13.0", 1, "good", ""),
        ("570.86", "13.0", 0, "mend", "driver 580 or newer"),
        ("570.86", "12.6", 2, "good", ""),
        ("510.1", "12.6", 0, "mend", "driver 525 or newer"),
        ("580.65.06", "13.0", 0, "mend", "container toolkit"),
        ("580.65.06", None, 0, "note", "ordinary index"),
    ],
)
def test_a_driver_and_a_torch_that_do_not_go_together_are_told_of(
    version: str | None, cuda: str | None, gpus: int, state: str | None, remedy: str
) -> None:
    found = list(judge_driver(version, cuda, gpus))
    assert [one.state for one in found] == ([state] if state else [])
    assert all(remedy in (one.remedy or "") for one in found)


def test_the_driver_is_that_which_linux_has_loaded(tmp_path: Path) -> None:
    path = tmp_path / "version"
    assert driver(path) is None
    path.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 06:54:38 UTC 2025\nGCC version: 12.2.0\n"
    )
    assert driver(path) == "580.65.06"


def test_a_gpu_that_nobody_uses_is_told_of(
    command: Command, sound: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("cli.diagnosis._gpu", lambda number: f"H200 {number}")
    state, said = findings(command("doctor", "--json", **sound))["gpu"]
    assert (state, "2 GPUs" in said) == ("note", True)


def test_workers_that_lack_a_model_are_told_of(command: Command, sound: dict[str, str], redis: Redis) -> None:
    lack = {"model": "mnist", "version": 9, "reason": "no model mnist version 9"}
    plain = {"device": "cpu", "models": [], "slots": 16, "slots_active": 0, "image_steps_per_second": 0.0}

    def told(**lacks: list[dict[str, Any]]) -> tuple[str, str] | None:
        for name, status in {"w": {}, "v": {}, "u": {"only": ["other"]}}.items():
            of_worker = json.dumps(plain | status | {"lacks": lacks.get(name, [])})
            redis.hset(f"rq:worker:{name}", mapping={"scoreserve": of_worker, "last_heartbeat": "2026-01-02T03:04:05Z"})
            redis.sadd("rq:workers:scoreserve", f"rq:worker:{name}")
            redis.sadd("rq:workers", f"rq:worker:{name}")
        return findings(command("doctor", "--json", **sound)).get("lacks")

    assert told() is None
    assert told(v=[lack]) == (
        "note",
        "1 of the 2 that serve mnist cannot run its version 9: no model mnist version 9 | others run it meanwhile; "
        "copy it to SCORESERVE_MODELS_DIR of v",
    )
    state, said = told(v=[lack], w=[lack]) or ("", "")
    assert state == "mend"
    assert "2 of the 2 that serve mnist" in said
    assert "its jobs fail" in said


def test_a_queue_that_loses_jobs(command: Command, sound: dict[str, str], redis: Redis) -> None:
    redis.config_set("appendonly", "no")
    redis.config_set("maxmemory-policy", "allkeys-lru")
    redis.delete("rq:worker:w")
    result = command("doctor", "--json", **sound)
    found = findings(result)
    assert result.exit_code == 1
    for subject, remedy in (("persistence", "appendonly yes"), ("eviction", "noeviction"), ("workers", "start")):
        assert found[subject][0] == "mend"
        assert remedy in found[subject][1]


@pytest.mark.parametrize(
    ("info", "subject"),
    [
        ({"redis_version": "6.2.1"}, "redis"),
        ({"maxmemory_policy": "volatile-lru"}, "eviction"),
        ({"aof_enabled": 0}, "persistence"),
        ({"aof_last_write_status": "err"}, "persistence"),
        ({"used_memory": 95 * 2**20}, "memory"),
    ],
)
def test_what_redis_says_of_itself(info: dict[str, Any], subject: str) -> None:
    assert [finding.state for finding in judge(SOUND)] == ["good"] * 4
    (sick,) = [finding for finding in judge(SOUND | info) if finding.state != "good"]
    assert (sick.subject, sick.state) == (subject, "mend")
    assert sick.remedy


def test_memory_without_a_limit_may_be_meant_so() -> None:
    assert [finding.state for finding in judge(SOUND | {"maxmemory": 0})] == ["good", "good", "good", "note"]


def test_nothing_is_there(command: Command, tmp_path: Path) -> None:
    address = f"unix://me:secret@{tmp_path}/none"
    result = command("doctor", "--json", SCORESERVE_REDIS_URL=address, SCORESERVE_SERVER="http://127.0.0.1:1")
    found = findings(result)
    assert result.exit_code == 1
    assert (found["redis"][0], found["service"][0]) == ("mend", "mend")
    assert "workers" not in found
    assert f"no Redis at unix://me:***@{tmp_path}/none" in found["redis"][1]
    assert "secret" not in result.output


def test_a_service_that_was_stopped(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody named the Redis that is usual: it is not told of as one that is missing."""
    real = cli.diagnosis.connect
    monkeypatch.setattr(
        "cli.diagnosis.connect", lambda url, *told, **more: real(f"unix://{tmp_path}/no", *told, **more)
    )
    unset = dict.fromkeys(("SCORESERVE_REDIS_URL", "REDIS_URL"))
    options = ("--data-dir", str(tmp_path), "--server", "http://127.0.0.1:1")
    result = command("doctor", "--json", *options, **unset)
    state, said = findings(result)["redis"]
    assert state == "mend"
    assert said.startswith(f"no Redis is named, nor does `scoreserve up` run with the data directory {tmp_path}")
    assert "start `scoreserve up`" in said
    assert "SCORESERVE_REDIS_URL" in said
    assert "6379" not in result.output


def test_the_usual_redis_is_said_to_be_taken_where_it_answers(
    command: Command, sound: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = cli.diagnosis.connect
    url = sound["SCORESERVE_REDIS_URL"]
    monkeypatch.setattr("cli.diagnosis.connect", lambda _, *told, **more: real(url, *told, **more))
    unset = dict.fromkeys(("SCORESERVE_REDIS_URL", "REDIS_URL"))
    result = command("doctor", "--json", "--data-dir", str(tmp_path), **unset)
    assert findings(result)["redis"][0] == "good"
    assert result.stderr.startswith("takes redis://127.0.0.1:6379/0: no Redis is named, nor does `scoreserve up` run")


def test_a_service_that_is_not_ready(command: Command, service: Service, sound: dict[str, str]) -> None:
    service.answers["GET /readyz"] = problem(503, "no-worker", "no worker is alive")
    state, said = findings(command("doctor", "--json", **sound))["service"]
    assert (state, "not ready: no worker is alive" in said) == ("mend", True)


def test_a_checkpoint_that_is_damaged(
    command: Command, sound: dict[str, str], publish_other: Callable[..., Any], tmp_path: Path
) -> None:
    publish_other(tmp_path, "aaa")
    publish_other(tmp_path, "zzz")
    weights = tmp_path / "zzz" / "1" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    found = findings(command("doctor", "--json", **sound, SCORESERVE_MODELS_DIR=str(tmp_path)))
    assert found["models"][0] == "mend"
    assert "zzz" in found["models"][1]


def test_a_model_whose_network_is_not_here(
    command: Command, sound: dict[str, str], publish_other: Callable[..., Any], tmp_path: Path
) -> None:
    publish_other(tmp_path, "zzz")
    path = tmp_path / "zzz" / "1" / "card.json"
    path.write_text(path.read_text().replace('"kind": "unet"', '"kind": "theirs"'))
    state, said = findings(command("doctor", "--json", **sound, SCORESERVE_MODELS_DIR=str(tmp_path)))["models"]
    assert state == "mend"
    assert "zzz version 1: network 'theirs' is unknown here" in said


def test_a_device_that_is_not_there(command: Command, sound: dict[str, str]) -> None:
    state, said = findings(command("doctor", "--json", **sound, SCORESERVE_DEVICE="cuda:77"))["device"]
    assert state == "mend"
    assert "one of: cpu" in said


def test_what_runs_here_is_looked_at(
    command: Command, sound: dict[str, str], service: Service, publish_other: Callable[..., Any], tmp_path: Path
) -> None:
    """Its queue, its address and its models, whichever are meant by default."""
    publish_other(tmp_path / "store", "aaa")
    settings = {"SCORESERVE_MODELS_DIR": str(tmp_path / "store"), "SCORESERVE_DEFAULT_MODEL": "aaa"}
    held = Running(1, service.address, sound["SCORESERVE_REDIS_URL"], settings).write_down(tmp_path)
    unset = dict.fromkeys(("SCORESERVE_REDIS_URL", "REDIS_URL", "SCORESERVE_SERVER", *settings))
    result = command("doctor", "--json", "--data-dir", str(tmp_path), **unset)
    assert result.exit_code == 0, result.output
    assert service.address in findings(result)["service"][1]
    assert any("aaa" in one["found"] for one in json.loads(result.stdout)["findings"] if one["subject"] == "models")
    assert held is not None
    os.close(held)


def test_workers_that_are_suspended(command: Command, sound: dict[str, str], redis: Redis) -> None:
    suspend(redis)
    state, said = findings(command("doctor", "--json", **sound))["workers"]
    resume(redis)
    assert (state, "rq resume" in said) == ("mend", True)
