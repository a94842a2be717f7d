"""BatchingWorker: an RQ worker that keeps many shards in flight and advances them together.

Stock RQ runs one job at a time, most often in a forked process. Here one process claims shards whenever it has free
slots, steps all of them at once, and finishes each by RQ's own bookkeeping when its images are done. What is private to
RQ stays in this file, worker.member, worker.leases, worker.queue.shards and worker.upkeep.
"""

import json
import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty
from typing import Any

from pydantic import ValidationError
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq.suspension import WORKERS_SUSPENDED
from rq.worker.base import WorkerStatus

from models.card import ModelCard
from models.images import Pixels
from worker import upkeep
from worker.device import state
from worker.device.batch import Batch, Lacking, NoRoom, Refused
from worker.device.lane import DeviceFailed, Part, works
from worker.keeper import Keeper
from worker.lacks import Lacks
from worker.leases import Lease, Leases
from worker.member import AWAY_SECONDS, TURN, Member
from worker.metrics import WorkerMetrics
from worker.queue import keys, scripts, shards
from worker.queue.forecast import PACE, STATUS
from worker.queue.job import Job, JobNotFound, JobState
from worker.queue.jobs import unavailable
from worker.queue.results import encode, previewed
from worker.queue.shards import Shard
from worker.queue.stores import StoreAway, Stores
from worker.settings import WorkerSettings
from worker.writers import Writers, Writing

log = logging.getLogger(__name__)

BEAT_SECONDS = 0.5  # between two reports of progress, which are also the heartbeats of the leases
SHOW_SECONDS = 0.2  # the same while somebody watches
CLEANING_SECONDS = 60  # between two looks of any worker at what is not wanted any more in the results store
LOOK_SECONDS = 0.5  # between two looks for more shards, when no message says that there are
SLICE_FACTOR = 50  # how much longer than it takes to lay a shard aside it is in hand: large images are seldom moved
LONGEST_SLICE_SECONDS = 30.0


@dataclass(eq=False)
class Claim:
    """A shard that this worker holds, while its lease lasts."""

    lease: Lease
    shard: Shard
    job: Job
    part: Part
    since: float = field(default_factory=time.monotonic)
    watched: bool = False  # whether somebody wants to see previews

    @property
    def image_steps_done(self) -> int:
        return self.part.image_steps_done

    @property
    def sigma(self) -> float | None:
        return self.part.sigma


@dataclass(eq=False)
class Made:
    """A shard whose images are on their way into a store: it has no slots any more, and this worker still its lease.

    Args:
        lease: of the shard.
        shard: whose images they are.
        job: likewise.
        image_steps_done: all of them.
        images: uint8 [n, h, w, c].
        frames: what they looked like on their way; None if none are kept.
        arithmetic: whose bits they have.
    """

    lease: Lease
    shard: Shard
    job: Job
    image_steps_done: int
    images: Pixels
    frames: Pixels | None
    arithmetic: str
    sigma: float | None = None
    watched: bool = False

    @property
    def contents(self) -> tuple[bytes, bytes]:
        """As they are stored: images, and frames or nothing."""
        return encode(self.images), b"" if self.frames is None else encode(self.frames)

    @property
    def state(self) -> bytes:
        """What another worker needs to write them in this one's place."""
        return state.pack_done(self.images, self.frames, self.job.rows, self.arithmetic)


