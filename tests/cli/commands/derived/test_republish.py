"""`scoreserve republish`: what it says. The new version is tested in tests/models/derived/test_defaults.py."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app
from models.store import ModelStore


@pytest.fixture
def store(models_dir: Path, labelled_dir: Path, tmp_path: Path) -> Path:
    """A model store with `tiny`, and with `labelled`, which knows classes."""
    shutil.copytree(models_dir, tmp_path / "models")
    shutil.copytree(labelled_dir / "labelled", tmp_path / "models" / "labelled")
    return tmp_path / "models"


def republish(store: Path, *arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["republish", *arguments, "--store", str(store)])


def test_it_publishes_the_next_version_and_says_what_to_evaluate(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/bin/scoreserve", "republish", "tiny"])
    result = republish(store, "tiny", "--sampler", '{"name": "heun", "levels": 5}')
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines() == [
        f"published tiny version 2 in {store / 'tiny' / '2'}, with the weights of version 1",
        "its card has no figures yet; measure them with: "
        f"scoreserve evaluate tiny --store {store} --into-card --data DIRECTORY_OF_REAL_IMAGES",
    ]
    card = ModelStore(store).card("tiny")
    assert card.sampler.model_dump(exclude_none=True) == {"name": "heun", "levels": 5}
    assert card.provenance["weights_of"]["command"] == "scoreserve republish tiny"


def test_guidance_and_a_sampler_by_its_name_of_an_earlier_version(store: Path) -> None:
    assert republish(store, "labelled", "--sampler", "heun").exit_code == 0
    result = republish(store, "labelled", "--sampler", "euler", "--guidance", "1.5", "--version", "1")
    assert result.exit_code == 0, result.output
    card = ModelStore(store).card("labelled", 3)
    assert (card.sampler.name, card.guidance, card.provenance["weights_of"]["version"]) == ("euler", 1.5, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("tiny",), 2, "nothing would change: give --sampler, --guidance or both"),
        (("tiny", "--sampler", "magic"), 2, "--sampler magic: there is no sampler magic; allowed: annealed_langevin, "),
        (("tiny", "--sampler", '{"name": "heun"'), 2, "--sampler is not JSON"),
        (("tiny", "--sampler", '{"name": "heun", "levels": 0}'), 2, "levels is 0; allowed: at least 1"),
        (("tiny", "--sampler", '{"name": "heun", "sigma_max": 50}'), 2, "sigma_max: 50 is outside"),
        (("tiny", "--sampler", "repaint"), 2, "--sampler repaint: name: repaint makes images agree"),
        (("tiny", "--guidance", "much"), 2, "--guidance much: numbers from 0 to 100, such as 1.5"),
        (("tiny", "--guidance", "2"), 2, "--guidance 2: tiny knows no classes; allowed: 1, or nothing"),
        (("tinny", "--sampler", "heun"), 1, "no model tinny; there is: "),
        (("tiny", "--sampler", "heun", "--version", "7"), 1, "no model tiny version 7; there is: version 1"),
        (("tiny", "--sampler", "annealed_langevin"), 1, "the defaults of tiny version 1 are these already"),
    ],
)
def test_what_cannot_be_is_told_in_one_line_and_nothing_is_published(
    store: Path, failed: Callable[..., None], arguments: tuple[str, ...], code: int, said: str
) -> None:
    failed(republish(store, *arguments), said, code=code)
    assert ModelStore(store).versions("tiny") == [1]
