"""BatchingWorker: an RQ worker that keeps many shards in flight and advances them together.

Stock RQ runs one job at a time, most often in a forked process. Here one process claims shards whenever it has free
slots, steps all of them at once, and finishes each by RQ's own bookkeeping when its images are done. What is private to
RQ stays in worker.claiming, worker.holder, worker.member, worker.leases, worker.queue.shards and worker.upkeep.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from worker.beside.keeper import Keeper
from worker.claiming import Claiming
from worker.claims import Claim
from worker.device.batch import Batch
from worker.device.lane import DeviceFailed, works
from worker.member import AWAY_SECONDS
from worker.queue import shards
from worker.queue.server import unavailable
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)

BEAT_SECONDS = 0.5  # between two reports of progress, which are also the heartbeats of the leases
SHOW_SECONDS = 0.2  # the same while somebody watches
LOOK_SECONDS = 0.5  # between two looks for more shards, when no message says that there are
SOON_SECONDS = 0.01  # before slots are free, when what comes next is claimed
LET_IN_SECONDS = 0.1  # between two looks for who may be let in before images that wait in hand
SLICE_FACTOR = 50  # how much longer than it takes to lay a shard aside it is in hand: large images are seldom moved
LONGEST_SLICE_SECONDS = 30.0


class BatchingWorker(Claiming):
    """Fulfils what it claims, for many at once and in turns.

    Args:
        connection: to the Redis of the queue.
        batch: where the sampling happens.
        settings: lease and grace time.
    """

    def __init__(self, connection: Redis, batch: Batch, settings: WorkerSettings) -> None:
        super().__init__(connection, batch, settings)
        self._next_way = self._next_in = self._away_until = 0.0
        self._slice_seconds = settings.slice_seconds  # that a shard is in hand at least, before it makes way

    def work(self, burst: bool = False, *_: Any, **__: Any) -> bool:
        """Fulfils shards until it is told to stop or, with `burst`, until nothing waits; says whether there were any.

        While Redis is away or full, the batch goes on and what is done waits in memory.

        Raises:
            DeviceFailed: only another process can go on.
        """
        worked = False
        self._install_signal_handlers()
        if not self._register():
            return False
        keeper = Keeper(
            self.connection,
            self._held,
            self.key,
            self.settings.lease_seconds,
            3 * self.settings.lease_seconds,
            lambda: self.batch.longest_step,
        )
        self.batch.on_load = keeper.loading
        self.batch.soon_seconds = SOON_SECONDS
        keeper.start()
        self.errands.start()
        try:
            while True:
                keeper.turn()
                self._advance()
                self._more |= burst  # who is to go when nothing waits looks for itself
                idle = self._talk()
                worked |= bool(self._claims or self._made)
                if not self._claims:
                    left = self._started or self._made or self.errands.under_way
                    if not left and (self._stop_requested or (burst and idle)):
                        return worked
                    self._sleep()
        except DeviceFailed as error:
            self._give_up(str(error))
            raise
        except RuntimeError as error:  # a GPU tells of what failed when the host next asks it for something
            if works(self.batch.device):
                raise
            self._give_up(f"the device fails: {error}")
            raise DeviceFailed(f"the device fails: {error}") from error
        finally:
            self.writers.stop()
            keeper.stop()
            self.errands.stop()
            with suppress(RedisError):
                self.errands.wait()
            with suppress(RedisError):
                self._beat()
                self.teardown()

    # One turn.

    def _advance(self) -> None:
        ended = self.batch.step()
        if time.monotonic() >= self._next_beat:
            ended += self.batch.diverged()
        for part in ended:
            self._ended.append(next(claim for claim in self._claims.values() if claim.part is part))

    def _talk(self) -> bool | None:
        """All that is due with Redis; says whether nothing was there to claim, or None if Redis is away or full."""
        clock = time.monotonic()
        if clock < self._away_until:
            return None
        try:
            if self.errands.under_way:
                self._collect()
            self._read_mail()  # first: what nobody wants any more needs no room in a Redis that is full
            self._settle_ended()
            self._settle_made()
            if clock >= self._next_beat:
                self._beat()
                watched = any(claim.watched for claim in self._claims.values())
                self._next_beat = clock + (SHOW_SECONDS if watched else BEAT_SECONDS)
            if clock >= self._drain_until:
                self._hand_back()
            if self._stop_requested:
                self._decline()
            if not self._look_due(clock):
                return True
            found = self._claim()
            if "claim" not in self._under_way:
                self._free_seen = self.batch.free
            return not found
        except RedisError as error:
            if not unavailable(error):
                raise
            if self._away_until == 0:
                log.warning("Redis is away or full; going on without: %s", error)
            self._away_until = time.monotonic() + AWAY_SECONDS  # not clock: a command may have waited for long
            self._spare_others()
            return None
        finally:
            if clock >= self._away_until > 0:
                log.info("Redis is back")
                self._away_until = 0.0

    def _collect(self) -> None:
        """What follows from errands. Where there is nothing to step, they are waited for."""
        if self.batch.active:
            self.errands.collect()
        else:
            self.errands.wait()
        self._admit_started()

    def _look_due(self, clock: float) -> bool:
        if "claim" in self._under_way or self._stop_requested or self._suspended:
            return False
        waits = clock < self._next_look and (self._claims or not self._more)
        if waits and self._more:  # a shard whose images began one by one leaves its slots likewise
            waits = self.batch.free <= self._free_seen
        if waits or self.writers.full:
            return False
        self._next_look, self._free_seen = clock + LOOK_SECONDS, self.batch.free
        if not (self._free_seen or self._ahead):
            self._make_way(clock)
        return bool(self.batch.free or self._ahead)

    def _sleep(self) -> None:
        """Until there is mail, or it is time to look again."""
        if self._away_until:
            time.sleep(LOOK_SECONDS)
            return
        if self.errands.under_way:
            return
        with suppress(Empty):
            self._mail.put(self._mail.get(timeout=LOOK_SECONDS))

    def _step(self) -> None:
        """One step, and what is ended by it."""
        self._advance()
        self._settle_ended()
        self._settle_made()

    # Making way.

    def _make_way(self, clock: float) -> None:
        """Lets another's shard in whose turn has come, if what is in hand would keep it waiting for long.

        Where images in hand wait for slots that are free soon, the other's get them before. Or a shard is laid aside.
        """
        others = [claim for claim in self._claims.values() if not claim.lease.suspect]
        if clock >= self._next_way:
            self._next_way = clock + LOOK_SECONDS
            old = [claim for claim in others if clock - claim.since >= self._slice_seconds]
            self._ask_way([claim for claim in old if self.batch.frees(claim.part)], self._lay_one_aside)
        if clock >= self._next_in and not self.batch.free:
            self._next_in = clock + LET_IN_SECONDS
            parts = self.batch.passed(self._slice_seconds)
            self._ask_way([claim for claim in others if claim.part in parts], self._let_in)

    def _ask_way(self, held: Sequence[Claim], then: Callable[[Claim, str], None]) -> None:
        """Asks which of some shards is to let the next in that waits; `then` takes it, and the model of that."""
        if not held or "way" in self._under_way:
            return

        def answered(found: tuple[int, str] | None) -> None:
            if found is not None and held[found[0]] in self._claims.values() and self.batch.serves(found[1]):
                then(held[found[0]], found[1])

        named = [(claim.shard, claim.part.image_steps_done) for claim in held]
        self._beside("way", partial(shards.make_way, self.queue.rq, self.lacks.taking(self.queue), named), answered)

    def _let_in(self, _: Claim, model: str) -> None:
        """Images of a model come before those in hand that wait for slots which are free soon, as many as these."""
        waiting = sum(len(part.waiting) for part in self.batch.passed(self._slice_seconds))
        if waiting:
            self._ahead, self._next_look = (min(self.batch.slots, waiting), model), 0.0

    def _lay_one_aside(self, claim: Claim, _: str) -> None:
        """Lays a shard aside, since another's turn has come."""
        if self.queue.memory().half_full:
            return
        begun = time.monotonic()
        self._lay_aside(claim)
        took = time.monotonic() - begun
        self._slice_seconds = max(self.settings.slice_seconds, min(SLICE_FACTOR * took, LONGEST_SLICE_SECONDS))
