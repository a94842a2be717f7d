"""A project of containers that is tried: what all of its steps know."""

import io
import zipfile
from typing import Any

from tests.system.deployment.containers import check, get, submit

NOT_RUN = "see below"
LARGE = {"count": 1400, "seed": 6, "sampler": {"name": "euler", "levels": 2}}  # more than a mebibyte of images


class Project:
    """One project of containers."""

    def __init__(self) -> None:
        self.pace = 100.0  # image-steps a second of one worker, until it is measured
        self.not_shown = ["docker/gpu.yml: it needs an engine with GPUs"]

    def long_job(self, seconds: float) -> dict[str, Any]:
        """A job of three shards that takes one worker about so long, as fast as this machine is just now."""
        levels = min(1000, max(12, round(seconds * self.pace / 48)))
        return submit({"count": 48, "seed": 5, "sampler": {"name": "euler", "levels": levels}})

    def _images(self, job: dict[str, Any]) -> bytes:
        status, npz = get(f"/jobs/{job['id']}/samples.npz")
        check(status == 200, f"npz: {status}")
        return zipfile.ZipFile(io.BytesIO(npz)).read("images.npy")
