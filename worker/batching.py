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
from worker.leases import Done, Lease, Leases
from worker.member import AWAY_SECONDS, TURN, Member
from worker.metrics import WorkerMetrics
from worker.queue import keys, scripts, shards
from worker.queue.forecast import PACE, STATUS
from worker.queue.job import Job, JobNotFound, JobState, JobUnreadable, job_of
from worker.queue.jobs import Record
from worker.queue.results import encode, previewed
from worker.queue.server import unavailable
from worker.queue.shards import Shard, ShardJob, ShardUnreadable
from worker.queue.stores import StoreAway, Stores
from worker.settings import WorkerSettings
from worker.writers import Writers, Writing

log = logging.getLogger(__name__)

DAMAGED = "what the queue had of it was damaged: ask again"  # what a client is told
BEAT_SECONDS = 0.5  # between two reports of progress, which are also the heartbeats of the leases
SHOW_SECONDS = 0.2  # the same while somebody watches
CLEANING_SECONDS = 60  # between two looks of any worker at what is not wanted any more in the results store
LOOK_SECONDS = 0.5  # between two looks for more shards, when no message says that there are
LET_IN_SECONDS = 0.1  # between two looks for who may be let in before images that wait in hand
SLICE_FACTOR = 50  # how much longer than it takes to lay a shard aside it is in hand: large images are seldom moved
LONGEST_SLICE_SECONDS = 30.0
SETTLED_BYTES = 2**23  # of pixels that are written down in one transaction, unless one shard has more


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
        self.writers = Writers(Stores(), lambda: self._mail.put({"command": "written"}))
        self.metrics = WorkerMetrics(batch, self.writers)
        self.leases = Leases(self.queue, self, settings.lease_seconds)
        self.lacks = Lacks(batch.store, settings.model_names)
        self._claims: dict[str, Claim] = {}
        self._made: dict[str, Made] = {}
        self._started: deque[Lease] = deque()  # claimed, and not yet in the batch
        self._ended: deque[Claim] = deque()  # done or at fault, and not yet written down
        self._next_cleaning = self._next_beat = self._next_look = self._next_way = self._next_in = self._away_until = (
            0.0
        )
        self._ahead: tuple[int, str] | None = None  # images, of a model, that are let in before those that wait in hand
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
            self._settle_ended()
            self._settle_written()
            if clock >= self._next_beat:
                self._beat()
                watched = any(claim.watched for claim in self._claims.values())
                self._next_beat = clock + (SHOW_SECONDS if watched else BEAT_SECONDS)
            if self._stop_requested:
                self._decline()
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
        self._ahead = None
        if not self.batch.free:
            self._make_way(clock)
        return bool(self.batch.free or self._ahead)

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
        self._settle_ended()

    # Claiming.

    def _make_way(self, clock: float) -> None:
        """Lets another's shard in whose turn has come, if what is in hand would keep it waiting for long.

        Where images in hand wait for slots that are free soon, the other's get them before. Or a shard is laid aside.
        """
        others = [claim for claim in self._claims.values() if not claim.lease.suspect]
        if clock >= self._next_way:
            self._next_way = clock + LOOK_SECONDS
            old = [claim for claim in others if clock - claim.since >= self._slice_seconds]
            self._lay_one_aside([claim for claim in old if self.batch.frees(claim.part)])
        if clock >= self._next_in and not self.batch.free:
            self._next_in = clock + LET_IN_SECONDS
            parts = self.batch.passed(self._slice_seconds)
            found = self._turn_of([claim for claim in others if claim.part in parts])
            if found is not None:
                self._ahead = min(self.batch.slots, sum(len(part.waiting) for part in parts)), found[1]

    def _turn_of(self, held: Sequence[Claim]) -> tuple[Claim, str] | None:
        """Which of some shards is to let the next in that waits, and the model of that."""
        if not held:
            return None
        named = [(claim.shard, claim.part.image_steps_done) for claim in held]
        found = shards.make_way(self.queue.rq, self.lacks.taking(self.queue), named)
        return (held[found[0]], found[1]) if found is not None and self.batch.serves(found[1]) else None

    def _lay_one_aside(self, held: Sequence[Claim]) -> None:
        """Lays one of some shards aside, if another's turn has come."""
        found = self._turn_of(held)
        if found is None or self.queue.memory().half_full:
            return
        begun = time.monotonic()
        self._lay_aside(found[0])
        took = time.monotonic() - begun
        self._slice_seconds = max(self.settings.slice_seconds, min(SLICE_FACTOR * took, LONGEST_SLICE_SECONDS))

    def _claim(self) -> bool:
        """Claims shards for the free slots; says whether there were any."""
        found = False
        while True:
            self._admit_started()
            if self._started:
                return True
            rq_ids = [] if self._stop_requested else self._take()  # loading a model may have taken long
            if not rq_ids:
                return found
            found = True
            self._started.extend(self._start(rq_ids))

    def _start(self, rq_ids: list[str]) -> list[Lease]:
        """Begins the leases of taken shards; the job of one that is damaged ends, and harms no other."""
        while rq_ids:
            try:
                return self.leases.start(rq_ids, held=self._claims)
            except ShardUnreadable as error:
                self._remove(error.rq_id)
                rq_ids = [rq_id for rq_id in rq_ids if rq_id != error.rq_id]
        return []

    def _remove(self, rq_id: str) -> None:
        """Ends the job of a shard that is damaged, and removes what there is of it."""
        log.warning("shard %s is damaged, and its job fails", rq_id)
        self.connection.delete(ShardJob.key_for(rq_id))
        self.connection.zrem(keys.TAKEN, rq_id)
        with suppress(JobNotFound):
            self.queue.end(self.queue.get(rq_id.rpartition("-")[0]), JobState.FAILED, DAMAGED)

    def _waits(self, lease: Lease) -> bool:
        """Whether a shard's turn is when all others are done, since it has to be alone."""
        return bool(self._claims) and lease.suspect

    def _take(self) -> list[str]:
        """The ids of the next shards that there is room for."""
        (ahead, model), self._ahead = self._ahead or (0, ""), None
        free = self.batch.free
        if not (free or ahead) or any(claim.lease.suspect for claim in self._claims.values()):
            return []
        if not free:  # of large jobs as little as may be: those that wait in hand have waited for longer
            return shards.take(self.queue.rq, [model], ahead)
        fits = {name: rate * self.settings.shard_seconds for name, (_, rate) in self.batch.paces().items()}
        if self._wanted is not None:
            if not self.batch.fits(self._wanted):
                return []
            only, self._wanted = [self._wanted.name], None
            return shards.take(self.queue.rq, only, free, fits) or self._take()
        return shards.take(self.queue.rq, self.lacks.taking(self.queue), free, fits)

    def _admit_started(self) -> None:
        """Hands started shards to the batch, until one has to wait. Redis may go away: nothing claimed is forgotten."""
        if not self._started or self._waits(self._started[0]):
            return
        there = list(self._started)
        shard_ids = [lease.rq_job.id.rpartition("-") for lease in there]
        records = {record[0]: record for record in self.queue.records(list({job_id for job_id, _, _ in shard_ids}))}
        with self.connection.pipeline(transaction=False) as pipeline:
            for job_id, _, number in shard_ids:
                pipeline.hget(keys.of(job_id, "state"), number)
            saved = pipeline.execute()
        for lease, (job_id, _, _), state_of_it in zip(there, shard_ids, saved, strict=True):
            if self._stop_requested:
                self._decline()
            if not self._started or self._waits(lease):
                return
            self._admit(lease, records[job_id], state_of_it)
            if self._started:  # or it was declined with the others
                self._started.popleft()

    def _admit(self, lease: Lease, record: Record, saved: bytes | None) -> None:
        """Hands a started shard to the batch, where its last worker left it."""
        read = self._read_shard(lease, record)
        if read is None:
            return
        shard, job = read
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
            self._decline()
            return
        self._claims[shard.id] = Claim(lease, shard, job, part)
        if job.started_at is None and shard.number == 0:
            self.metrics.started(job)
        log.info("claimed shard %s: %d images of job %s", shard.id, shard.count, shard.job_id, extra=shard.ids)
        self._next_beat = 0.0

    def _read_shard(self, lease: Lease, record: Record) -> tuple[Shard, Job] | None:
        """A started shard and its job; None where it is dropped, or its job fails, since one of them cannot be read."""
        lease.rq_job.redis_server_version = self.get_redis_server_version()
        try:
            shard = lease.shard
            job = self.queue.on_time(job_of(*record))
        except JobUnreadable as error:
            log.warning("shard %s cannot be read: %s", lease.rq_job.id, error.__cause__, extra=shard.ids)
            self.leases.fail(lease, "the worker that took it, of another release, cannot read it: ask again")
            return None
        except (JobNotFound, ValueError, TypeError) as error:
            log.warning("shard %s is dropped: %s", lease.rq_job.id, error)
            self.leases.forget(lease)
            with suppress(ValueError):
                lease.rq_job.delete()
            return None
        if not shard.part_of(job):
            self._fail(lease, job, DAMAGED)
            return None
        return shard, job

    def _leave(self, lease: Lease, job: Job, why: str) -> None:
        """Leaves a shard, of a model that cannot be run here, to others, or fails its job if none can."""
        of_all = self.lacks.of_all(self.queue, self.name, job.request, why)
        if of_all is not None:
            self._fail(lease, job, of_all)
            return
        self.lacks.pause(job.request.model)
        self.leases.decline([lease])
        self._next_beat = 0.0  # others are told at once

    def _decline(self) -> None:
        """Puts back what is started and not yet in the batch."""
        if self._started:
            self.leases.decline(list(self._started))
            self._started.clear()

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
            with suppress(JobNotFound):
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
            self._settle([claim])
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
                    self.leases.decline([lease])
                else:
                    self.leases.retry(lease, why)
        self._claims.clear()

    # Ending.

    def _settle_ended(self) -> None:
        """Writes down what is done or at fault, as many shards at once as one transaction may be large."""
        while self._ended:
            some: list[Claim] = []
            size = 0
            for claim in self._ended:
                size += len(claim.part.chains) * max(1, claim.job.request.frames) * claim.job.image.size
                if some and size > SETTLED_BYTES:
                    break
                some.append(claim)
            self._settle(some)
            for _ in some:
                self._ended.popleft()

    def _settle(self, ended: Sequence[Claim]) -> None:
        """Writes down shards that are done or at fault, or has them written into the store of their job."""
        done: list[Made] = []
        for claim in ended:
            if claim.shard.id not in self._claims:
                continue
            part, job, shard = claim.part, claim.job, claim.shard
            if part.fault:
                self._fail(claim.lease, job, part.fault, part.image_steps_done)
                self._drop(claim)
                continue
            arithmetic = part.lane.arithmetic
            made = Made(claim.lease, shard, job, part.image_steps_done, part.pixels(), part.frames(), arithmetic)
            if job.store is None:
                done.append(made)
            else:
                self._made[shard.id] = made
                self.writers.begin(Writing(shard.id, job.store, job.id, shard.number, made.contents))
                self._drop(claim)
        self._finish([(made, made.contents) for made in done])
        for made in done:
            self._drop(self._claims[made.shard.id])

    def _settle_written(self) -> None:
        """Tells Redis of shards that are in the store."""
        written = list(self.writers.written)
        done = [(made, writing.kept) for writing in written if (made := self._made.get(writing.shard_id))]
        self._finish(done)
        for made, _ in done:
            self._drop(made)
        for _ in written:
            self.writers.written.popleft()

    def _finish(self, done: Sequence[tuple[Made, Sequence[bytes]]]) -> None:
        """Tells Redis of shards that are made, and what they have made or where that is."""
        if not done:
            return
        answers = self.leases.finish([Done(made.lease, contents, made.image_steps_done) for made, contents in done])
        for (made, _), stored in zip(done, answers, strict=True):
            if stored:
                self.metrics.finished(made.job, made.shard.count, last=stored == 2)
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
