"""What clients ask of a deployment."""

import json
import re
import subprocess
import time
from urllib.parse import urljoin

from tests.system.deployment.containers import (
    US,
    check,
    compose,
    exec_in,
    finished,
    get,
    have,
    ids,
    look,
    models,
    multipart,
    post,
    submit,
    wait,
)
from tests.system.deployment.project import LARGE, Project


class Serving(Project):
    """What is asked of the project."""

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

    def grid(self) -> str:
        begun = time.monotonic()
        status, body = post("/samples", {"count": 16, "seed": 1, "sampler": {"name": "euler"}}, accept="image/png")
        check(status == 200 and body.startswith(b"\x89PNG"), f"{status}: {body[:200]!r}")
        self.pace = 16 * 35 / (time.monotonic() - begun)
        return f"16 images through the published port, a PNG of {len(body)} bytes; {self.pace:.0f} image-steps a second"

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
