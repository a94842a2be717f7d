"""Files that were drawn are kept for a while, on a bounded disk, and leave with their process."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.drawing.kept import PREFIX, Kept


def keep(kept: Kept, key: str, client: str, size: int) -> None:
    path = kept.new()
    path.write_bytes(key.encode() * size)
    kept.keep(key, client, path)


def has(kept: Kept, key: str) -> bool:
    file = kept.open(key)
    if file is None:
        return False
    with file:
        assert file.read(1) == key.encode()
    return True


def test_what_is_kept_is_bounded_and_no_client_takes_anothers(tmp_path: Path) -> None:
    kept = Kept(tmp_path, 100, 1000)
    keep(kept, "a", "quiet", 20)
    for key in "bcd":
        keep(kept, key, "loud", 26)
    assert [has(kept, key) for key in "abcd"] == [True, True, True, True]
    assert has(kept, "b")
    keep(kept, "e", "loud", 26)
    assert [has(kept, key) for key in "abcde"] == [True, True, False, True, True], "c was used least lately"
    assert sum(file.stat().st_size for file in tmp_path.glob("*/*")) <= 100
    keep(kept, "f", "loud", 300)
    assert has(kept, "f"), "the newest is there for who asked for it"
    keep(kept, "g", "quiet", 1)
    assert not has(kept, "f")
    kept.close()
    assert list(tmp_path.iterdir()) == []


def test_where_somebody_cleaned_up_it_begins_anew(tmp_path: Path) -> None:
    kept = Kept(tmp_path, 100, 1000)
    keep(kept, "a", "quiet", 20)
    (directory,) = tmp_path.iterdir()
    shutil.rmtree(directory)
    keep(kept, "b", "quiet", 20)
    assert [has(kept, key) for key in "ab"] == [False, True]
    kept.close()
    assert not list(tmp_path.iterdir())


def test_it_goes_after_a_while(tmp_path: Path) -> None:
    kept = Kept(tmp_path, 100, 0.05)
    keep(kept, "a", "x", 1)
    file = kept.open("a")
    assert file
    time.sleep(0.06)
    kept.expire()
    assert list(tmp_path.glob("*/*")) == []
    assert not has(kept, "a")
    with file:
        assert file.read() == b"a", "who reads it reads on"
    kept.close()


def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = """
import os, sys
from pathlib import Path
from service.drawing.kept import Kept
kept = Kept(Path(sys.argv[1]), 100, 1000)
kept.new().write_bytes(b"x")
print(flush=True)
sys.stdin.read()
os._exit(1)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", left, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    process.stdout.readline()
    (theirs,) = tmp_path.glob(f"{PREFIX}*")
    os.utime(theirs, (0, 0))
    kept = Kept(tmp_path, 100, 1000)
    kept.new()
    assert theirs.exists(), "it is in use"
    kept.close()
    process.stdin.close()
    process.wait(60)
    process.stdout.close()
    os.utime(theirs, (0, 0))
    kept.new()
    assert not theirs.exists()
    kept.close()
