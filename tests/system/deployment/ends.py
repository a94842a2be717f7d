"""Containers that end: killed, restarted, stopped, replaced and restored."""

import subprocess
import time
from collections.abc import Callable

from tests.system.deployment.containers import (
    COMPOSE,
    ENVIRONMENT,
    ROOT,
    check,
    compose,
    described,
    docker,
    finished,
    get,
    ids,
    look,
    ready_workers,
    run_bytes,
    submit,
    wait,
)
from tests.system.deployment.project import Project


class Ends(Project):
    """How parts of the project end, and what becomes of jobs then."""

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
