"""What says nothing of a network is refused before any file is read; tests of the import hold what flags mean."""

from pathlib import Path

import pytest

from models.importing.guided_diffusion_flags import read_flags
from models.importing.reading import ImportRefused


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("no such file", "neither of the form '--name value', nor a file that can be read"),
        ("--image_size 32 --class_cond", "not of the form"),
        ("--image_size 32 class_cond True", "not of the form"),
        ("--image_size '32", "no command line"),
        ("", "neither of the form"),
    ],
)
def test_flags_that_are_none(flags: str, said: str) -> None:
    with pytest.raises(ImportRefused, match=said):
        read_flags(flags)


def test_flags_of_json_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "flags.json").write_text("{image_size: 32}")
    with pytest.raises(ImportRefused, match="the flags are no JSON"):
        read_flags(str(tmp_path / "flags.json"))
