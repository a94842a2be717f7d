"""Containers: one Compose project on a Docker engine, and the service in it as it is asked over HTTP."""

import io
import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
PORT = 18080
SERVICE = f"http://127.0.0.1:{PORT}"
ENVIRONMENT = {
    **os.environ,
    "COMPOSE_PROJECT_NAME": "scoreserve-deployment",
    "PUBLISH_PORT": str(PORT),
    "SCORESERVE_LEASE_SECONDS": "5",
    "COMPOSE_HTTP_TIMEOUT": "600",  # for docker-compose 1.29 and a slow disk
}


class Shown(AssertionError):
    """What was to be shown is not so."""


@dataclass
class Asker:
    """Who asks, unless another key is named: with this one, once it is made. And how often it was told to ask again."""

    key: str = ""
    put_off: int = 0


US = Asker()


# Docker.

COMPOSE = ["docker-compose"]
if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
    COMPOSE = ["docker", "compose"]


def run(*command: str, **settings: str) -> str:
    return run_bytes(*command, given=b"", **settings).decode()


def run_bytes(*command: str, given: bytes = b"", **settings: str) -> bytes:
    environment = ENVIRONMENT | settings
    return subprocess.run(command, cwd=ROOT, env=environment, input=given, capture_output=True, check=True).stdout


def docker(*arguments: str) -> str:
    return run("docker", *arguments)


def compose(*arguments: str, **settings: str) -> str:
    """Compose, with these variables besides."""
    return run(*COMPOSE, *arguments, **settings)


def ids(service: str) -> list[str]:
    """Containers of a service that run."""
    project = ENVIRONMENT["COMPOSE_PROJECT_NAME"]
    labels = [f"label=com.docker.compose.project={project}", f"label=com.docker.compose.service={service}"]
    return docker("ps", "-q", *(part for label in labels for part in ("--filter", label))).split()


def exec_in(service: str, *command: str) -> str:
    return docker("exec", ids(service)[0], *command).strip()


def run_aside(service: str, *command: str) -> str:
    """The name of a container of a service beside those that run, with this command in place of its own."""
    return compose("run", "-d", "--entrypoint", command[0], service, *command[1:]).split()[-1]


def networks_of(container: dict[str, Any]) -> list[str]:
    """The networks of a container, as docker-compose.yml names them."""
    project = f"{ENVIRONMENT['COMPOSE_PROJECT_NAME']}_"
    return sorted(name.removeprefix(project) for name in container["NetworkSettings"]["Networks"])


def described_image(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("image", "inspect", name))[0]
    return found


def described(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", name))[0]
    return found


def have(repository: str) -> bool:
    if docker("images", "-q", repository):
        return True
    tags = compose("--profile", "monitoring", "config")
    names = [line.split()[-1] for line in tags.splitlines() if f"image: {repository}" in line]
    return subprocess.run(["docker", "pull", "-q", *names], capture_output=True, check=False).returncode == 0


# HTTP.


def request(
    path: str, data: bytes | None = None, headers: dict[str, str] | None = None, timeout: float = 300
) -> tuple[int, bytes]:
    """Status and body; 0 if nobody answers."""
    asked = urllib.request.Request(SERVICE + path, data, headers or {})
    try:
        with urllib.request.urlopen(asked, timeout=timeout) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def get(path: str, timeout: float = 30, key: str | None = None) -> tuple[int, bytes]:
    return request(path, headers=_authorization(key), timeout=timeout)


def post(
    path: str, body: dict[str, Any], accept: str = "application/json", key: str | None = None
) -> tuple[int, bytes]:
    headers = {"Content-Type": "application/json", "Accept": accept, **_authorization(key)}
    return request(path, json.dumps(body).encode(), headers)


def _authorization(key: str | None = None) -> dict[str, str]:
    key = US.key if key is None else key
    return {"Authorization": f"Bearer {key}"} if key else {}


def multipart(path: str, fields: dict[str, str], files: dict[str, bytes]) -> tuple[int, bytes]:
    boundary, body = uuid.uuid4().hex, io.BytesIO()
    for name, value in fields.items():
        body.write(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    for name, content in files.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.png"\r\n\r\n'
        body.write(head.encode() + content + b"\r\n")
    body.write(f"--{boundary}--\r\n".encode())
    kind = f"multipart/form-data; boundary={boundary}"
    return request(path, body.getvalue(), {"Content-Type": kind, "Accept": "image/png", **_authorization()})


def submit(body: dict[str, Any]) -> dict[str, Any]:
    """A job. On a machine that does much else Redis may take longer than an answer may: then it is asked for again."""
    for _ in range(30):
        status, answer = post("/samples", body)
        if status != 503:
            break
        US.put_off += 1
        time.sleep(1)
    check(status == 202, f"{status}: {answer!r}")
    job: dict[str, Any] = json.loads(answer)
    return job


def look(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def answered() -> bool:
        status, body = get(f"/jobs/{job['id']}")
        check(status != 404, f"job {job['id']} is lost")
        if status == 200:
            found.update(json.loads(body))
        return bool(found)

    wait(answered, 60, "an answer")
    return found


def finished(job: dict[str, Any], seconds: float = 420) -> dict[str, Any]:
    """The job at its end, which is checked to be a good one with all its images."""
    wait(lambda: look(job)["state"] not in ("queued", "running"), seconds, lambda: f"ended: {look(job)}")
    end = look(job)
    check(end["state"] == "finished", f"job {job['id']} is {end['state']}: {end['error']}")
    status, npz = get(f"/jobs/{job['id']}/samples.npz")
    check(status == 200 and "images.npy" in zipfile.ZipFile(io.BytesIO(npz)).namelist(), f"npz: {status}")
    return end


def models() -> list[dict[str, Any]]:
    answer = json.loads(get("/models")[1])
    listed: list[dict[str, Any]] = answer["models"] if isinstance(answer, dict) else answer
    return listed


def ready_workers() -> int:
    status, body = get("/readyz")
    return int(json.loads(body)["workers"]) if status == 200 else 0


def prometheus(path: str) -> dict[str, Any]:
    """Prometheus is not published: it is asked from inside."""
    code = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=10).read().decode())"
    answer: dict[str, Any] = json.loads(exec_in("api", "python", "-c", code, f"http://prometheus:9090{path}"))
    return answer


def query(expression: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = prometheus(f"/api/v1/query?query={urllib.parse.quote(expression)}")["data"]["result"]
    return found


def check(true: bool, otherwise: str) -> None:
    if not true:
        raise Shown(otherwise)


def wait(condition: Callable[[], bool], seconds: float, what: str | Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < deadline, f"not {what if isinstance(what, str) else what()} after {seconds:.0f} s")
        time.sleep(0.25)
