"""The API process has no torch in it, and is small."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.ports import free_port

# Importing torch or safetensors fails in this process, wherever it is tried.
WITHOUT_TORCH = """
import asyncio, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "safetensors"):
            raise ImportError(f"{name} is not for the service")

sys.meta_path.insert(0, Refuse())

import base64, io
import httpx
from PIL import Image
from models.samplers.settings import SAMPLERS
from service.app import create_app
from service.settings import ServiceSettings

buffer = io.BytesIO()
Image.new("L", (8, 8), 255).save(buffer, "PNG")
picture = base64.b64encode(buffer.getvalue()).decode()
app = create_app(ServiceSettings(redis_url=sys.argv[1], models_dir=sys.argv[2], default_model="tiny"))

async def main():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        for sampler in SAMPLERS:
            response = await client.post("/samples", json={"sampler": {"name": sampler.known_as()}})
            other = sampler.of_consistency or sampler.needs_known  # than what can be asked for here
            assert response.status_code == (422 if other else 202), response.text
        response = await client.post("/inpaint", json={"image": picture, "mask": picture})
        assert response.status_code == 202, response.text
        address = response.headers["location"]
        for method, url, status in (
            ("GET", address, 200),
            ("GET", address + "/grid.png", 409),
            ("DELETE", address, 200),
            ("GET", "/models", 200),
            ("GET", "/models/tiny", 200),
            ("GET", "/readyz", 503),
            ("GET", "/metrics", 200),
            ("GET", "/openapi.json", 200),
            ("PUT", "/samples", 405),
        ):
            response = await client.request(method, url)
            assert response.status_code == status, (method, url, response.text)

asyncio.run(main())
try:
    import torch
except ImportError:
    print("served without torch")
"""


def test_requests_are_served_where_torch_cannot_be_imported(service_url: str, models_dir: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, service_url, str(models_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "served without torch"


def test_the_process_is_small(service_url: str, models_dir: Path, until: Callable[..., None]) -> None:
    port = free_port()
    environment = {**os.environ, "SCORESERVE_MODELS_DIR": str(models_dir), "SCORESERVE_DEFAULT_MODEL": "tiny"}
    command = [sys.executable, "-m", "cli.main", "api", "--redis-url", service_url, "--port", str(port)]
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{address}/healthz").status_code == 200
        except httpx.TransportError:
            return False

    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        until(answers)
        assert httpx.post(f"{address}/samples", json={}).status_code == 202
        time.sleep(0.2)
        assert _megabytes(process.pid) < 150
        libraries = Path(f"/proc/{process.pid}/maps").read_text()
        assert "pydantic_core" in libraries
        assert "libtorch" not in libraries
        process.terminate()
        assert process.wait(60) in (0, -15)
    finally:
        process.kill()
        process.wait()


def _megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")
