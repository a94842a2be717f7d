"""The page of studies has every study, as its command writes it."""

import json
import re
from pathlib import Path

import pytest

from cli.help import EXAMPLES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "study.md").read_text()
STUDIES = sorted(name.removeprefix("study ") for name in EXAMPLES if name.startswith("study "))


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_on_the_page_with_its_command_its_pictures_and_its_numbers(name: str) -> None:
    command = EXAMPLES[f"study {name}"]
    sections = re.findall(r"<!-- ([\w-]+): written by the command.*?-->(.*?)<!-- end of \1 -->", PAGE, re.DOTALL)
    ours = [(section, text) for section, text in sections if f"```sh\n{command}\n```" in text]
    assert ours
    for section, text in ours:
        assert f"](study/{section}.png)" in text
        assert (DOCS / "study" / f"{section}.png").exists()
        assert "\n| --- |" in text
    assert json.loads((DOCS / "study" / f"{name}.json").read_text())["environment"]["command"] == command
