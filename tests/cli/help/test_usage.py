"""Command lines that cannot be."""

import re

import pytest
from typer.testing import CliRunner

from cli.main import app


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sample", "--count", "-3"), "'--count': count is -3; allowed: at least 1"),
        (("sample", "--count", "many"), "'--count': count is 'many'; allowed: a whole number, at least 1"),
        (("sample", "--count=1.5"), "'--count': count is '1.5'; allowed: a whole number, at least 1"),
        (("sample", "--frames", "65"), "'--frames': frames is 65; 1 to 64 are allowed"),
        (("sample", "--deadline", "soon"), "'--deadline': deadline is 'soon'; allowed: a number, at least 0"),
        (("sample", "--priority", "hihg"), "'--priority': there is no priority hihg; did you mean high?"),
        (("sample", "--guidance-interval", "a", "1"), "'--guidance-interval': guidance-interval is 'a'"),
        (("up", "--port", "0"), "port is 0; 1 to 65535 are allowed"),
        (("models", "mnist", "--version", "0"), "'--version': version is 0; allowed: at least 1"),
        (("keys", "create", "me", "--image-steps", "x"), "image-steps is 'x'; allowed: a whole number"),
    ],
)
def test_what_an_option_cannot_be_is_told_in_sentences(arguments: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(app, [*arguments, *(("--out", "x.png") if arguments[0] == "sample" else ())])
    assert result.exit_code == 2
    told = " ".join(re.sub("[^\x20-\x7e]", " ", result.output).split())
    assert said in told
    assert "Input should" not in told


def test_what_typer_finds_itself_stays_as_it_says_it() -> None:
    result = CliRunner().invoke(app, ["sample", "--cuont", "3"])
    assert result.exit_code == 2
    assert "No such option: --cuont" in result.output
