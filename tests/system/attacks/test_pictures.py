"""Attacks by pictures, beside a victim; the processes that decode and draw are small too."""

import threading
from pathlib import Path

import pytest

from tests.system.attacks.frame import Target

ATTACKS = (
    "scans_without_end",
    "all_width",
    "most_memory",
    "grids_by_the_byte",
    "animations",
    "small_drawings",
    "archives",
    "readers_who_never_read",
)
MOST_MEGABYTES = 900  # of an API process and those that it has started; of two clients it may be twice as much


class Family(threading.Thread):
    """Looks at the memory of API processes and those that they have started."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target, self.most, self.over = target, 0.0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.1):
            self.most = max(self.most, *(self.megabytes(process.pid) for process in self.target.processes))

    def megabytes(self, pid: int) -> float:
        """Memory of a process and its children; what they share is counted for each."""
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            children = " ".join(file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children")).split()
        except (FileNotFoundError, ProcessLookupError):
            return 0.0
        own = next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)
        return own + sum(self.megabytes(int(child)) for child in children)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_victim_is_served(target: Target, attack: str) -> None:
    family = Family(target)
    family.start()
    try:
        target.attacked("pictures", attack)
    finally:
        family.over.set()
        family.join()
    print(f"with the processes that it started: {family.most:.0f} MB at most")
    assert family.most < MOST_MEGABYTES
