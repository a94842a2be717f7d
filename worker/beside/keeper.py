"""The keeper: a thread that holds leases while a step, or the loading of a model, takes longer than they last."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from redis import Redis
from redis.exceptions import RedisError

from worker.leases import Lease

log = logging.getLogger(__name__)

# A worker hangs that has no turn for so long, and for so many of its longest steps; while it loads a model, which may
# have to be compiled, it may take longer.
STALLED_SECONDS = 120.0
STALLED_STEPS = 20
LOADING_SECONDS = 900.0


class Keeper(threading.Thread):
    """Extends leases three times while each lasts, for as long as the worker takes turns.

    A worker that is frozen or killed freezes or kills this thread with it, so its leases still end.

    Args:
        connection: to Redis; its pool is shared with the worker's thread.
        leases: those that the worker holds now.
        worker_key: what RQ knows of the worker.
        seconds: how long a lease lasts.
        worker_seconds: how long the worker is taken for alive.
        longest_step: seconds of the longest step that is to be expected now.
    """

    def __init__(
        self,
        connection: Redis,
        leases: Callable[[], list[Lease]],
        worker_key: str,
        seconds: int,
        worker_seconds: int,
        longest_step: Callable[[], float] = lambda: 0.0,
    ) -> None:
        super().__init__(name="keeper", daemon=True)
        self.connection, self.leases, self.worker_key = connection, leases, worker_key
        self.seconds, self.worker_seconds = seconds, worker_seconds
        self.longest_step = longest_step
        self._turn, self._loading = time.monotonic(), False
        self._stopped = threading.Event()

    def turn(self) -> None:
        """The worker is alive: it has begun another turn."""
        self._turn = time.monotonic()

    def loading(self, begins: bool) -> None:
        """The worker begins to load a model, or has ended that: it is alive."""
        self._turn, self._loading = time.monotonic(), begins

    @property
    def patience(self) -> float:
        """Seconds that the worker has for what it does."""
        return LOADING_SECONDS if self._loading else max(STALLED_SECONDS, STALLED_STEPS * self.longest_step())

    def run(self) -> None:
        """Extends the leases until `stop`, but not while the worker hangs: one that was frozen goes on."""
        hangs = False
        while not self._stopped.wait(self.seconds / 3):
            if time.monotonic() - self._turn <= (patience := self.patience):
                hangs = False
                with suppress(RedisError):  # it may be back next time
                    self.extend()
            elif not hangs:
                hangs = True
                log.error("no step for %.0f s: what this worker holds is left to others", patience)

    def extend(self) -> None:
        """Extends all leases, in one round trip."""
        with self.connection.pipeline(transaction=False) as pipeline:
            for lease in self.leases():
                lease.extend(self.seconds, pipeline)
            pipeline.expire(self.worker_key, self.worker_seconds)
            pipeline.execute()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped.set()
        self.join()
