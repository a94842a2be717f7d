import json
from pathlib import Path

import pytest

from models import files


def test_a_file_is_written_into_a_directory_that_is_made(tmp_path: Path) -> None:
    files.write(tmp_path / "a" / "b" / "x", b"one")
    files.write(tmp_path / "a" / "b" / "x", b"two")
    assert (tmp_path / "a" / "b" / "x").read_bytes() == b"two"
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["x"]


def test_what_cannot_be_put_in_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "y").write_bytes(b"")
    with pytest.raises(OSError, match="x"):
        files.write(tmp_path / "x", b"one")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_json_is_for_people(tmp_path: Path) -> None:
    files.write_json(tmp_path / "x.json", {"größe": [1]})
    text = (tmp_path / "x.json").read_text()
    assert "größe" in text
    assert text.endswith("}\n")
    assert json.loads(text) == {"größe": [1]}
