"""Writers: threads that write what was made into a results store, beside the steps, however long that takes.

A store that is away costs no work: what was made waits here, and the worker holds its lease meanwhile.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue

from worker.queue.stores import StoreAway, Stores

log = logging.getLogger(__name__)

THREADS = 4  # what a bucket takes long for, it does for many at once
BACKLOG_BYTES = 2**26  # that may wait to be written before nothing more is begun
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two tries


@dataclass(eq=False)
class Writing:
    """What one shard has made, on its way into a store.

    Args:
        shard_id: of it.
        url: of the store.
        job_id: whose it is.
        number: of the shard.
        contents: images, and what they looked like on their way or nothing.
    """

    shard_id: str
    url: str
    job_id: str
    number: int
    contents: Sequence[bytes]
    forgotten: threading.Event = field(default_factory=threading.Event)
    kept: list[bytes] = field(default_factory=list)  # what Redis is to have in place of the contents

    @property
    def bytes(self) -> int:
        return sum(map(len, self.contents))


class Writers:
    """Writes until it is there; threads are started when there is something to write.

    Args:
        stores: that jobs name.
        wake: called by a thread whenever something is written.
    """

    def __init__(self, stores: Stores, wake: Callable[[], None]) -> None:
        self.stores, self.wake = stores, wake
        self.written: deque[Writing] = deque()  # for the worker to tell Redis
        self.failures = 0  # tries that found a store away, so far
        self._under_way: set[Writing] = set()
        self._todo: SimpleQueue[Writing | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._stopped = threading.Event()
        self._away = False

    @property
    def backlog(self) -> int:
        """Bytes that are not written yet."""
        return sum(writing.bytes for writing in list(self._under_way))

    @property
    def full(self) -> bool:
        """Whether so much waits that nothing more should be made."""
        return self.backlog >= BACKLOG_BYTES

    def begin(self, writing: Writing) -> None:
        """Writes it as soon as it can be; it is in `written` then."""
        self._under_way.add(writing)
        if len(self._threads) < THREADS:
            thread = threading.Thread(target=self._work, name="writer", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._todo.put(writing)

    def forget(self, shard_id: str) -> None:
        """Nobody wants it any more."""
        for writing in [writing for writing in list(self._under_way) if writing.shard_id == shard_id]:
            self._under_way.discard(writing)
            writing.forgotten.set()

    def stop(self) -> None:
        """Ends the threads, each after what it does just now; what is not written stays so."""
        self._stopped.set()
        for writing in list(self._under_way):
            writing.forgotten.set()
        for _ in self._threads:
            self._todo.put(None)

    def _work(self) -> None:
        while (writing := self._todo.get()) is not None and not self._stopped.is_set():
            try:
                self._write(writing)
            except Exception:
                log.exception("images could not be written")

    def _write(self, writing: Writing) -> None:
        pause = FIRST_PAUSE
        while not writing.forgotten.is_set():
            try:
                writing.kept = [self._put(writing, content) for content in writing.contents]
            except StoreAway as error:
                self._tell(error)
                writing.forgotten.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._tell(None)
                with suppress(KeyError):  # it is forgotten
                    self._under_way.remove(writing)
                    self.written.append(writing)
                    self.wake()
                return

    def _put(self, writing: Writing, content: bytes) -> bytes:
        return content and self.stores.put(writing.url, writing.job_id, writing.number, content)

    def _tell(self, error: StoreAway | None) -> None:
        """Logs the first of many failures, and that they are over."""
        if error is None:
            if self._away:
                log.info("the results store is back")
            self._away = False
            return
        self.failures += 1
        if not self._away:
            log.warning("the results store is away, going on until %d MiB wait: %s", BACKLOG_BYTES // 2**20, error)
        self._away = True
