"""The list of samplers: what is added to it, by one file and one line, is in all that offers and reads samplers."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import models
from models.samplers import COMPARED, NAMES, USUAL
from models.samplers.settings import SAMPLERS, bare

ROOT = Path(models.__file__).parents[1]
ROOMS = ("cli", "service", "worker", "models", "scoreserve")

HALVED = '''"""Euler's method in steps of half the length."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal, Self

from models.samplers.families.descent import Descent
from models.samplers.sampler import Model
from models.schedules import to_zero
from models.samplers.table import Table


class Halved(Descent):
    """Euler's method with a level between each two."""

    title: ClassVar = "Halved steps"
    usual_levels: ClassVar = 5
    rows_per_level: ClassVar = 2

    name: Literal["halved"]

    @staticmethod
    def table(sigmas: Sequence[float]) -> Table:
        """Euler's rows, x += sigma (sigma - tau) s(x, sigma), over twice the levels."""
        between = [(before * after) ** 0.5 for before, after in pairwise(sigmas)]
        steps = to_zero(sorted([*sigmas, *between], reverse=True))
        return Table.of([(sigma, sigma * (sigma - tau), 0.0, 0.0, tau) for sigma, tau in steps], sigmas[0])

    def within(self, evaluations: int, model: Model) -> Self:
        return self.model_copy(update={"levels": (evaluations + 1) // 2})
'''

FOUND = """
import asyncio, json, sys, threading, time
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from typer.testing import CliRunner

import models
from cli.main import app as command
from models.card import ImageShape, ModelCard, NetworkSpec
from models.evaluation.settings import settings_of
from models.samplers import NAMES
from models.plan import plan
from service.app import create_app
from service.asking.schemas import SampleBody
from service.routes.house import samplers
from service.settings import ServiceSettings

assert Path(models.__file__).is_relative_to(Path.cwd()), models.__file__
body = SampleBody.model_validate({"sampler": {"name": "halved", "sigma_max": 5.0}})
card = ModelCard.model_validate({
    "name": "m",
    "version": 1,
    "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    "image": ImageShape(channels=1, height=8, width=8),
    "sigma_min": 0.01,
    "sigma_max": 10.0,
    "network": NetworkSpec(kind="unet", data_mean=0.1, data_std=0.3),
    "samplers": [{"name": "halved", "levels": 4}],
    "weights_sha256": "0" * 64,
})
complete, table = plan(body.sampler, card)
assert (complete.name, len(table), round(table.rows[0, 0], 6)) == ("halved", 7, 5.0)
judged = settings_of([], [20], card)
assert "halved" in [setting.sampler.name for setting in judged]

listed = {sampler["name"]: sampler for sampler in json.loads(asyncio.run(samplers()).body)}
assert tuple(listed) == NAMES and "halved" in NAMES
assert listed["halved"]["title"] == "Halved steps"
assert listed["halved"]["description"] == "Euler's method with a level between each two."
assert [p["name"] for p in listed["halved"]["parameters"]] == ["levels", "sigma_max", "sigma_min", "sigmas", "rho"]

app = create_app(ServiceSettings(redis_url=sys.argv[1]))
schemas = app.openapi()["components"]["schemas"]
for name in ("SampleBody", "InpaintBody", "JobView", "ModelView"):
    assert "#/components/schemas/Halved" in json.dumps(schemas[name]), name

server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="error"))
threading.Thread(target=server.run, daemon=True).start()
while not server.started:
    time.sleep(0.01)
port = server.servers[0].sockets[0].getsockname()[1]
run = CliRunner(env={"COLUMNS": "200"}).invoke
address = f"http://127.0.0.1:{port}"
told = run(command, ["samplers", "--server", address]).output
assert "halved" in told and "with a level between each two" in told, told
told = run(command, ["evaluate", "m", "--data", ".", "--sampler", "none"]).output
assert "there is no sampler none" in told and "halved" in told, told
print("found everywhere")
"""


def test_a_sampler_is_one_file_and_one_line(tmp_path: Path, service_url: str) -> None:
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("zoo", "__pycache__"))
    samplers = tmp_path / "models" / "samplers"
    (samplers / "halved.py").write_text(HALVED)
    names = (samplers / "__init__.py").read_text()
    (samplers / "__init__.py").write_text(names.replace('    "heun",\n', '    "heun",\n    "halved",\n'))
    command = [sys.executable, "-W", "error", "-c", FOUND, service_url]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "found everywhere"


def test_names_are_those_of_files_and_of_classes() -> None:
    files = {path.stem for path in (ROOT / "models" / "samplers").glob("*.py")}
    assert set(NAMES) <= files
    assert tuple(sampler.known_as() for sampler in SAMPLERS) == NAMES
    assert {USUAL, COMPARED} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_says_what_it_is(name: str) -> None:
    sampler = type(bare(name))
    assert sampler.title
    assert sampler.__doc__
    assert "\n" not in sampler.__doc__, "one sentence"
    assert sampler.table.__doc__, "the paper's equation"  # type: ignore[attr-defined]
    assert {field for field, value in bare(name) if value is not None} == {"name"}
    assert set(sampler.counts) <= set(sampler.model_fields)
