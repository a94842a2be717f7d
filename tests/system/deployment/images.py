"""Images of containers: what is in them, and how large they are."""

import shutil
import subprocess
import uuid

from tests.system.deployment.containers import ROOT, check, compose, described_image, docker
from tests.system.deployment.project import NOT_RUN, Project

SECRET = f"secret of {uuid.uuid4().hex}".encode()
API_LIMIT_MB = 250  # of the API's image above its base


class Images(Project):
    """Images of the project."""

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
