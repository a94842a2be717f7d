"""What is found on a device: figures, and checks of what has to be true."""

import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import torch


@dataclass(frozen=True)
class Check:
    """One thing that has to be true.

    Args:
        name: what.
        ok: whether it is.
        detail: what was seen.
    """

    name: str
    ok: bool
    detail: str = ""


@dataclass
class Findings:
    """All that was found so far.

    Args:
        device: torch device; one with CUDA is what this is for.
        small: whether a tiny network and a few widths stand for all, so that it takes seconds on a CPU.
    """

    device: torch.device
    small: bool = False
    figures: dict[str, Any] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def failed(self) -> list[str]:
        """What has to be true and is not."""
        return [check.name for check in self.checks if not check.ok]

    def check(self, name: str, ok: bool, detail: str = "") -> None:
        """Notes and prints whether something that has to be true is."""
        self.checks.append(Check(name, bool(ok), detail))
        print(f"{'ok  ' if ok else 'FAIL'} {name}{'  ' + detail if detail else ''}", flush=True)

    def examine(self, subject: Callable[["Findings"], Any]) -> None:
        """Finds out about a subject; what it raises is a check that failed, and the next subject goes on."""
        name = subject.__name__
        print(f"\n{name}: {(subject.__doc__ or '').partition(chr(10))[0]}", flush=True)
        begun = time.perf_counter()
        try:
            found = subject(self)
            if found is not None:
                self.figures[name] = found
                print(found, flush=True)
        except Exception:  # whatever a device can throw
            self.check(f"{name} comes to its end", False, traceback.format_exc()[-1000:])
        self.figures.setdefault("seconds_of_subjects", {})[name] = round(time.perf_counter() - begun, 1)

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**self.figures, "failed": self.failed, "checks": [asdict(check) for check in self.checks]}

    def wait(self) -> None:
        """Returns when the device has done all that it was given."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], Any], least: float = 0.05, most: int = 30) -> float:
        """How long a call takes, down to its end on the device: the median of at least three, after two that warm up.

        Args:
            call: what is timed.
            least: seconds that are measured, unless there are `most` calls before.
            most: calls.
        """
        call()
        call()
        self.wait()
        taken: list[float] = []
        while len(taken) < 3 or (sum(taken) < least and len(taken) < most):
            begun = time.perf_counter()
            call()
            self.wait()
            taken.append(time.perf_counter() - begun)
        return median(taken)
