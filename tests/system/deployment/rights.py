"""What containers and keys may, and what nobody gets to see."""

import json
import subprocess

from tests.system.deployment.containers import (
    ENVIRONMENT,
    PORT,
    US,
    check,
    compose,
    described,
    docker,
    exec_in,
    finished,
    get,
    ids,
    networks_of,
    post,
    run_aside,
    submit,
    wait,
)
from tests.system.deployment.project import Project

NETWORKS = {  # of each, as docker-compose.yml is meant
    "redis": ["inside"],
    "api": ["inside", "outside"],
    "worker": ["inside"],
    "prometheus": ["inside"],
    "grafana": ["inside", "outside"],
    "train": ["inside"],
    "passwords": ["none"],
}
LOOK = (  # what the kernel says of a container's first process, from inside
    "id -u; grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs):' /proc/1/status; "
    """awk '$2 == "00000000" { print "out:\t1" }' /proc/net/route; """
    "touch /x 2>/dev/null && printf 'writable:\t1\n'; true"
)


class Rights(Project):
    """What may be done in the project, and by whom."""

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
