"""The examples of the README, and of the pages for who asks, are run as a reader would, after `make up`.

What needs training data, Docker or another machine is not run, but what it asks of `scoreserve` exists, here and in all
other documents; so do the settings that they name.
"""

import json
import re
import shlex
from collections.abc import Iterator
from itertools import dropwhile, pairwise
from pathlib import Path
from typing import Any

import pytest
import typer.main
from PIL import Image

from cli.main import app
from models.plan import plan
from models.store import ZOO, ModelStore
from service.settings import ServiceSettings
from tests.system.markdown import ROOT, Shell, blocks, commands, sentences
from worker.settings import WorkerSettings

README = ROOT / "README.md"
CONTRIBUTING = ROOT / "docs" / "contributing.md"
DOCUMENTS = [README, ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCS = ROOT / "docs"
# Headings whose blocks are run. Access control comes last, since from the first key on every request needs one.
RUN = (
    (README, "First requests"),
    (DOCS / "python.md", "Ask, follow, fetch"),
    (DOCS / "command-line.md", "Ask from the shell"),
    (DOCS / "deploy.md", "Access control"),
)
LINES, WORDS = 150, 30  # of the README, and of a sentence in it and in the pages for who begins, at most
SHORT = [README, *(DOCS / f"{name}.md" for name in ("python", "command-line", "samplers", "training", "deploy"))]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def ran(shell: Shell) -> Shell:
    """The reader's shell after all of RUN."""
    for document, heading in RUN:
        found = [block for block in blocks(document) if block.heading == heading]
        assert found, f"{document} has no blocks under {heading}"
        for block in found:
            (shell.python if block.language == "python" else shell.run)(block)
    return shell


def test_the_readers_files_are_there(ran: Shell) -> None:
    sizes = {}
    for path in ran.directory.glob("*.png"):
        with Image.open(path) as image:
            sizes[path.name] = image.size
    assert sizes.pop("grid.png") == (8 * 58 + 2, 2 * 58 + 2), "that of docs/python.md, the last"
    assert sizes.pop("filmstrip.png") == (8 * 58 + 2, 4 * 58 + 2)
    assert sizes.pop("0000.png") == sizes.pop("picture.png") == sizes.pop("mask.png") == (28, 28)
    assert sizes.pop("completions.png") == sizes.pop("digits.png") == (4 * 58 + 2, 4 * 58 + 2)
    assert sizes == {}
    assert {path.name for path in ran.directory.glob("*.npz")} == {"hundred.npz"}
    assert ran.variables["key"].startswith("ssk_")


def test_every_block_of_the_readme_is_run_or_starts_something() -> None:
    """What starts the service is run by tests/system/test_your_model.py, and by whoever has Docker."""
    not_run = {block.heading for block in blocks(README) if (README, block.heading) not in RUN}
    assert not_run == {"Start", "Serve your own model"}


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= LINES


@pytest.mark.parametrize("document", SHORT, ids=lambda path: str(path.relative_to(ROOT)))
def test_sentences_are_short(document: Path) -> None:
    text = document.read_text()
    assert {sentence: n for sentence in sentences(text) if (n := len(sentence.split())) > WORDS} == {}


@pytest.mark.parametrize(
    ("text", "longest"),
    [
        ("One two. Three four five.", 3),
        ("One\ntwo three.\n\nFour five", 3),
        ("| one two | three |\n|---|---|\n| four | five six seven |", 3),
        ("- one two\n- three", 2),
        ("One.\n```sh\nnot these four words\n```\nTwo three.", 2),
        ("[One two](a/b.md) `c.d`.", 3),
    ],
)
def test_sentences_are_counted_outside_code(text: str, longest: int) -> None:
    assert max(len(sentence.split()) for sentence in sentences(text)) == longest


def test_the_figures_of_the_readme_are_those_on_record() -> None:
    cells = dict(line.strip("| ").split(" | ")[:2] for line in README.read_text().splitlines() if ".json)" in line)
    read = {
        name: json.loads((RESULTS / f"{name}.json").read_text())
        for name in ("serving-peers", "serving-rounds", "turns", "workers", "soak")
    }
    (at,) = [run for run in read["serving-peers"]["runs"] if run["load"] == 0.6]
    key = "p50_seconds_of_the_shortest"
    waits = [at[system][key] for system in ("scoreserve", "LitServe", "LitServe, compacting")]
    pairs = {pair["load"]: pair["LitServe, continuous"]["p99_seconds"] for pair in read["serving-rounds"]["ratios"]}
    late = [pairs[load]["median"] for load in (0.6, 0.9)]
    behind = ("making way", "behind its own", "alone", "not making way")
    turns = [read["turns"]["seconds"][how]["median"] for how in behind]
    quality = json.loads((RESULTS / "mnist.json").read_text())
    default, _ = plan(None, ModelStore(ZOO).card("mnist"))
    asked = default.model_dump(exclude_none=True)
    (usual,) = [e for e in quality["entries"] if e["sampler"] == asked and e["guidance"] is None]
    (floor,) = [floor for floor in quality["floors"] if floor["count"] == 5000]
    assert list(cells.values()) == [
        "{:.2f}; LitServe in whole batches {:.2f}, compacting {:.2f}".format(*waits),
        "{:.1f} at 60 % load, {:.1f} at 90 %".format(*late),
        "{:.1f}, {:.1f}; alone {:.1f}; without turns {:.1f}".format(*turns),
        f"{read['workers']['ratio']['median']:.1f}",
        f"{100 * read['soak']['verdict']['worker']['growth']:.1f} %",
        f"{usual['figures']['distance']:.2f}; as many real training digits {floor['figures']['distance']:.2f}",
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_exists_with_its_options(document: Path) -> None:
    said = [
        f"line {line}: {shlex.join(words)}: {_mistake(words)}" for words, line in _asked(document) if _mistake(words)
    ]
    assert said == []


def test_commands_are_found_in_the_documents() -> None:
    found = {words[0] for document in DOCUMENTS for words, _ in _asked(document)}
    assert found >= {"sample", "inpaint", "train", "guide", "evaluate", "study", "import", "keys", "doctor", "worker"}


@pytest.mark.parametrize(
    "words", [["sample", "--cuont", "3"], ["sampel"], ["keys", "make"], ["cancel"], ["sample", "--sampler"]]
)
def test_a_command_that_does_not_exist_is_found(words: list[str]) -> None:
    assert _mistake(words)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    """To a file, and to a heading of it as GitHub names it."""
    lost = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", document.read_text()):
        path, _, anchor = link.partition("#")
        found = document.parent / path if path else document
        if not found.exists():
            lost.append(link)
        elif anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", found.read_text())
            if anchor not in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}:
                lost.append(link)
    assert lost == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_exists(document: Path) -> None:
    fields = {f"SCORESERVE_{name.upper()}" for name in ServiceSettings.model_fields | WorkerSettings.model_fields}
    reading = [*(ROOT / "cli").rglob("*.py"), ROOT / "models" / "networks" / "__init__.py"]
    code = "\n".join(path.read_text() for path in reading)
    fields |= set(re.findall(r"\bSCORESERVE_[A-Z_]+", code))
    fields |= {f"{field}_FILE" for field in fields}  # in containers, from a file
    assert set(re.findall(r"\bSCORESERVE_[A-Z_]+[A-Z]\b", document.read_text())) - fields == set()


def test_every_file_that_the_map_names_is_there() -> None:
    """Beside those of what is to be added, called NAME or GROUP: then their folder."""
    named = re.findall(r"`((?:cli|service|worker|models|scoreserve|docker|tests)/[^\s`*]*)", CONTRIBUTING.read_text())
    folders = [path.rpartition("/")[0] if "NAME" in path or "GROUP" in path else path for path in named]
    assert len(folders) > 50
    assert [path for path in folders if not (ROOT / path.replace("checkpoints/NAME", "checkpoints")).exists()] == []


def _asked(document: Path) -> Iterator[tuple[list[str], int]]:
    """What a document's shell blocks ask of `scoreserve`, and where."""
    for block in blocks(document):
        for words in commands(block.text) if block.language in ("sh", "bash", "shell") else ():
            yield from ((found, block.line) for found in [_arguments(words)] if found)


def _arguments(words: list[str]) -> list[str] | None:
    """The arguments of `scoreserve` in a command, however it is started; None if that is not what it starts."""
    program = list(dropwhile(lambda word: "=" in word, words))
    if program and Path(program[0]).name == "scoreserve":
        return program[1:]
    if ("-m", "scoreserve") in pairwise(program):
        return program[list(pairwise(program)).index(("-m", "scoreserve")) + 2 :]
    if "exec" in program and "scoreserve" in program:  # in a container
        return program[len(program) - program[::-1].index("scoreserve") :]
    if "compose" in program and "train" in program and "--entrypoint" not in program:
        return program[program.index("train") :]
    return None


def _mistake(words: list[str]) -> str | None:
    """What is wrong with a command's name, options or arguments, without running it; None if nothing is."""
    command: Any = typer.main.get_command(app)
    words = list(words)
    while hasattr(command, "commands"):
        name = words.pop(0) if words else ""
        if name not in command.commands:
            return f"no such command: {name!r}"
        command = command.commands[name]
    try:
        given, rest, _ = command.make_parser(command.context_class(command)).parse_args(words)
    except Exception as error:
        if not hasattr(error, "format_message"):  # of Click, or of Typer's copy of it
            raise
        return str(error.format_message())
    required = [p.name for p in command.params if p.required and not p.envvar]  # which a line before may have set
    missing = [name for name in required if given.get(name) in (None, ())]
    return f"too many arguments: {rest}" if rest else f"missing: {missing}" if missing else None
