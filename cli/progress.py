"""How a long run shows how far it is: a bar for a person, lines for a log file."""

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from cli.console import err

if TYPE_CHECKING:
    from models.training.trainer import Trainer

RECENT = 100  # steps whose mean is shown as the loss


class TrainingProgress:
    """Shows a run on standard error: a bar where that is a terminal, else a line at every checkpoint.

    Args:
        every: steps between two lines.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._started, self._first_step = time.monotonic(), 0
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def start(self, trainer: "Trainer") -> None:
        """The run begins, or continues."""
        if not trainer.processes.first:
            return
        if trainer.sigmas:
            say(f"{len(trainer.sigmas)} noise levels from {trainer.sigmas[0]:g} to {trainer.sigmas[-1]:g}")
        say(f"a step is run {trainer.execution}")
        if trainer.step:
            others = f", with another {', '.join(trainer.changed)}" if trainer.changed else ""
            say(f"continuing after step {trainer.step}{others}")
        self._started, self._first_step = time.monotonic(), trainer.step
        if err.is_terminal:
            self._bar = Progress(
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:.0f} images/s"),
                TimeRemainingColumn(),
                console=err,
            )
            self._task = self._bar.add_task("", total=trainer.steps, completed=trainer.step, loss=0.0, rate=0.0)
            self._bar.start()

    def step(self, trainer: "Trainer") -> None:
        """A step is done."""
        if not trainer.processes.first:
            return
        if self._bar is None and trainer.step % self._every and trainer.step < trainer.steps:
            return
        if self._bar is not None and trainer.step % trainer.look and trainer.step < trainer.steps:
            self._bar.update(self._task, completed=trainer.step)  # a GPU's losses would have to be waited for
            return
        recent = trainer.losses[-RECENT:]
        loss = sum(recent) / len(recent)
        pace = (trainer.step - self._first_step) / (time.monotonic() - self._started)
        rate = pace * trainer.batch
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.step, loss=loss, rate=rate)
            return
        left = timedelta(seconds=round((trainer.steps - trainer.step) / pace))
        say(f"step {trainer.step}/{trainer.steps}  loss {loss:.4f}  {rate:.0f} images/s  {left} left")

    def stop(self) -> None:
        """The run has ended, in whatever way."""
        if self._bar is not None:
            self._bar.stop()


class StageProgress:
    """Shows one thing being done after another: a bar for each where standard error is a terminal, else lines."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._what, self._tenth = "", -1

    def show(self, what: str, done: int, of: int) -> None:
        """`done` of `of` parts of `what` are done."""
        if err.is_terminal:
            self._show_bar(what, done, of)
        else:
            tenth = 10 * done // of
            if what != self._what or tenth > self._tenth:
                say(f"{what}: {tenth * 10} %")
            self._tenth = tenth
        self._what = what

    def stop(self) -> None:
        """All is done, or the run has ended in another way."""
        if self._bar is not None:
            self._bar.stop()

    def _show_bar(self, what: str, done: int, of: int) -> None:
        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=err)
            self._bar.start()
        if what != self._what:
            self._task = self._bar.add_task(what, total=of)
        self._bar.update(self._task, completed=done)


def say(line: str) -> None:
    """One line on standard error, never folded: a log file has no width."""
    err.print(line, highlight=False, markup=False, soft_wrap=True)