class BatchingWorker(Member):
    """Claims shards for the free slots of a Batch and fulfils them.

    Args:
        connection: to the Redis of the queue.
        batch: where the sampling happens.
        settings: lease and grace time.
    """

    def __init__(self, connection: Redis, batch: Batch, settings: WorkerSettings) -> None:
        super().__init__(connection, settings)
        self.batch = batch
        self.writers = Writers(Stores(make=True), lambda: self._mail.put({"command": "written"}))
        self.metrics = WorkerMetrics(batch, self.writers)
        self.leases = Leases(self.queue, self, settings.lease_seconds)
        self.lacks = Lacks(batch.store, settings.model_names)
        self._claims: dict[str, Claim] = {}
        self._made: dict[str, Made] = {}
        self._started: deque[Lease] = deque()  # claimed, and not yet in the batch
        self._ended: deque[Claim] = deque()  # done or at fault, and not yet written down
        self._next_cleaning = self._next_beat = self._next_look = self._next_way = self._away_until = 0.0
        self._reported_steps, self._reported_at = batch.image_steps, time.monotonic()
        self._suspended = False
        self._wanted: ModelCard | None = None  # a model that found no room
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
        keeper.start()
        try:
            while True:
                keeper.turn()
                self._advance()
                idle = self._talk()
                worked |= bool(self._claims or self._made)
                if not self._claims:
                    if not (self._started or self._made) and (self._stop_requested or (burst and idle)):
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
            self._read_mail()  # first: what nobody wants any more needs no room in a Redis that is full
            while self._ended:
                self._settle(self._ended[0])
                self._ended.popleft()
            while self.writers.written:
                self._settle_written(self.writers.written[0])
                self.writers.written.popleft()
            if clock >= self._next_beat:
                self._beat()
                watched = any(claim.watched for claim in self._claims.values())
                self._next_beat = clock + (SHOW_SECONDS if watched else BEAT_SECONDS)
            while self._stop_requested and self._started:
                self.leases.decline(self._started[0])
                self._started.popleft()
            if clock >= self._drain_until:
                self._hand_back()
            return not (self._look_due(clock) and self._claim())
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

    def _look_due(self, clock: float) -> bool:
        if self._stop_requested or self._suspended or self.writers.full or (self._claims and clock < self._next_look):
            return False
        self._next_look = clock + LOOK_SECONDS
        if not self.batch.free:
            self._make_way(clock)
        return bool(self.batch.free)

    def _held(self) -> list[Lease]:
        """All leases, for the thread that keeps them."""
        held: list[Claim | Made] = [*list(self._claims.values()), *list(self._made.values())]
        return [*list(self._started), *(one.lease for one in held)]

    def _sleep(self) -> None:
        """Until there is mail, or it is time to look again."""
        if self._away_until:
            time.sleep(LOOK_SECONDS)
            return
        with suppress(Empty):
            self._mail.put(self._mail.get(timeout=LOOK_SECONDS))

    def _step(self) -> None:
        """One step, and what is ended by it."""
        self._advance()
        while self._ended:
            self._settle(self._ended.popleft())

    # Claiming.

    def _make_way(self, clock: float) -> None:
        """Lays a shard aside if another's turn has come, and what is in hand would keep it waiting for long."""
        if clock < self._next_way:
            return
        self._next_way = clock + LOOK_SECONDS
        old = [c for c in self._claims.values() if clock - c.since >= self._slice_seconds and not c.lease.suspect]
        held = [claim for claim in old if self.batch.frees(claim.part)]
        if not held:
            return
        named = [(claim.shard, claim.part.image_steps_done) for claim in held]
        found = shards.make_way(self.queue.rq, self.lacks.taking(self.queue), named)
        if found is None or not self.batch.serves(found[1]) or self.queue.memory().half_full:
            return
        begun = time.monotonic()
        self._lay_aside(held[found[0]])
        took = time.monotonic() - begun
        self._slice_seconds = max(self.settings.slice_seconds, min(SLICE_FACTOR * took, LONGEST_SLICE_SECONDS))

    def _claim(self) -> bool:
        """Claims shards for the free slots; says whether there were any."""
        found = False
        while True:
            while self._started:  # Redis may go away in the middle: nothing that was claimed is forgotten
                if self._waits(self._started[0]):
                    return True
                self._admit(self._started[0])
                self._started.popleft()
            rq_id = None if self._stop_requested else self._take()  # loading a model may have taken long
            if rq_id is None:
                return found
            found = True
            lease = self.leases.start(rq_id, held=self._claims)
            if lease is not None:
                self._started.append(lease)

    def _waits(self, lease: Lease) -> bool:
        """Whether a shard's turn is when all others are done, since it has to be alone."""
        return bool(self._claims) and lease.suspect

    def _take(self) -> str | None:
        """The id of the next shard that there is room for."""
        if not self.batch.free or any(claim.lease.suspect for claim in self._claims.values()):
            return None
        if self._wanted is not None:
            if not self.batch.fits(self._wanted):
                return None
            only, self._wanted = [self._wanted.name], None
            return shards.take(self.queue.rq, only) or self._take()
        return shards.take(self.queue.rq, self.lacks.taking(self.queue))

    def _admit(self, lease: Lease) -> None:
        """Hands a started shard to the batch, where its last worker left it."""
        lease.rq_job.redis_server_version = self.get_redis_server_version()
        try:
            shard = lease.shard
            job = self.queue.get(shard.job_id)
        except ValidationError as error:
            log.warning("shard %s cannot be read: %s", lease.rq_job.id, error, extra=shard.ids)
            self.leases.fail(lease, "the worker that took it, of another release, cannot read it: ask again")
            return
        except (JobNotFound, ValueError, TypeError) as error:
            log.warning("shard %s is dropped: %s", lease.rq_job.id, error)
            self.leases.forget(lease)
            with suppress(ValueError):
                lease.rq_job.delete()
            return
        saved: Any = self.connection.hget(keys.of(job.id, "state"), str(shard.number))
        try:
            if why := self.lacks.why(job.request):
                self._leave(lease, job, why)
                return
            part = self.batch.admit(job.request, shard.first, shard.count, saved)
        except Refused as error:
            self._fail(lease, job, str(error))
            return
        except Lacking as error:
            self.lacks.add(job.request, str(error))
            self._leave(lease, job, str(error))
            return
        except NoRoom as error:  # nothing else is begun until there is some, or its turn would never come
            log.info("shard %s waits: %s", shard.id, error, extra=shard.ids)
            self._wanted = error.card
            self.leases.decline(lease)
            return
        self._claims[shard.id] = Claim(lease, shard, job, part)
        if job.started_at is None and shard.number == 0:
            self.metrics.started(job)
        log.info("claimed shard %s: %d images of job %s", shard.id, shard.count, shard.job_id, extra=shard.ids)
        self._next_beat = 0.0

    def _leave(self, lease: Lease, job: Job, why: str) -> None:
        """Leaves a shard, of a model that cannot be run here, to others, or fails its job if none can."""
        of_all = self.lacks.of_all(self.queue, self.name, job.request, why)
        if of_all is not None:
            self._fail(lease, job, of_all)
            return
        self.lacks.pause(job.request.model)
        self.leases.decline(lease)
        self._next_beat = 0.0  # others are told at once

    # Holding.

    def _beat(self) -> None:
        """One round trip: reports progress, extends the leases, and drops what is no longer ours or wanted."""
        claims: list[Claim | Made] = [*self._claims.values(), *self._made.values()]
        steps, begun = self.batch.image_steps, time.monotonic()
        with self.connection.pipeline(transaction=False) as pipeline:
            for claim in claims:
                claim.lease.report(claim.image_steps_done, pipeline, sigma=claim.sigma)
                claim.lease.answer(pipeline)
            for claim in claims:
                claim.lease.extend(self.settings.lease_seconds, pipeline)
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
            answers = pipeline.execute()
        if time.monotonic() - begun > self.settings.lease_seconds / 3:
            self._spare_others()
        self._reported_steps, self._reported_at = steps, time.monotonic()
        overdue, _, _, _, self._suspended, unknown, _ = answers[-7:]
        if unknown and self.birth_date:
            self._register_again()
        for claim, wanted, lease in zip(claims, answers[0::2], answers[1::2], strict=False):
            claim.watched = wanted == 2
            if not wanted or lease is None:
                why = "lease lost" if lease is None else "job has ended"
                log.info("shard %s is dropped: %s", claim.shard.id, why, extra=claim.shard.ids)
                self._drop(claim)
                self.leases.forget(claim.lease)
        self.batch.watch([claim.part for claim in self._claims.values() if claim.watched])
        for job_id in overdue:
            with suppress(JobNotFound, ValidationError):
                self.queue.end_overdue(job_id.decode())
        if self.settings.results_url is not None and time.monotonic() >= self._next_cleaning:
            self._next_cleaning = time.monotonic() + CLEANING_SECONDS
            self.writers.do(self._clean)
        if time.monotonic() >= self._next_upkeep:
            self._next_upkeep = time.monotonic() + self.settings.lease_seconds
            self.run_maintenance_tasks()

    def _clean(self) -> None:
        """Removes from the store what is not wanted any more, if it is this worker's turn; called beside the steps."""
        url = self.settings.results_url
        if url is None or not self.connection.eval(TURN, 1, keys.CLEANED, CLEANING_SECONDS):
            return
        try:
            removed = upkeep.forget_images(
                self.connection, self.writers.stores.of(url), self.settings.result_ttl_seconds
            )
        except (StoreAway, RedisError) as error:
            log.warning("what is not wanted any more stays in the results store for now: %s", error)
            return
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
        with suppress(Empty):
            while True:
                message = self._mail.get_nowait()
                match message["command"]:
                    case keys.WAITING:
                        self._next_look = 0.0
                    case keys.ENDED:
                        held: list[Claim | Made] = [*self._claims.values(), *self._made.values()]
                        for claim in [claim for claim in held if claim.job.id == message["job_id"]]:
                            log.info("shard %s is dropped: job has ended", claim.shard.id, extra=claim.shard.ids)
                            self._drop(claim)
                        for lease in list(self._started):
                            if lease.rq_job.id.rpartition("-")[0] == message["job_id"]:
                                self._started.remove(lease)
                                self.leases.forget(lease)
                    case "stop-job":
                        if stopped := self._claims.get(message["job_id"]) or self._made.get(message["job_id"]):
                            self.queue.end(stopped.job, JobState.CANCELLED, "stopped by an operator")

    def _hand_back(self) -> None:
        """Puts every shard in flight back, the first to the very front."""
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
        with suppress(RedisError):
            for made in list(self._made.values()):  # these it had nothing to do with
                self.leases.give_back(made.lease, made.image_steps_done, made.state)
                self._drop(made)
            for lease in self._held():
                if lease in self._started and self._waits(lease):
                    self.leases.decline(lease)
                else:
                    self.leases.retry(lease, why)
        self._claims.clear()

    # Ending.

    def _settle(self, claim: Claim) -> None:
        """Writes down a shard that is done or at fault, or has it written into the store of its job."""
        if claim.shard.id not in self._claims:
            return
        part, job, shard = claim.part, claim.job, claim.shard
        if part.fault:
            self._fail(claim.lease, job, part.fault, part.image_steps_done)
            self._drop(claim)
            return
        arithmetic = part.lane.arithmetic
        made = Made(claim.lease, shard, job, part.image_steps_done, part.pixels(), part.frames(), arithmetic)
        if job.store is None:
            self._finish(made, made.contents)
        else:
            self._made[shard.id] = made
            self.writers.begin(Writing(shard.id, job.store, job.id, shard.number, made.contents))
        self._drop(claim)

    def _settle_written(self, writing: Writing) -> None:
        """Tells Redis of a shard that is in the store."""
        if made := self._made.get(writing.shard_id):
            self._finish(made, writing.kept)
            self._drop(made)

    def _finish(self, made: Made, contents: Sequence[bytes]) -> None:
        stored = self.leases.finish(made.lease, contents, made.image_steps_done)
        if stored:
            self.metrics.finished(made.job, len(made.images), last=stored == 2)
            log.info("finished shard %s", made.shard.id, extra=made.shard.ids)
        if stored == 2:
            log.info("finished job %s", made.job.id, extra={"job": made.job.id})

    def _fail(self, lease: Lease, job: Job, reason: str, image_steps: int | None = None) -> None:
        """Ends the whole job, and removes its other shards."""
        log.warning("job %s failed: %s", job.id, reason, extra={"job": job.id, "shard": lease.shard.number})
        if self.leases.fail(lease, reason, image_steps):
            self.queue.end(job, JobState.FAILED, reason, keep=lease.shard.number)

    def _drop(self, claim: Claim | Made) -> None:
        """Takes a shard out of hand, and makes room for the next."""
        if isinstance(claim, Made):
            self._made.pop(claim.shard.id, None)
            self.writers.forget(claim.shard.id)
            return
        self._claims.pop(claim.shard.id, None)
        self.batch.drop(claim.part)
        self._next_look = 0.0
