"""Holder: a worker that holds shards, and what becomes of them: reported, written down, given back, dropped.

Which shards those are is for worker.claiming, and when they are stepped for worker.batching.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq.suspension import WORKERS_SUSPENDED
from rq.worker.base import WorkerStatus

from worker import upkeep
from worker.beside.errands import Errands
from worker.beside.writers import Writers, Writing
from worker.claims import Claim, Made
from worker.device import state
from worker.device.batch import Batch
from worker.lacks import Lacks
from worker.leases import Done, Lease, Leases
from worker.member import TURN, Member
from worker.metrics import WorkerMetrics
from worker.queue import keys, scripts, shards
from worker.queue.forecast import PACE, STATUS
from worker.queue.job import Job, JobState
from worker.queue.results import encode, previewed
from worker.queue.stores import StoreAway, Stores
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)

CLEANING_SECONDS = 60  # between two looks of any worker at what is not wanted any more in the results store
SETTLED_BYTES = 2**23  # of pixels that are written down in one transaction, unless one shard has more


class Holder(Member):
    """A worker with shards in hand.

    Args:
        connection: to the Redis of the queue.
        batch: where the sampling happens.
        settings: lease and grace time.
    """

    def __init__(self, connection: Redis, batch: Batch, settings: WorkerSettings) -> None:
        super().__init__(connection, settings)
        self.batch = batch
        self.writers = Writers(Stores(), lambda: self._mail.put({"command": "written"}))
        self.metrics = WorkerMetrics(batch, self.writers)
        self.leases = Leases(self.queue, self, settings.lease_seconds)
        self.lacks = Lacks(batch.store, settings.model_names)
        self._begun: Sequence[Lease] = ()  # by an errand, whose answer this worker has not collected yet
        self._started: deque[Lease] = deque()  # claimed, and not yet in the batch
        self._claims: dict[str, Claim] = {}
        self._ended: deque[Claim] = deque()  # done or at fault
        self._made: dict[str, Made] = {}
        self._untold: deque[tuple[Made, Sequence[bytes] | None]] = deque()  # of which Redis is to know; and where kept
        self.errands = Errands()
        self._under_way: set[str] = set()  # the errands that are, of each kind one at a time
        self._waited = False  # whether something was said to wait since a claim began
        self._ended_meanwhile: set[str] = set()  # jobs that have ended since
        self._next_look = self._next_cleaning = 0.0
        self._cleaner: threading.Thread | None = None
        self._more = True  # whether shards may wait for room here
        self._reported_steps, self._reported_at = batch.image_steps, time.monotonic()
        self._suspended = False

    @property
    def _in_hand(self) -> list[Claim | Made]:
        """What is in slots, and what is on its way into a store; may be asked from any thread."""
        return [*list(self._claims.values()), *list(self._made.values())]

    def _held(self) -> list[Lease]:
        """All leases, each once, for the thread that keeps them: asked for in the order in which they are passed on."""
        return list(dict.fromkeys([*self._begun, *list(self._started), *(one.lease for one in self._in_hand)]))

    def _waits(self, lease: Lease) -> bool:
        """Whether a shard's turn is when all others are done, since it has to be alone."""
        return bool(self._claims) and lease.suspect

    def _beside(
        self, name: str, call: Callable[[], Any], then: Callable[[Any], None], failed: Callable[[], None] = lambda: None
    ) -> None:
        """Carries out what waits for Redis: beside the steps if there are any to be made, else at once.

        Args:
            name: of its kind, which is in `_under_way` until it has ended.
            call, then, failed: as Errands has them.
        """

        def answered(answer: Any) -> None:
            self._under_way.discard(name)
            then(answer)

        def not_answered() -> None:
            self._under_way.discard(name)
            failed()

        self._under_way.add(name)
        if self.errands.started and self.batch.active:
            self.errands.begin(call, answered, not_answered)
            return
        try:
            self.errands.wait()  # what was begun before comes before
            answer = call()
        except Exception:
            not_answered()
            raise
        answered(answer)

    # Keeping.

    def _beat(self) -> None:
        """One round trip: reports progress, extends the leases, and drops what is no longer ours or wanted."""
        if "beat" in self._under_way:
            return
        claims = self._in_hand
        steps = self.batch.image_steps
        pipeline = self.connection.pipeline(transaction=False)
        for claim in claims:
            lasts = self.settings.lease_seconds
            claim.lease.report(claim.image_steps_done, pipeline, sigma=claim.sigma, seconds=lasts)
        for claim in claims:
            if isinstance(claim, Claim) and claim.watched:
                self._show(claim, pipeline)
        pipeline.eval(scripts.OVERDUE, 0)
        told: dict[Any, Any] = {PACE: json.dumps(self.batch.paces()), STATUS: json.dumps(self._status(steps))}
        pipeline.hset(self.key, mapping=told)
        pipeline.hincrby(keys.TOTALS, "image_steps_computed", steps - self._reported_steps)
        # RQ's notion of one current job stays empty: there are many, and RQ's tools would read it as pickled.
        self.set_state(WorkerStatus.BUSY if claims else WorkerStatus.IDLE, pipeline)
        pipeline.exists(WORKERS_SUSPENDED)
        self.heartbeat(3 * self.settings.lease_seconds, pipeline=pipeline)

        def send() -> tuple[list[Any], float]:
            begun = time.monotonic()
            with pipeline:
                return pipeline.execute(), time.monotonic() - begun

        self._beside("beat", send, partial(self._beaten, claims, steps))

    def _beaten(self, claims: Sequence[Claim | Made], steps: int, answered: tuple[list[Any], float]) -> None:
        """What follows from a beat: its answers, and the seconds that it took."""
        answers, seconds = answered
        if seconds > self.settings.lease_seconds / 3:
            self._spare_others()
        self._reported_steps, self._reported_at = steps, time.monotonic()
        overdue, _, _, _, self._suspended, unknown, _ = answers[-7:]
        if unknown and self.birth_date:
            self._register_again()
        in_hand = self._in_hand
        for claim, wanted in zip(claims, answers, strict=False):
            if claim not in in_hand:  # it has ended meanwhile
                continue
            claim.watched = wanted == 2
            if wanted <= 0:
                why = "lease lost" if wanted < 0 else "job has ended"
                log.info("shard %s is dropped: %s", claim.shard.id, why, extra=claim.shard.ids)
                self._drop(claim)
                if wanted < 0:  # or else who ended the job removes the shard, or whoever finds its lease run out
                    self.leases.forget(claim.lease)
        self.batch.watch([claim.part for claim in self._claims.values() if claim.watched])
        if overdue and "overdue" not in self._under_way:  # a client may see to it that there always are some
            late = [job_id.decode() for job_id in overdue]
            self._beside("overdue", partial(self.queue.end_overdue, late), lambda _: None)
        if self.settings.results_url is not None and time.monotonic() >= self._next_cleaning:
            self._next_cleaning = time.monotonic() + CLEANING_SECONDS
            if self._cleaner is None or not self._cleaner.is_alive():  # a bucket may take it minutes
                self._cleaner = threading.Thread(target=self._clean, name="cleaner", daemon=True)
                self._cleaner.start()
        if time.monotonic() >= self._next_upkeep:
            self._next_upkeep = time.monotonic() + self.settings.lease_seconds
            self._beside("upkeep", self.run_maintenance_tasks, lambda _: None)

    def _clean(self) -> None:
        """Removes from the store what is not wanted any more, if it is this worker's turn; in a thread of its own."""
        url = self.settings.results_url
        try:
            if url is None or not self.connection.eval(TURN, 1, keys.CLEANED, CLEANING_SECONDS):
                return
            removed = upkeep.forget_images(
                self.connection, self.writers.stores.of(url), self.settings.result_ttl_seconds
            )
        except (StoreAway, RedisError) as error:
            log.warning("what is not wanted any more stays in the results store for now: %s", error)
        except Exception:
            log.exception("the results store could not be cleaned")
        else:
            if removed:
                log.info("removed the images of %d jobs from the results store", removed)

    def _status(self, steps: int) -> dict[str, Any]:
        """What is told of this worker, with its speed since the last time."""
        seconds = max(time.monotonic() - self._reported_at, 1e-3)
        return {
            "device": self.batch.device,
            "models": sorted(card.name for card in self.batch.cards),
            "arithmetics": self.batch.arithmetics,
            "only": self.lacks.only,
            "lacks": [lack.model_dump() for lack in self.lacks.told()],
            "slots": self.batch.slots,
            "slots_active": self.batch.active,
            "image_steps_per_second": round((steps - self._reported_steps) / seconds, 1),
        }

    def _show(self, claim: Claim, pipeline: Pipeline) -> None:
        """Adds the command that shows what a shard's images look like by now, if previews have room for any."""
        most = previewed(claim.job) - claim.shard.first
        if most > 0:
            estimates, states = claim.part.estimates(most), claim.part.states(most)
            shards.show(claim.shard, encode(estimates), encode(states), pipeline)

    def _read_mail(self) -> None:
        """Messages of other threads. A job that has ended leaves its slots here, at the cost of no round trip."""
        while not self._mail.empty():
            message = self._mail.get_nowait()
            match message["command"]:
                case keys.WAITING:
                    self._next_look, self._more, self._waited = 0.0, True, True
                case keys.ENDED:
                    self._forget_job(message["job_id"])
                case "stop-job":
                    if stopped := self._claims.get(message["job_id"]) or self._made.get(message["job_id"]):
                        self.queue.end(stopped.job, JobState.CANCELLED, "stopped by an operator")

    def _forget_job(self, job_id: str) -> None:
        """Drops what there is of a job that has ended."""
        for claim in [claim for claim in self._in_hand if claim.job.id == job_id]:
            log.info("shard %s is dropped: job has ended", claim.shard.id, extra=claim.shard.ids)
            self._drop(claim)
        for lease in list(self._started):
            if lease.rq_job.id.rpartition("-")[0] == job_id:
                self._started.remove(lease)
        if "claim" in self._under_way:
            self._ended_meanwhile.add(job_id)

    def _hand_back(self) -> None:
        """Puts every shard in flight back, the first to the very front."""
        self.errands.wait()
        for claim in reversed(list(self._claims.values())):
            self._lay_aside(claim)
        for made in reversed(list(self._made.values())):
            self.leases.give_back(made.lease, made.image_steps_done, made.state)
            self._drop(made)

    def _lay_aside(self, claim: Claim) -> None:
        """Puts a shard back to the front of its job, with its state; no retry is spent."""
        self.batch.pause(claim.part)
        claim.part.look_for_faults()
        if claim.part.fault:
            self._settle(claim)
            return
        saved = state.pack(claim.part.chains, claim.part.lane.arithmetic)
        log.info("handing back shard %s, %d bytes", claim.shard.id, len(saved), extra=claim.shard.ids)
        self.leases.give_back(claim.lease, claim.part.image_steps_done, saved)
        self._drop(claim)

    def _give_up(self, why: str) -> None:
        """As if this worker had died: its shards may be what broke the device, so a retry is spent."""
        begun = list(self._started)
        with suppress(RedisError):
            self.errands.wait()
        later = [lease for lease in self._started if lease not in begun]  # which it has done nothing with
        with suppress(RedisError):
            if later:
                self.leases.decline(later)
                self._started = deque(begun)
            for made in list(self._made.values()):  # these it had nothing to do with
                self.leases.give_back(made.lease, made.image_steps_done, made.state)
                self._drop(made)
            for lease in self._held():
                if lease in self._started and self._waits(lease):
                    self.leases.decline([lease])
                else:
                    self.leases.retry(lease, why)
        self._claims.clear()

    # Ending.

    def _settle_ended(self) -> None:
        """Takes what is done or at fault out of hand."""
        while self._ended:
            self._settle(self._ended[0])  # which Redis may not let
            self._ended.popleft()

    def _settle(self, claim: Claim) -> None:
        """Takes a shard that is done or at fault out of hand; what is made is told to Redis, or written first."""
        if self._claims.get(claim.shard.id) is not claim:
            return
        part, job, shard = claim.part, claim.job, claim.shard
        if part.fault:
            self._fail(claim.lease, job, part.fault, part.image_steps_done)
            self._drop(claim)
            return
        arithmetic = part.lane.arithmetic
        made = Made(claim.lease, shard, job, part.image_steps_done, part.pixels(), part.frames(), arithmetic)
        self._made[shard.id] = made
        if job.store is None:
            self._untold.append((made, None))
        else:
            self.writers.begin(Writing(shard.id, job.store, job.id, shard.number, made.contents))
        self._drop(claim)

    def _settle_made(self) -> None:
        """Tells Redis of shards that are made and, if their job has a store, are there."""
        while self.writers.written:
            writing = self.writers.written.popleft()
            if made := self._made.get(writing.shard_id):
                self._untold.append((made, writing.kept))
        while self._untold and "made" not in self._under_way:
            some: list[tuple[Made, Sequence[bytes] | None]] = []
            size = 0
            while self._untold:
                made, kept = self._untold[0]
                size += made.size if kept is None else 0
                if some and size > SETTLED_BYTES:
                    break
                self._untold.popleft()
                if self._made.get(made.shard.id) is made:
                    some.append((made, kept))
            if some:
                told, not_told = partial(self._told, some), partial(self._not_told, some)
                self._beside("made", partial(self._finish, some), told, not_told)

    def _finish(self, some: Sequence[tuple[Made, Sequence[bytes] | None]]) -> list[int]:
        """Writes down what shards have made, or where that is."""
        return self.leases.finish(
            [Done(made.lease, made.contents if kept is None else kept, made.image_steps_done) for made, kept in some]
        )

    def _told(self, some: Sequence[tuple[Made, Sequence[bytes] | None]], answers: Sequence[int]) -> None:
        for (made, _), stored in zip(some, answers, strict=True):
            if stored:
                self.metrics.finished(made.job, made.shard.count, last=stored == 2)
                log.info("finished shard %s", made.shard.id, extra=made.shard.ids)
            if stored == 2:
                log.info("finished job %s", made.job.id, extra={"job": made.job.id})
            self._drop(made)

    def _not_told(self, some: Sequence[tuple[Made, Sequence[bytes] | None]]) -> None:
        self._untold.extendleft(reversed(some))

    def _fail(self, lease: Lease, job: Job, reason: str, image_steps: int | None = None) -> None:
        """Ends the whole job, and removes its other shards."""
        log.warning("job %s failed: %s", job.id, reason, extra={"job": job.id, "shard": lease.shard.number})
        if self.leases.fail(lease, reason, image_steps):
            self.queue.end(job, JobState.FAILED, reason, keep=lease.shard.number)

    def _drop(self, claim: Claim | Made) -> None:
        """Takes a shard out of hand, and makes room for the next; but not the same shard that was claimed anew."""
        if isinstance(claim, Made):
            if self._made.get(claim.shard.id) is claim:
                del self._made[claim.shard.id]
                self.writers.forget(claim.shard.id)
            return
        if self._claims.get(claim.shard.id) is claim:
            del self._claims[claim.shard.id]
        self.batch.drop(claim.part)
        if self._more or self._started:
            self._next_look = 0.0
