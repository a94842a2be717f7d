"""The playground's files: where they are, how they are kept, and what they may load."""

import re
import tomllib
from pathlib import Path

import pytest

from service.routes.playground import DIRECTORY

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in DIRECTORY.rglob("*") if path.is_file())


def test_the_page_is_at_the_root_and_loads_from_this_host_only(client) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "img-src 'self' data: blob:" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    loaded = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert "static/main.js" in loaded
    for address in loaded:
        assert client.get(f"/{address}").status_code == 200, address


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_kept_by_the_browser_and_asked_for_again(client, path: Path) -> None:
    address = f"/static/{path.relative_to(DIRECTORY)}"
    first = client.get(address)
    assert first.content == path.read_bytes()
    assert first.headers["cache-control"] == "no-cache"
    assert first.headers["x-content-type-options"] == "nosniff"
    again = client.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "no-cache"
    if path.suffix == ".js":
        assert first.headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize("path", ["missing.js", "../app.py", "%2e%2e/app.py", "..%2fapp.py", "examples", ""])
def test_nothing_else_is_served(client, path: str, problem) -> None:
    problem(client.get(f"/static/{path}"), 404, "not-found")


def test_the_files_are_small_and_name_no_other_host() -> None:
    assert sum(path.stat().st_size for path in FILES) < 156 * 1024
    for path in FILES:
        if path.suffix in (".js", ".css", ".html"):
            assert not re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", path.read_text()), path


def test_a_wheel_has_the_files() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["service"]
    packed = {path for pattern in declared for path in (ROOT / "service").glob(pattern)}
    assert set(FILES) <= packed
