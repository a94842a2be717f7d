"""Steps: a batch advances on a thread of its own, so that no step waits for what is said to Redis."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class Steps:
    """Advances for as long as there is something to advance; what else is done with it is done between two steps.

    Before it is started, and once it has stopped, that is done at once, by who asks for it.

    Args:
        advance: one step.
        busy: whether there is something to advance.
        wake: called by the thread when a step has failed.
    """

    def __init__(self, advance: Callable[[], None], busy: Callable[[], bool], wake: Callable[[], None]) -> None:
        self.advance, self.busy, self.wake = advance, busy, wake
        self._todo: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def start(self, first: Callable[[], None] = lambda: None) -> None:
        """Begins to advance; the thread does something else first."""
        self._todo.put(first)
        self._thread = threading.Thread(target=self._run, name="steps", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns after the step that is under way, and what was to be done after it."""
        if self._thread is not None:
            self._todo.put(None)
            self._thread.join()
            self._thread = None

    def between(self, task: Callable[[], T]) -> T:
        """Has something done between two steps, soon, and returns what it returns.

        Raises:
            Exception: whatever the task raises.
        """
        if self._thread in (None, threading.current_thread()):
            return task()
        done: Future[T] = Future()

        def carry_out() -> None:
            try:
                done.set_result(task())
            except BaseException as error:
                done.set_exception(error)

        self._todo.put(carry_out)
        return done.result()

    def check(self) -> None:
        """
        Raises:
            Exception: what a step has raised, after which there were no more.
        """
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while True:
            stepping = self._failure is None and self.busy()
            if not (stepping and self._todo.empty()):
                task = self._todo.get()
                if task is None:
                    return
                task()
                continue
            try:
                self.advance()
            except Exception as error:
                self._failure = error
                self.wake()
