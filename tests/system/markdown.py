"""Documents whose examples are run: code blocks, a shell that runs them, and answers held against those shown."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:8000"  # of the service, in documents
KEPT = ("job", "key", "alice", "queue")  # variables that one block sets and a later one uses
# Where a document says `curl`, the headers of the answer are kept as well.
PRELUDE = 'curl() { command curl --max-time 60 -D headers "$@"; }\n'


@dataclass(frozen=True)
class Block:
    """A code block of a document.

    Args:
        language: what is behind its fence.
        text: what is inside.
        line: of the document where the fence is.
        heading: the last one before it.
    """

    language: str
    text: str
    line: int
    heading: str


def blocks(path: Path) -> list[Block]:
    """The code blocks of a Markdown document, in their order."""
    found: list[Block] = []
    heading, begun, inside = "", 0, None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if inside is None and line.startswith("```"):
            inside, begun, language = [], number, line[3:].strip()
        elif inside is None and line.startswith("#"):
            heading = line.lstrip("# ")
        elif inside is not None and line == "```":
            found.append(Block(language, "\n".join(inside), begun, heading))
            inside = None
        elif inside is not None:
            inside.append(line)
    assert inside is None, f"{path}:{begun}: the block has no end"
    return found


def sentences(text: str) -> list[str]:
    """The sentences of a Markdown text outside its code blocks; headings, items and cells of tables are some."""
    bare = re.sub(r"(?ms)^```.*?^```$", "\n\n", text)
    bare = re.sub(r"\]\([^)]*\)", "]", bare)  # where links lead
    found = []
    for paragraph in re.split(r"\n\s*\n|\n(?=[-*|#])", bare):
        for cell in paragraph.split("|"):
            found += re.split(r"(?<=[.?!])[\"')*]*\s+", cell.strip(" -*#"))
    return [" ".join(sentence.split()) for sentence in found if re.search(r"\w", sentence)]


def commands(text: str) -> list[list[str]]:
    """The commands of a shell block, each as its words; of a substitution `x=$(...)`, those inside."""
    bare = re.sub(r"(?m)(^|\s)#\s.*$", "", re.sub(r"\\\n\s*", " ", text))
    lexer = shlex.shlex(bare, posix=True, punctuation_chars="();|&\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    found: list[list[str]] = [[]]
    for word in lexer:
        if word and set(word) <= set("();|&\n"):
            found.append([])
        else:
            found[-1].append(word)
    return [words for words in found if words]


@dataclass
class Shell:
    """Runs blocks as a reader would, in a directory of its own; variables that a block sets are known to the next.

    Args:
        directory: where it runs, with a `.venv/bin` in it like that of a checkout.
        address: of the service that takes the place of ADDRESS.
        environment: of the commands.
        variables: that blocks have set.
        elsewhere: other addresses of the document, and what takes their place.
    """

    directory: Path
    address: str
    environment: dict[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        programs = self.directory / ".venv" / "bin"
        programs.mkdir(parents=True)
        for name, arguments in (("python", ""), ("scoreserve", "-m cli.main ")):
            script = programs / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
            script.chmod(0o755)
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        self.environment = {"PYTHONPATH": str(ROOT), **self.environment, "PATH": path}

    def run(self, block: Block) -> bytes:
        """What a block of shell commands writes to standard output."""
        text = self.here(block.text)
        given = "".join(f"{name}={shlex.quote(value)}\n" for name, value in self.variables.items())
        kept = "\n".join(f'printf "%s" "${{{name}-}}" > ".{name}"' for name in KEPT)
        script = f"set -eo pipefail\n{PRELUDE}{given}{text}\n{kept}\n"
        done = self._run(["bash", "-c", script], block)
        self.variables |= {name: (self.directory / f".{name}").read_text() for name in KEPT}
        return done

    def python(self, block: Block) -> bytes:
        """What a block of Python writes to standard output."""
        return self._run([sys.executable, "-c", self.here(block.text)], block)

    def here(self, text: str) -> str:
        """A text of the document, with the addresses of what runs here."""
        for shown, address in {ADDRESS: self.address, **self.elsewhere}.items():
            text = text.replace(shown, address)
        return text

    def _run(self, command: list[str], block: Block) -> bytes:
        environment = {**os.environ, **self.environment}
        done = subprocess.run(command, cwd=self.directory, env=environment, capture_output=True, check=False)
        said = f"line {block.line}: {block.text}\n{done.stdout[-2000:]!r}\n{done.stderr.decode()}"
        assert done.returncode == 0, said
        return done.stdout


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: str
    headers: dict[str, str]
    body: bytes

    @property
    def line(self) -> str:
        """What it begins with."""
        return f"HTTP/1.1 {self.status}"

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]

    @classmethod
    def of(cls, shell: Shell, block: Block) -> "Answer":
        """The answer to the one `curl` of a block, run."""
        written = shell.run(block)
        words = shlex.split(re.sub(r"\\\n", " ", block.text))
        body = (shell.directory / words[words.index("-o") + 1]).read_bytes() if "-o" in words else written
        if any(re.fullmatch("-[a-z]*I|--head", word) for word in words):
            body = b""
        status, *lines = (shell.directory / "headers").read_text().rstrip().split("\n\n")[-1].splitlines()
        pairs = (line.split(": ", 1) for line in lines)
        return cls(status.split(" ", 1)[1], {name.lower(): value.strip() for name, value in pairs}, body)


@dataclass(frozen=True)
class Call(Answer):
    """A request that the service has sent; its status is method and path."""

    @property
    def line(self) -> str:
        return f"{self.status} HTTP/1.1"


def differences(shown: str, answer: Answer) -> list[str]:
    """Where an answer, or a call, is not what a document shows: its status, a header that is named, or its body.

    `...` stands for anything: inside a text, for any characters; as a value, for any value; as the last of a list or of
    an object, for any more. A body in angle brackets tells in words what is in a file.
    """
    head, _, body = shown.partition("\n\n")
    status, *headers = head.splitlines()
    found = []
    if status != answer.line:
        found.append(f"the status is {answer.status}")
    for header in headers:
        name, value = header.split(": ", 1)
        if not like(value, answer.headers.get(name.lower(), "")):
            found.append(f"{name} is {answer.headers.get(name.lower())}")
    if not answer.body or not body:
        found += ["there is a body, or is none"] if answer.body or body else []
    elif body.startswith("<") and "\n" not in body.strip():
        if f"<{describe(answer)}>" != body.strip():
            found.append(f"the body is <{describe(answer)}>")
    elif answer.media_type.endswith("json"):
        found += _unequal(template(body), json.loads(answer.body), "")
    elif not like(body.strip(), answer.body.decode().strip()):
        found.append(f"the body is {answer.body.decode()}")
    return found


def like(shown: str, text: str) -> bool:
    """Whether a text is what is shown, in which `...` stands for any characters."""
    pattern = ".*".join(map(re.escape, shown.split("...")))
    return re.fullmatch(pattern, text, re.DOTALL) is not None


def template(shown: str) -> Any:
    """JSON as a document shows it, with `"..."` for each `...`."""
    quoted = re.sub(r'"(?:\\.|[^"\\])*"|\.\.\.', lambda m: m[0] if m[0] != "..." else '"..."', shown)
    return json.loads(re.sub(r'([,{]\s*)"\.\.\."(\s*})', r'\1"...": "..."\2', quoted))


def _unequal(shown: Any, value: Any, place: str) -> list[str]:
    match shown, value:
        case "...", _:
            return []
        case dict(), dict():
            found = [f"{place}/{name} is missing" for name in shown.keys() - value.keys() - {"..."}]
            if "..." not in shown:
                found += [f"{place}/{name} is not shown" for name in value.keys() - shown.keys()]
            for name in shown.keys() & value.keys():
                found += _unequal(shown[name], value[name], f"{place}/{name}")
            return found
        case list(), list():
            more = shown[-1:] == ["..."]
            wanted = shown[:-1] if more else shown
            if len(value) < len(wanted) or (len(value) > len(wanted) and not more):
                return [f"{place} has {len(value)} items"]
            pairs = zip(wanted, value, strict=False)
            return [text for i, (a, b) in enumerate(pairs) for text in _unequal(a, b, f"{place}/{i}")]
        case str(), str() if like(shown, value):
            return []
        case _ if shown == value and type(shown) is type(value):
            return []
        case _:
            return [f"{place} is {value!r}"]


def describe(answer: Answer) -> str:
    """What is in a file, in words."""
    file = io.BytesIO(answer.body)
    if answer.status.startswith("206"):
        return f"{len(answer.body)} bytes of {answer.media_type}"
    match answer.media_type:
        case "image/png" | "image/webp" | "image/gif":
            with Image.open(file) as image:
                frames = getattr(image, "n_frames", 1)
                pixels = f"{image.format}, {image.width} x {image.height} pixels"
            return pixels if frames == 1 else f"{pixels}, {frames} frames"
        case "application/x-npz":
            with np.load(file) as arrays:
                images = arrays["images"]
                shape = " x ".join(map(str, images.shape))
                return f"npz, with {', '.join(sorted(arrays))}; images: {images.dtype}, {shape}"
        case "application/zip":
            with zipfile.ZipFile(file) as archive:
                return f"zip, with {', '.join(archive.namelist())}"
        case "text/html":
            (title,) = re.findall(r"<title>(.*)</title>", answer.body.decode())
            return f"an HTML page: {title}"
    return f"{len(answer.body)} bytes of {answer.media_type}"


def is_path(path: str, route: str) -> bool:
    """Whether a path is one of a route such as /jobs/{job_id}."""
    return fnmatchcase(path, re.sub(r"{\w+}", "*", route)) and path.count("/") == route.count("/")
