"""How a deployment is watched."""

import json
import time

from tests.system.deployment.containers import (
    ENVIRONMENT,
    ROOT,
    check,
    described,
    docker,
    exec_in,
    finished,
    ids,
    post,
    prometheus,
    query,
    submit,
    wait,
)
from tests.system.deployment.project import NOT_RUN, Project


class Watching(Project):
    """What Prometheus and the engine tell of the project."""

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

    def memory(self) -> str:
        used = docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}").splitlines()
        mine = [line for line in used if line.startswith(ENVIRONMENT["COMPOSE_PROJECT_NAME"])]
        killed = [line for line in mine if described(line.split()[0])["State"]["OOMKilled"]]
        check(killed == [], f"killed for want of memory: {killed}")
        return "; ".join(mine)
