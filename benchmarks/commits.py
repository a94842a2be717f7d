"""How long grids take through HTTP, against another commit of this repository.

That commit is checked out beside this one and both run as `scoreserve up` starts them, by the same Python, on all
cores; one is asked while the other has nothing to do, and they take turns. Asked is for the same work, 16 images of 35
network evaluations of the model that was there first, which both have; for the first request of the README, by whatever
is the default there and here; and for the same of the fast model that ships here. `--neighbours 2` runs so many
processes beside them that never rest.

`python -m benchmarks.commits 508f625`
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from benchmarks import report
from benchmarks.system import ROOT, Children, cores, free_port, wait_for
from models.environment import describe
from models.files import write_json
from models.store import ModelStore

Ask = Callable[[int], None]  # for a grid of some seed, until it is there
SAME, DEFAULT, FAST = "16 images of 35 evaluations", "64 images by default", "64 images of mnist-fast"
ACCEPT = {"Accept": "image/png"}


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A directory with another commit of this repository.

    Raises:
        subprocess.CalledProcessError: there is none, or this is no checkout.
    """
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "tree"
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", tree, commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=True)


@contextmanager
def service(tree: Path, models: Path) -> Iterator[httpx.Client]:
    """The service of a checkout, with the models of a directory besides those that ship there; who asks it."""
    with tempfile.TemporaryDirectory() as directory:
        port, children = free_port(), Children(Path(directory))
        command = [sys.executable, "-m", "cli.main", "up", "--port", str(port), "--data-dir", directory]
        # Without the directory that this is run in, which would come before.
        environment = {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1", "SCORESERVE_MODELS_DIR": str(models)}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600.0) as http:
            children.start(command, environment, cores())
            try:
                wait_for(lambda: _ready(http, children), f"the service of {tree.name}")
                yield http
            finally:
                children.stop()


def _ready(http: httpx.Client, children: Children) -> bool:
    children.check()
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def asks(http: httpx.Client, **body: Any) -> Ask:
    """Asks a service for grids, and looks that they are such."""

    def ask(seed: int) -> None:
        answer = http.post("/samples", json=body | {"seed": seed}, headers=ACCEPT).raise_for_status()
        if answer.headers["content-type"] != "image/png":
            raise RuntimeError(f"{body} was answered with {answer.headers['content-type']}: {answer.text[:200]}")

    return ask


def in_turn(pairs: Mapping[str, tuple[Ask, Ask]], repeat: int) -> dict[str, dict[str, Any]]:
    """Seconds of each kind of grid at the other commit and here, asked for in turn, and the ratios of ours to theirs.

    The first of each is to fill the caches. Every other time ours comes first.
    """
    seeds, found = count(), {}
    for what, pair in pairs.items():
        seconds: tuple[list[float], list[float]] = [], []
        for turn in range(repeat + 1):
            for one in (0, 1) if turn % 2 else (1, 0):
                begun = time.perf_counter()
                pair[one](next(seeds))
                if turn:
                    seconds[one].append(time.perf_counter() - begun)
        theirs, ours = seconds
        ratios = [b / a for a, b in zip(theirs, ours, strict=True)]
        found[what] = {
            "other_seconds": report.spread(theirs),
            "seconds": report.spread(ours),
            "ratio": report.spread(ratios),
        }
    return found


@contextmanager
def busy(neighbours: int) -> Iterator[None]:
    """So many processes that never rest, meanwhile."""
    command = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(command) for _ in range(neighbours)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(commit: str, repeat: int, neighbours: int) -> dict[str, Any]:
    """What `in_turn` finds for both services."""
    with checked_out(commit) as tree, ExitStack() as stack:
        models = tree / "models" / "zoo"
        same = ModelStore(models).card("mnist")
        theirs, ours = (stack.enter_context(service(which, models)) for which in (tree, ROOT))
        work = {"model": same.name, "version": same.version, "sampler": {"name": "heun", "levels": 18}, "count": 16}
        stack.enter_context(busy(neighbours))
        return in_turn(
            {
                SAME: (asks(theirs, **work), asks(ours, **work)),
                DEFAULT: (asks(theirs, count=64), asks(ours, count=64)),
                FAST: (asks(theirs, count=64), asks(ours, count=64, model="mnist-fast")),
            },
            repeat,
        )


def rows_of(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[list[str]]:
    """What was found as rows of a table."""
    return [
        [
            what,
            f"{of['other_seconds']['median']:.2f} s",
            f"{of['seconds']['median']:.2f} s",
            "{median:.2f} ({lowest:.2f} to {highest:.2f})".format(**of["ratio"]),
            f"{1 / of['ratio']['median']:.2f}",
        ]
        for what, of in found.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commits", description=__doc__)
    parser.add_argument("commit", help="the other one, as git knows it; its services start by `cli.main up`")
    parser.add_argument("--repeat", type=int, default=11, help="grids of each kind at each commit")
    parser.add_argument("--neighbours", type=int, default=0, help="processes beside them that never rest")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    given = parser.parse_args(arguments)
    machine, console = report.environment(), report.console()
    found = measure(given.commit, given.repeat, given.neighbours)
    console.print(describe(machine))
    console.print(report.table(["", given.commit, "here", "ratio", "times as fast"], rows_of(found)))
    if given.json:
        asked = {"commit": given.commit, "repeat": given.repeat, "neighbours": given.neighbours}
        write_json(given.json, {"environment": machine, **asked, **found})


if __name__ == "__main__":
    main()
