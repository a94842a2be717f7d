"""A client that a public generator writes from the OpenAPI document gets a grid."""

import compileall
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.system.markdown import Shell

GENERATOR = shutil.which("openapi-python-client")
USE = """
import sys
from generated import Client
from generated.api.jobs import get_grid, get_job
from generated.api.sampling import create_samples
from generated.models import SampleBody

client = Client(base_url=sys.argv[1])
job = create_samples.sync(client=client, body=SampleBody(count=4, seed=7), prefer="wait=60")
assert get_job.sync(job.id, client=client).state == "finished"
sys.stdout.buffer.write(get_grid.sync_detailed(job.id, client=client).content)
"""


@pytest.mark.skipif(GENERATOR is None, reason="openapi-python-client is not installed (pipx install it)")
def test_a_generated_client_compiles_and_gets_a_grid(shell: Shell, tmp_path: Path) -> None:
    document = httpx.get(f"{shell.address}/openapi.json").json()
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    command = [str(GENERATOR), "generate", "--path", "openapi.json", "--output-path", "generated", "--meta", "none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Unable to" not in done.stdout + done.stderr
    assert compileall.compile_dir(tmp_path / "generated", quiet=1)
    written = {path.stem.replace("_", "") for path in (tmp_path / "generated" / "api").rglob("*.py")}
    ids = {operation["operationId"] for methods in document["paths"].values() for operation in methods.values()}
    assert {name.lower() for name in ids} <= written
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    used = [sys.executable, "-c", USE, shell.address]
    grid = subprocess.run(used, env=environment, capture_output=True, check=False)
    assert grid.returncode == 0, grid.stderr.decode()
    assert grid.stdout.startswith(b"\x89PNG")
