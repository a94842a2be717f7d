import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from redis import Redis

from worker.queue import scripts

ROOT = Path(__file__).parents[3]
FILES = sorted(path for room in ("service", "worker") for path in ROOT.glob(f"{room}/**/*.lua"))
SCRIPTS = [path for path in FILES if path.parent.name != "parts"]


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.stem)
def test_redis_reads_every_script(file: Path, redis: Redis) -> None:
    text = scripts.load(file)
    assert redis.script_load(text)
    given = re.findall(r"^local function (\w+)", text, re.M)
    assert len(given) == len(set(given)), "each part is there once"
    assert "--" not in re.sub(r"  --.*", "", text), "comments are not sent"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_a_file_declares_it_uses(file: Path) -> None:
    declared = re.findall(r"^-- luacheck: read_globals (.+)", file.read_text(), re.M)
    code = re.sub(r"--.*|redis\.call", "", file.read_text())
    unused = [name for names in declared for name in names.split() if not re.search(rf"\b{name}\(", code)]
    assert unused == []


def test_what_no_part_gives_is_named(tmp_path: Path) -> None:
    (tmp_path / "wrong.lua").write_text("-- luacheck: read_globals key lock\nlock(key(ARGV[1]))\n")
    with pytest.raises(LookupError, match=r"wrong\.lua uses lock\(\), which no file of .*parts gives"):
        scripts.load(tmp_path / "wrong.lua")


@pytest.mark.skipif(not shutil.which("luacheck"), reason="luacheck is not installed")
def test_a_slip_in_lua_is_found(tmp_path: Path) -> None:
    slip = "local id = ARGV[1]\nif over(id) then return clam(id) end\n"
    (tmp_path / "slip.lua").write_text("-- luacheck: read_globals over\n" + slip)
    (tmp_path / ".luacheckrc").write_text((ROOT / ".luacheckrc").read_text())
    found = subprocess.run(["luacheck", "slip.lua"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "accessing undefined variable" in found.stdout


def test_a_wheel_has_them_all() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = {
        path for room, patterns in declared.items() for pattern in patterns for path in (ROOT / room).glob(pattern)
    }
    assert set(FILES) <= packed
