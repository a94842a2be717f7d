"""The whole deployment on a real Docker engine: `python -m tests.system.deployment`. No part of the test suite.

It builds the images, starts all of docker-compose.yml as a project of its own, and does what an
operator does: scales, kills, restarts, trains, rotates passwords, stops. Each line says what was seen; what could not
be shown is said too. Needs Docker with Compose v2 or docker-compose 1.29, and about 15 GB of disk; COMPOSE_FILE may
name override files. At the end everything is removed but the images.
"""

import argparse
import io
import json
import re
import shutil
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

from tests.system.containers import (
    COMPOSE,
    ENVIRONMENT,
    PORT,
    ROOT,
    US,
    Shown,
    check,
    compose,
    described,
    described_image,
    docker,
    exec_in,
    finished,
    get,
    have,
    ids,
    look,
    models,
    multipart,
    networks_of,
    post,
    prometheus,
    query,
    ready_workers,
    run_aside,
    run_bytes,
    submit,
    wait,
)

SECRET = f"secret of {uuid.uuid4().hex}".encode()
API_LIMIT_MB = 250  # of the API's image above its base
NETWORKS = {  # of each, as docker-compose.yml is meant
    "redis": ["inside"],
    "api": ["inside", "outside"],
    "worker": ["inside"],
    "prometheus": ["inside"],
    "grafana": ["inside", "outside"],
    "train": ["inside"],
    "passwords": ["none"],
}
NOT_RUN = "see below"
LARGE = {"count": 1400, "seed": 6, "sampler": {"name": "euler", "levels": 2}}  # more than a mebibyte of images
LOOK = (  # what the kernel says of a container's first process, from inside
    "id -u; grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs):' /proc/1/status; "
    """awk '$2 == "00000000" { print "out:\t1" }' /proc/net/route; """
    "touch /x 2>/dev/null && printf 'writable:\t1\n'; true"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-build", action="store_true", help="the images are there already")
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    options = parser.parse_args()
    deployment = Deployment()
    failed = []
    try:
        for step in deployment.steps(build=not options.no_build):
            begun = time.monotonic()
            name = step.__name__.replace("_", " ")
            try:
                said = step()
                mark = "not run" if said is NOT_RUN else "ok     "
                print(f"{mark} {name} ({time.monotonic() - begun:.0f} s): {said}", flush=True)
            except (Shown, OSError, KeyError, subprocess.CalledProcessError) as error:
                failed.append(name)
                output = getattr(error, "stderr", None) or getattr(error, "output", None) or b""
                print(f"FAILED  {name}: {error}\n{output.decode()[-2000:]}", flush=True)
                if step in (deployment.build, deployment.up):
                    break
    finally:
        for reason in deployment.not_shown:
            print(f"not shown: {reason}", flush=True)
        if not options.keep:
            compose("--profile", "monitoring", "--profile", "train", "down", "--volumes", "--remove-orphans")
    if US.put_off:
        print(f"{US.put_off} requests for jobs were answered with 503, and asked again", flush=True)
    print(f"\n{len(failed)} failed" + (f": {', '.join(failed)}" if failed else ""))
    sys.exit(bool(failed))


class Deployment:
    """One project of containers, and what is done with it."""

    def __init__(self) -> None:
        self.pace = 100.0  # image-steps a second of one worker, until it is measured
        self.not_shown = ["docker/gpu.yml: it needs an engine with GPUs"]

    def steps(self, build: bool) -> list[Callable[[], str]]:
        return [
            *([self.build, self.layers] if build else []),
            self.sizes,
            self.up,
            self.the_first_key,
            self.what_each_may,
            self.secrets,
            self.published,
            self.grid,
            self.inpainting,
            self.page,
            self.shell,
            self.keys,
            self.large_jobs,
            self.three_workers,
            self.the_results_store_goes_away,
            self.what_is_cancelled_leaves_the_store,
            self.a_worker_is_killed,
            self.redis_is_restarted,
            self.redis_is_killed,
            self.training,
            self.a_new_version,
            self.prometheus_targets,
            self.dashboard,
            self.rules,
            self.grafana,
            self.memory,
            self.passwords_are_rotated,
            self.a_worker_is_stopped,
            self.the_api_is_replaced,
            self.a_release_replaces_another,
            self.the_queue_is_restored,
            self.audit,
        ]

    def build(self) -> str:
        beside = [ROOT / "of-deployment.py", ROOT / "docker/of-deployment.py"]  # where secrets and notes may lie
        try:
            for file in beside:
                file.write_bytes(SECRET)
            compose("--profile", "train", "build", "api", "worker", "train")
        finally:
            for file in beside:
                file.unlink(missing_ok=True)
        return "api, worker, train"

    def layers(self) -> str:
        images, ours = (
            [f"scoreserve-{name}" for name in ("api", "worker", "train")],
            b"for name in SCORESERVE_REDIS_URL",
        )
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saving:
            assert saving.stdout is not None
            found, end = set(), b""
            while piece := saving.stdout.read(2**22):
                found |= {text for text in (SECRET, ours) if text in end + piece}
                end = piece[-100:]
        check(ours in found, "the layers cannot be read")
        check(SECRET not in found, "a file that lies beside the code is in a layer")
        return "a file that lay beside the code is in no layer of the three"

    def sizes(self) -> str:
        base = described_image("python:3.11.15-slim-bookworm")["Size"]
        above = {
            name: (described_image(f"scoreserve-{name}")["Size"] - base) / 1e6 for name in ("api", "worker", "train")
        }
        check(above["api"] < API_LIMIT_MB, f"the api is {above['api']:.0f} MB above its base")
        return ", ".join(f"{name} {mb:.0f} MB" for name, mb in above.items()) + f" above the base ({base / 1e6:.0f} MB)"

    def up(self) -> str:
        there = [image for image in ("prom/prometheus", "grafana/grafana") if have(image)]
        if "grafana/grafana" not in there:
            self.not_shown.append(
                "Grafana itself: its image is not to be had here; its queries are asked of Prometheus"
            )
        parts = [name for name in ("prometheus", "grafana") if any(name in image for image in there)]
        compose("--profile", "monitoring", "up", "-d", "--no-build", "redis", "api", "worker", *parts)
        wait(lambda: get("/readyz")[0] == 200, 180, "ready")
        return f"redis, api, worker, {', '.join(parts)}: ready"

    def the_first_key(self) -> str:
        check((status := post("/samples", {"count": 1}, key="")[0]) == 401, f"while there are no keys: {status}")
        US.key = exec_in("api", "scoreserve", "keys", "create", "deployment")
        check((status := get("/jobs")[0]) == 200, f"with the first key: {status}")
        return "401 to whoever has none, from the start; all below asks with the first one"

    def what_each_may(self) -> str:
        """As the kernel has it of their first process, and the engine of their networks, volumes and memory."""
        aside = {name: run_aside(name, "sleep", "600") for name in ("train", "passwords")}
        try:
            running = [(name, one) for name in NETWORKS if name not in aside for one in ids(name)]
            lines = [_what_it_may(name, container) for name, container in [*running, *aside.items()]]
        finally:
            docker("rm", "--force", "--volumes", *aside.values())
        inside = f"{ENVIRONMENT['COMPOSE_PROJECT_NAME']}_inside"
        internal = docker("network", "inspect", "--format", "{{.Internal}}", inside).strip()
        check(internal == "true", "the network inside has a way to the world")
        return "the network inside has no way to the world" + "".join(f"\n        {line}" for line in lines)

    def secrets(self) -> str:
        passwords = [exec_in("api", "cat", "/secrets/password"), exec_in("worker", "cat", "/secrets/password")]
        check(passwords[0] != passwords[1], "service and worker have one password")
        seen = "".join(docker("inspect", container) for name in ("redis", "api", "worker") for container in ids(name))
        seen += "".join(docker("history", "--no-trunc", f"scoreserve-{name}") for name in ("api", "worker", "train"))
        seen += compose("logs", "--no-color")
        check(not any(password in seen for password in passwords), "a password shows")
        return "no password in docker inspect, docker history or the logs"

    def published(self) -> str:
        found = [
            line for line in docker("ps", "--format", "{{.Names}} {{.Ports}}").splitlines() if "scoreserve" in line
        ]
        ports = [line for line in found if "->" in line]
        check(len(ports) == 1, f"published: {ports}")
        check(f"127.0.0.1:{PORT}->8000/tcp" in ports[0], ports[0])
        check((status := get("/metrics")[0]) == 404, f"/metrics on the port for all: {status}")
        return f"{ports[0]}; /metrics is not there"

    def grid(self) -> str:
        begun = time.monotonic()
        status, body = post("/samples", {"count": 16, "seed": 1, "sampler": {"name": "euler"}}, accept="image/png")
        check(status == 200 and body.startswith(b"\x89PNG"), f"{status}: {body[:200]!r}")
        self.pace = 16 * 35 / (time.monotonic() - begun)
        return f"16 images through the published port, a PNG of {len(body)} bytes; {self.pace:.0f} image-steps a second"

    def long_job(self, seconds: float) -> dict[str, Any]:
        """A job of three shards that takes one worker about so long, as fast as this machine is just now."""
        levels = min(1000, max(12, round(seconds * self.pace / 48)))
        return submit({"count": 48, "seed": 5, "sampler": {"name": "euler", "levels": levels}})

    def inpainting(self) -> str:
        job = finished(submit({"count": 1, "seed": 3}))
        picture = get(f"/jobs/{job['id']}/images/0.png")[1]
        code = (
            "import sys; from PIL import Image; m = Image.new('L', (28, 28)); m.paste(255, (14, 0, 28, 28)); "
            "m.save(sys.stdout.buffer, 'png')"
        )
        mask = subprocess.run(
            ["docker", "exec", ids("api")[0], "python", "-c", code], capture_output=True, check=True
        ).stdout
        status, body = multipart("/inpaint", {"count": "4"}, {"image": picture, "mask": mask})
        check(status == 200 and body.startswith(b"\x89PNG"), f"{status}: {body[:200]!r}")
        return "the right half of a digit, four times"

    def page(self) -> str:
        status, body = get("/")
        paths = ["/", "/docs", "/openapi.json", "/problems", "/samplers", "/workers", "/models/mnist/preview.png"]
        for path in paths:  # which grows by what is found in them
            status, body = get(path)
            check(status == 200, f"{path}: {status}")
            loaded = re.findall(r'(?:src|href)="(static/[^"]+)"|from "(\.[\w./]+\.js)"', body.decode("latin-1"))
            paths += {urljoin(path, "".join(names)) for names in loaded} - {*paths}
        files = sum(path.startswith("/static/") for path in paths)
        check(files > 20, str(paths))
        events = get(f"/jobs/{self.long_job(15)['id']}/events?previews=true", timeout=120)[1].decode()
        kinds = re.findall(r"^event: (\w+)", events, re.MULTILINE)
        check({"progress", "preview", "done"} <= {*kinds} and kinds[-1] == "done", str(kinds))
        return f"it, the {files} files that it loads, and /docs; {len(kinds)} events of a job, previews too, as it ran"

    def shell(self) -> str:
        key = ["--api-key", US.key]
        exec_in("api", "scoreserve", "sample", "--count", "4", "--no-show", "--out", "/tmp/four.png", *key)
        told = json.loads(exec_in("worker", "scoreserve", "doctor", "--server", "http://api:8000", "--json", *key))
        check(told["healthy"], str(told))
        noted = [finding["found"] for finding in told["findings"] if finding["state"] != "good"]
        return f"`scoreserve sample` in the api; the doctor in a worker finds all well, and notes {noted or 'nothing'}"

    def keys(self) -> str:
        alice, bob = (exec_in("api", "scoreserve", "keys", "create", name, "--image-steps", "1000") for name in "ab")
        small = {"count": 16, "sampler": {"name": "euler", "levels": 40}}  # 640 of 1,000 image-steps
        status, answer = post("/samples", small, key=alice)
        check(status == 202, f"with a key: {status} {answer!r}")
        job = json.loads(answer)
        listed = exec_in("api", "scoreserve", "operator", "jobs")
        check(job["id"] in listed, f"the operator sees: {listed}")
        check((status := get(f"/jobs/{job['id']}", key=bob)[0]) == 404, f"another's job: {status}")
        check((status := post("/samples", small, key=alice)[0]) == 429, f"over the quota: {status}")
        check((status := post("/samples", small, key=bob)[0]) == 202, f"another's quota: {status}")
        for key in (alice, bob):
            exec_in("api", "scoreserve", "keys", "revoke", key.split("_")[1])
            check((status := post("/samples", small, key=key)[0]) == 401, f"a revoked key: {status}")
        return "another's job 404, over the quota 429, revoked 401; the operator's command lists everybody's jobs"

    def large_jobs(self) -> str:
        job = finished(submit(LARGE))
        listed = exec_in("worker", "ls", "-ln", f"/results/{job['id']}").splitlines()[1:]
        owners, sizes = {line.split()[2] for line in listed}, [int(line.split()[4]) for line in listed]
        check(owners == {"10001"} and sum(sizes) == LARGE["count"] * 28 * 28, "\n".join(listed))
        code = "import sys, redis; r = redis.Redis.from_url(sys.argv[1]); print(sum(map(len, r.hvals(sys.argv[2]))))"
        url = exec_in("worker", "cat", "/secrets/redis-url")
        there = int(exec_in("worker", "python", "-c", code, url, f"scoreserve:job:{job['id']}:images"))
        check(there < 100 * len(sizes), f"{there} bytes are in Redis")
        tried = exec_in("api", "sh", "-c", "touch /results/x 2>/dev/null && echo writable; true")
        check(tried == "", "the API may write into the results store")
        before = self._images(job)
        status, grid = get(f"/jobs/{job['id']}/grid.png", timeout=120)
        check(status == 200 and grid.startswith(b"\x89PNG"), f"{status}: {grid[:200]!r}")
        kept = exec_in("api", "find", "/views", "-type", "f").splitlines()
        check(kept != [], "no drawn picture is kept in the volume views")
        compose("restart", "api")
        wait(lambda: get("/readyz")[0] == 200, 120, "ready again")
        check(self._images(job) == before, "other images after a restart")
        return (
            f"{LARGE['count']} images are {len(sizes)} files, {sum(sizes)} bytes, of user 10001 in the volume results "
            f"and {there} bytes in Redis; the API, which may not write there, has the same before and after a restart"
        )

    def _images(self, job: dict[str, Any]) -> bytes:
        status, npz = get(f"/jobs/{job['id']}/samples.npz")
        check(status == 200, f"npz: {status}")
        return zipfile.ZipFile(io.BytesIO(npz)).read("images.npy")

    def the_results_store_goes_away(self) -> str:
        before = finished(submit(LARGE))
        job = submit(LARGE)
        wait(lambda: look(job)["progress"]["image_steps_done"] > 0, 120, "begun")
        exec_in("worker", "chmod", "0", "/results")
        try:
            logs = ["logs", "--no-color", "worker"]
            wait(lambda: "PermissionError" in compose(*logs), 180, "told by a worker that its store is away")
            status = get(f"/jobs/{before['id']}/samples.npz")[0]
            check(status == 503, f"what is in a store that is away: {status}")
            check((state := look(job)["state"]) == "running", f"the job is {state}")
        finally:
            exec_in("worker", "chmod", "700", "/results")
        finished(job)
        check(self._images(job) == self._images(before), "other images of the same request")
        return "what is in it 503 meanwhile; the job waited, and finished with the same images"

    def what_is_cancelled_leaves_the_store(self) -> str:
        job = submit({**LARGE, "count": 50_000})
        there = ["sh", "-c", f"ls /results | grep -c {job['id']}; true"]
        wait(lambda: exec_in("worker", *there) == "1", 180, "in the store")
        check((status := post(f"/jobs/{job['id']}/cancel", {})[0]) == 200, f"cancelled: {status}")
        begun = time.monotonic()
        wait(lambda: exec_in("worker", *there) == "0", 180, "removed from the store")
        return f"the files of a cancelled job were gone after {time.monotonic() - begun:.0f} s"

    def memory(self) -> str:
        used = docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}").splitlines()
        mine = [line for line in used if line.startswith(ENVIRONMENT["COMPOSE_PROJECT_NAME"])]
        killed = [line for line in mine if described(line.split()[0])["State"]["OOMKilled"]]
        check(killed == [], f"killed for want of memory: {killed}")
        return "; ".join(mine)

    def three_workers(self) -> str:
        compose("up", "-d", "--no-build", "--scale", "worker=3", "worker")
        wait(lambda: ready_workers() == 3, 120, "three workers")
        return "readyz counts 3"

    def a_worker_is_killed(self) -> str:
        job = self.long_job(30)
        wait(lambda: look(job)["progress"]["image_steps_done"] > 0, 60, "begun")
        done = look(job)["progress"]
        victim = ids("worker")[0]
        docker("kill", "--signal", "KILL", victim)
        again = finished(job)
        return f"killed at {done['image_steps_done']} of {done['image_steps']} image-steps; {again['state']}"

    def redis_is_restarted(self) -> str:
        compose("up", "-d", "--no-build", "--scale", "worker=3", "worker")
        return self._redis_goes_away(lambda: compose("restart", "redis"))

    def redis_is_killed(self) -> str:
        def kill() -> None:
            docker("kill", "--signal", "KILL", *ids("redis"))
            compose("start", "redis")

        return self._redis_goes_away(kill)

    def _redis_goes_away(self, away: Callable[[], object]) -> str:
        jobs = [submit({"count": 4, "seed": i, "sampler": {"name": "euler", "levels": 20}}) for i in range(12)]
        away()
        wait(lambda: get("/readyz")[0] == 200, 120, "ready again")
        ends = [finished(job)["state"] for job in jobs]
        return f"{len(jobs)} jobs accepted before, {ends.count('finished')} finished after"

    def training(self) -> str:
        before = {model["weights_sha256"] for model in models()}
        self._train(1)
        new = {model["name"] for model in models() if model["weights_sha256"] not in before}
        check(new == {"toy2d"}, f"new models: {new}")
        job = finished(submit({"model": "toy2d", "count": 4, "seed": 1}))
        return f"the API that ran before lists toy2d; a worker that ran before made {job['count']} samples of it"

    def a_new_version(self) -> str:
        before = next(model["version"] for model in models() if model["name"] == "toy2d")
        self._train(2)
        job = finished(submit({"model": "toy2d", "count": 4, "seed": 1}))
        check(job["version"] == before + 1, f"version {job['version']} was served")
        return f"toy2d version {job['version']} is served in place of {before}, without a restart"

    def _train(self, number: int) -> None:
        own = ["--out", f"/runs/{number}", "--seed", str(number)]
        compose("run", "--rm", "-T", "train", "toy2d", *own, "--epochs", "0.2")

    def prometheus_targets(self) -> str:
        def up() -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            for sample in query("up"):
                found.setdefault(sample["metric"]["job"], []).append(sample["value"][1])
            return found

        wait(lambda: up() == {"api": ["1"], "worker": ["1"] * 3}, 420, lambda: f"all up: {up()}")
        return str({job: len(values) for job, values in up().items()}) + ", every one up == 1"

    def dashboard(self) -> str:
        for _ in range(2):  # a rate needs two scrapes with something between
            jobs = [submit({"count": 4, "seed": i, "sampler": {"name": "heun", "levels": 8}}) for i in range(6)]
            post("/samples", {"count": 0})
            for job in jobs:
                finished(job)
            time.sleep(12)
        file = ROOT / "docker/grafana/dashboards/scoreserve.json"
        panels = json.loads(file.read_text())["panels"]
        asked = [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", [])]
        empty = []
        for title, expression in asked:
            samples = query(expression.replace("$__rate_interval", "5m"))
            if not any(sample["value"][1] != "NaN" for sample in samples):
                empty.append(f"{title}: {expression}")
        check(not empty, "no data: " + "; ".join(empty))
        return f"{len(asked)} of {len(asked)} queries return data"

    def rules(self) -> str:
        groups = prometheus("/api/v1/rules")["data"]["groups"]
        found = [rule for group in groups for rule in group["rules"]]
        check(found != [] and all(rule["health"] == "ok" for rule in found), str(found))
        return f"{len(found)} alerts, all evaluated; firing: {[r['name'] for r in found if r['state'] == 'firing']}"

    def grafana(self) -> str:
        if not ids("grafana"):
            return NOT_RUN
        code = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
        found = exec_in("api", "python", "-c", code, "http://grafana:3000/api/dashboards/uid/scoreserve")
        check(json.loads(found)["meta"]["provisioned"], found)
        return "the dashboard is provisioned"

    def passwords_are_rotated(self) -> str:
        before = exec_in("worker", "cat", "/secrets/redis-url")
        job = self.long_job(15)
        compose("run", "--rm", "passwords", "rotate")
        compose("restart", "redis")
        compose("restart", "api", "worker")
        wait(lambda: get("/readyz")[0] == 200, 120, "ready again")
        finished(job)
        compose("run", "--rm", "passwords", "forget")
        compose("restart", "redis")
        wait(lambda: get("/readyz")[0] == 200, 120, "ready again")
        finished(submit({"count": 4}))
        code = "import sys, redis; redis.Redis.from_url(sys.argv[1]).ping()"
        tried = subprocess.run(
            ["docker", "exec", ids("worker")[0], "python", "-c", code, before],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        check("AuthenticationError" in tried.stderr, f"the old password: {tried.returncode} {tried.stderr[-200:]}")
        return "a job on its way finished, the old passwords are refused"

    def a_worker_is_stopped(self) -> str:
        job = self.long_job(120)  # more than it can finish in its grace
        wait(lambda: look(job)["state"] == "running", 60, "begun")
        victim, begun = ids("worker")[0], time.monotonic()
        docker("stop", "--time", "45", victim)
        took = time.monotonic() - begun
        code = docker("inspect", "--format", "{{.State.ExitCode}}", victim).strip()
        check(code == "0", f"exit code {code}")
        log = subprocess.run(["docker", "logs", victim], capture_output=True, text=True, check=True).stderr
        check("handing back shard" in log, f"it handed back nothing: {log[-500:]}")
        finished(job)
        return f"SIGTERM: it handed back and ended with code 0 after {took:.1f} s, the job finished"

    def the_api_is_replaced(self) -> str:
        job = self.long_job(15)
        command = [*COMPOSE, "up", "-d", "--no-build", "--no-deps", "--force-recreate", "api"]
        replacing = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        away, last = 0.0, time.monotonic()
        while replacing.poll() is None or get("/healthz", timeout=1)[0] != 200:
            answered = get("/healthz", timeout=1)[0] == 200
            clock = time.monotonic()
            away, last = away + (0.0 if answered else clock - last), clock
            time.sleep(0.05)
        finished(job)
        return f"no answer for {away:.1f} s; the job of before finished"

    def a_release_replaces_another(self) -> str:
        """As docs/operations.md has it, but that the new release is the same one by another name."""
        for name in ("api", "worker"):
            docker("tag", f"scoreserve-{name}:latest", f"scoreserve-{name}:deployment")
        job = self.long_job(30)
        wait(lambda: look(job)["state"] == "running", 60, "begun")
        for name in ("worker", "api"):
            compose("up", "-d", "--no-build", "--no-deps", name, TAG="deployment", WORKERS="2")
        wait(lambda: ready_workers() == 2, 120, "two workers")
        finished(job)
        images = {described(container)["Config"]["Image"] for name in ("api", "worker") for container in ids(name)}
        check(images == {"scoreserve-api:deployment", "scoreserve-worker:deployment"}, str(images))
        return "two workers (WORKERS=2) and the api by another TAG; the job of before finished"

    def the_queue_is_restored(self) -> str:
        job = self.long_job(30)
        wait(lambda: look(job)["progress"]["image_steps_done"] > 0, 60, "begun")
        kept = run_bytes(*COMPOSE, "exec", "-T", "redis", "sh", "/scoreserve/backup.sh")
        finished(job)
        before = get(f"/jobs/{job['id']}/grid.png")[1]
        late = submit({"count": 4})
        compose("stop")
        unpack = "rm -rf /data/* && tar -C /data -xf -"
        run_bytes(*COMPOSE, "run", "--rm", "-T", "--no-deps", "--entrypoint", "sh", "redis", "-c", unpack, given=kept)
        compose("up", "-d", "--no-build", "redis", "api", "worker", TAG="deployment")
        wait(lambda: get("/readyz")[0] == 200, 180, "ready")
        check(get(f"/jobs/{late['id']}")[0] == 404, "a job of after the back-up is there")
        begun = look(job)
        check(begun["state"] != "finished", f"the back-up has the job {begun['state']}")
        finished(job)
        check(get(f"/jobs/{job['id']}/grid.png")[1] == before, "other pixels")
        return f"a back-up of {len(kept) / 1e6:.1f} MB, made while a job ran, brings it back, to the same pixels"

    def audit(self) -> str:
        if shutil.which("pip-audit") is None:
            self.not_shown.append("pip-audit: it is not installed (pip install pip-audit)")
            return NOT_RUN
        code = (
            "from importlib.metadata import distributions as d; "
            "print(*{f'{x.name}=={x.version}' for x in d() if x.name != 'scoreserve'}, sep='\\n')"
        )
        listed = docker("run", "--rm", "--entrypoint", "python", "scoreserve-train", "-c", code)
        lines = sorted(line.split("+")[0] for line in listed.split())
        done = subprocess.run(
            ["pip-audit", "--no-deps", "--disable-pip", "-r", "/dev/stdin"],
            input="\n".join(lines), capture_output=True, text=True, check=False,
        )  # fmt: skip
        check(done.returncode == 0, done.stdout + done.stderr)
        if "could not be audited" in done.stdout:
            self.not_shown.append("pip-audit: the package index here does not tell of vulnerabilities")
            return NOT_RUN
        return f"{len(lines)} packages: {done.stdout.strip() or done.stderr.strip()}"


def _what_it_may(name: str, container: str) -> str:
    """A line on a container, which is checked to be as docker-compose.yml is meant."""
    user, *lines = docker("exec", container, "sh", "-c", LOOK).splitlines()
    kernel = dict(line.split(":\t") for line in lines)
    engine = described(container)
    networks, memory = networks_of(engine), engine["HostConfig"]["Memory"]
    writes = sorted(mount["Destination"] for mount in engine["Mounts"] if mount["RW"])
    capabilities = {kernel[kind] for kind in ("CapPrm", "CapEff", "CapBnd")}
    check((user == "0") == (name == "passwords"), f"{name} is user {user}")
    check(capabilities == {"0" * 16}, f"{name} has capabilities: {kernel}")
    check(kernel["NoNewPrivs"] == "1", f"{name} may get more privileges")
    check("writable" not in kernel, f"the root of {name} can be written to")
    check(networks == NETWORKS[name], f"{name} is in the networks {networks}")
    check(memory > 0, f"the memory of {name} has no bound")
    return (
        f"{name:10}  user {user:>5}, capabilities 0, no new privileges, root read-only; "
        f"networks {', '.join(networks)}; {memory / 2**20:.0f} MiB; writes {', '.join(writes) or 'nothing'}"
    )


if __name__ == "__main__":
    main()
