"""A network of somebody else's package, which is installed beside scoreserve, and then is not."""

import signal
import subprocess
import sys
import sysconfig
import types
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import safetensors.torch
import torch

from models.card import ImageShape, ModelCard, NetworkSpec
from models.parametrisation import Epsilon
from models.processes import VariancePreserving
from models.samplers.heun import Heun
from models.store import ModelStore, sha256
from tests.ports import free_port
from tests.system.markdown import ROOT
from tests.system.test_wheel import _pip

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "their-networks"
version = "1.0"

[project.entry-points."scoreserve.networks"]
two-layers = "their_networks:TwoLayers"

[tool.setuptools]
py-modules = ["their_networks"]
"""
SOURCE = '''
from torch import nn


class TwoLayers(nn.Module):
    """Two convolutions, the first one told of the noise level."""

    def __init__(self, channels):
        super().__init__()
        self.inner, self.outer = nn.Conv2d(1, channels, 3, padding=1), nn.Conv2d(channels, 1, 3, padding=1)
        self.level = nn.Linear(1, channels)

    def condition(self, c_noise):
        return self.level(c_noise[:, None] / 1000)

    def forward(self, x, condition):
        return self.outer((self.inner(x) + condition[:, :, None, None]).relu())
'''


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with all that tests have, and the package."""
    home = tmp_path_factory.mktemp("theirs")
    source = home / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "their_networks.py").write_text(SOURCE)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "env"], check=True)
    python = home / "env" / "bin" / "python"
    (packages,) = (home / "env").glob("lib/python*/site-packages")
    ours = sysconfig.get_path("purelib")
    (packages / "ours.pth").write_text(f"{ROOT}\nimport site; site.addsitedir({ours!r})\n")
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(home), str(source))
    (wheel,) = home.glob("*.whl")
    _pip("--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    return python


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """A model of that network, whose weights were trained elsewhere."""
    module = types.ModuleType("their_networks")
    exec(SOURCE, module.__dict__)
    torch.manual_seed(0)
    weights = safetensors.torch.save(module.TwoLayers(channels=4).state_dict())
    process = VariancePreserving()
    card = ModelCard(
        name="theirs",
        version=1,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        image=ImageShape(channels=1, height=8, width=8),
        sigma_min=0.01,
        sigma_max=10,
        network=NetworkSpec(
            kind="two-layers", arguments={"channels": 4}, parametrisation=Epsilon(pixels=(-1, 1), process=process)
        ),
        sampler=Heun(name="heun", levels=4),
        weights_sha256=sha256(weights),
    )
    store = ModelStore(tmp_path_factory.mktemp("models"))
    store.publish(card, weights)
    return store


def test_it_is_served_where_its_package_is_installed_and_named_where_it_is_not(
    start: Callable, python: Path, store: ModelStore, tmp_path: Path, until: Callable
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    models = {"SCORESERVE_MODELS_DIR": str(store.directories[0]), "SCORESERVE_DEFAULT_MODEL": "theirs"}
    command = ("up", "--port", str(port), "--data-dir", str(tmp_path / "q"), "--grace-seconds", "0")

    def ready() -> bool:
        try:
            return httpx.get(f"{address}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    body = {"model": "theirs", "count": 3, "seed": 1}
    picture = {"Prefer": "wait=60", "Accept": "image/png"}
    said = "network 'two-layers' is unknown here; there is adm,"
    remedy = "an entry point of the group scoreserve.networks"

    with (tmp_path / "log").open("wb") as log:
        up = start(*command, log=log, python=python, **models)
        until(lambda: up.poll() is not None or ready(), 120)
        answer = httpx.post(f"{address}/samples", json=body, headers=picture, timeout=90)
        assert answer.headers["content-type"] == "image/png", answer.text
        up.send_signal(signal.SIGTERM)
        up.wait(60)

        up = start(*command, log=log, **models)  # without the package, the worker cannot begin
        assert up.wait(120) == 1
    log_text = (tmp_path / "log").read_text()
    assert f"error: model theirs cannot be used on cpu with 16 slots: {said}" in log_text
    assert remedy in log_text

    with (tmp_path / "log").open("wb") as log:
        up = start(*command, log=log, **models | {"SCORESERVE_DEFAULT_MODEL": "mnist"})
        until(lambda: up.poll() is not None or ready(), 120)
        assert "theirs" in [card["name"] for card in httpx.get(f"{address}/models").json()]
        problem = httpx.post(f"{address}/samples", json=body)
    assert problem.status_code == 422
    assert said in problem.json()["detail"]
    assert remedy in problem.json()["detail"]
    assert said in (tmp_path / "log").read_text()
