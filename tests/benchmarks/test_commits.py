"""The benchmark against another commit, of made up services; and of a repository of one commit."""

import subprocess
import time
from pathlib import Path

import pytest

from benchmarks import commits


def test_both_are_asked_in_turn_and_ours_is_told_over_theirs() -> None:
    asked: list[tuple[str, int]] = []

    def ask(who: str, seconds: float) -> commits.Ask:
        def one(seed: int) -> None:
            asked.append((who, seed))
            time.sleep(seconds)

        return one

    found = commits.in_turn({"a grid": (ask("theirs", 0.2), ask("ours", 0.01))}, repeat=3)
    assert [who for who, _ in asked] == ["ours", "theirs", "theirs", "ours"] * 2
    assert len({seed for _, seed in asked}) == 8, "none is asked for again"
    assert found["a grid"]["other_seconds"]["lowest"] >= 0.2
    assert found["a grid"]["ratio"]["median"] < 1
    ((what, theirs, _, ratio, times),) = commits.rows_of(found)
    assert (what, theirs[:3]) == ("a grid", "0.2")
    assert float(ratio[:4]) == pytest.approx(1 / float(times), rel=0.3)


def test_another_commit_is_there_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    (tmp_path / "file").write_text("before")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "one"], check=True)
    (tmp_path / "file").write_text("after")
    monkeypatch.setattr(commits, "ROOT", tmp_path)
    with commits.checked_out("HEAD") as tree:
        assert (tree / "file").read_text() == "before"
    assert not tree.exists()
    listed = subprocess.run([*git, "worktree", "list"], check=True, capture_output=True, text=True).stdout
    assert len(listed.splitlines()) == 1
    with pytest.raises(subprocess.CalledProcessError), commits.checked_out("no-such-commit"):
        pass
