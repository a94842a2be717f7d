"""Errands: calls that wait for Redis, carried out in turn by a thread of their own while the worker steps."""

import threading
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

Then = Callable[[], None]


class Errands:
    """Carries out one call after another, in the order in which they were begun.

    What follows from a call is done by the worker's own thread, when it collects: so nothing but Redis is shared.
    """

    def __init__(self) -> None:
        self.under_way = 0  # errands that are begun, and not collected
        self._todo: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._ended: SimpleQueue[Then] = SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def started(self) -> bool:
        """Whether there is a thread for them."""
        return self._thread is not None

    def start(self) -> None:
        """Starts the thread."""
        self._thread = threading.Thread(target=self._work, name="errands", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, after what was begun; that has to be collected still."""
        if self._thread is not None:
            self._todo.put(None)
            self._thread.join()
            self._thread = None

    def begin(self, call: Callable[[], Any], then: Callable[[Any], None], failed: Then) -> None:
        """Carries out a call beside the steps.

        Args:
            call: touches nothing that the worker's thread does.
            then: takes its answer.
            failed: called in place of `then` if it raised what `collect` is to raise.
        """
        self.under_way += 1
        self._todo.put(partial(self._carry_out, call, then, failed))

    def collect(self) -> None:
        """Does what follows from the errands that have ended.

        Raises:
            Exception: the first that one has met, after all has been done.
        """
        self._collect(wait=False)

    def wait(self) -> None:
        """Waits for all errands, and collects them.

        Raises:
            Exception: as `collect` does.
        """
        self._collect(wait=True)

    def _collect(self, wait: bool) -> None:
        met: Exception | None = None
        while self.under_way:
            try:
                then = self._ended.get(block=wait)
            except Empty:
                break
            self.under_way -= 1
            try:
                then()
            except Exception as error:
                met = met or error
        if met is not None:
            raise met

    def _carry_out(self, call: Callable[[], Any], then: Callable[[Any], None], failed: Then) -> None:
        try:
            self._ended.put(partial(then, call()))
        except Exception as error:
            self._ended.put(partial(_fail, failed, error))

    def _work(self) -> None:
        while (task := self._todo.get()) is not None:
            task()


def _fail(failed: Then, error: Exception) -> None:
    failed()
    raise error
