"""Claiming: how shards come into a worker's hands, and into its batch; or not, and what becomes of these."""

import logging
import time
from collections.abc import Container, Sequence
from contextlib import suppress
from functools import partial

from redis import Redis

from models.card import ModelCard
from worker.claims import Claim
from worker.device.batch import Batch, Lacking, NoRoom, Refused
from worker.holder import Holder
from worker.leases import Lease, Started
from worker.queue import shards
from worker.queue.job import Job, JobNotFound, JobState, JobUnreadable, Record, job_of
from worker.queue.shards import Shard, ShardJob
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)

DAMAGED = "what the queue had of it was damaged: ask again"  # what a client is told
FIRST_BEAT_SECONDS = 0.2  # until it is told of a shard that it has begun; of one that is done by then it need not be


class Claiming(Holder):
    """A worker that claims shards for the room in its batch.

    Args:
        connection: to the Redis of the queue.
        batch: where the sampling happens.
        settings: lease and grace time.
    """

    def __init__(self, connection: Redis, batch: Batch, settings: WorkerSettings) -> None:
        super().__init__(connection, batch, settings)
        self._next_beat = 0.0
        self._found = False  # whether the last claim found any shard
        self._free_seen = 0  # slots that were free when it last looked for more
        self._ahead: tuple[int, str] | None = None  # images, of a model, that are let in before those that wait in hand
        self._wanted: ModelCard | None = None  # a model that found no room

    def _claim(self) -> bool:
        """Claims shards for the room that there is; says whether there were any. Where there is something to step,
        they are claimed beside that, and not known yet: then too it says yes."""
        found, self._more = False, True
        while True:
            self._admit_started()
            if self._started:
                return True
            if self._stop_requested or not self._more:  # loading a model may have taken long
                return found
            asked, ahead = self._asking()
            if not asked:
                return found
            self._waited = False
            held = {*self._claims, *self._made}
            self._beside("claim", partial(self._take, asked, held), partial(self._taken, ahead), self._not_taken)
            if "claim" in self._under_way:
                return True
            if not self._found:
                return found
            found = True

    def _asking(self) -> tuple[list[tuple[list[str] | None, int, dict[str, float]]], bool]:
        """What is asked for, one after another until something is found: models, images, and image-steps that a shard
        of each may have; and whether that goes before the images in hand that wait."""
        (ahead, model), self._ahead = self._ahead or (0, ""), None
        free = self.batch.free
        if not (free or ahead) or any(claim.lease.suspect for claim in self._claims.values()):
            return [], False
        if not free:  # of large jobs as little as may be: those that wait in hand have waited for longer
            return [([model], ahead, {})], True
        fits = {name: rate * self.settings.shard_seconds for name, (_, rate) in self.batch.paces().items()}
        asked = [(self.lacks.taking(self.queue), free, fits)]
        if self._wanted is not None:
            if not self.batch.fits(self._wanted):
                return [], False
            asked, self._wanted = [([self._wanted.name], free, fits), *asked], None
        return asked, False

    def _take(
        self, asked: Sequence[tuple[list[str] | None, int, dict[str, float]]], held: Container[str]
    ) -> tuple[Started, set[str]] | None:
        """Takes the first shards that are found, and begins their leases; None if there are none. Jobs among them whose
        deadline has passed are ended, and told too."""
        for models, images, fits in asked:
            if rq_ids := shards.take(self.queue.rq, models, images, fits):
                started = self.leases.start(rq_ids, held)
                self._begun = started.leases  # or they could run out before the step has ended that this is beside
                jobs = {lease.record[0]: lease.record for lease in started.leases}
                return started, {job_id for job_id, record in jobs.items() if self._end_late(record)}
        return None

    def _end_late(self, record: Record) -> bool:
        """Ends a job if its deadline has passed; says whether it has."""
        with suppress(JobNotFound, JobUnreadable):
            return self.queue.on_time(job_of(*record)).state.final
        return False

    def _taken(self, ahead: bool, found: tuple[Started, set[str]] | None) -> None:
        """Leases that have begun; the job of a shard that is damaged ends, and harms no other."""
        self._found = found is not None
        ended, self._ended_meanwhile = self._ended_meanwhile, set()
        if found is None:
            return
        started, late = found
        for lease in started.leases:
            lease.ahead = ahead
        self._started.extend(started.leases)
        self._begun = ()
        self._more = started.more or self._waited
        self._free_seen = 0  # what waits besides is looked for as soon as there is room
        for rq_id in started.damaged:
            self._remove(rq_id)
        for job_id in ended | late:
            self._forget_job(job_id)

    def _not_taken(self) -> None:
        self._ended_meanwhile.clear()

    def _remove(self, rq_id: str) -> None:
        """Ends the job of a shard that is damaged, and removes what there is of it."""
        log.warning("shard %s is damaged, and its job fails", rq_id)
        self.connection.delete(ShardJob.key_for(rq_id))
        with suppress(JobNotFound):
            self.queue.end(self.queue.get(rq_id.rpartition("-")[0]), JobState.FAILED, DAMAGED)

    def _admit_started(self) -> None:
        """Hands started shards to the batch, until one has to wait. Redis may go away: nothing claimed is forgotten."""
        for lease in list(self._started):
            if self._stop_requested:
                self._decline()
            if not self._started or self._waits(lease):
                return
            self._admit(lease)
            if self._started:  # or it was declined with the others
                self._started.popleft()

    def _admit(self, lease: Lease) -> None:
        """Hands a started shard to the batch, where its last worker left it."""
        read = self._read_shard(lease)
        if read is None:
            return
        shard, job = read
        for before in [one for one in self._in_hand if one.shard.id == shard.id]:
            # It was put back, or it could not have been claimed: so the lease of before is lost, though no beat told.
            log.info("shard %s is dropped: lease lost", shard.id, extra=shard.ids)
            self._drop(before)
        try:
            if why := self.lacks.why(job.request):
                self._leave(lease, job, why)
                return
            part = self.batch.admit(job.request, shard.first, shard.count, lease.saved, lease.ahead)
        except Refused as error:
            self._fail(lease, job, str(error))
            return
        except Lacking as error:
            self.lacks.add(job.request, str(error))
            self._leave(lease, job, str(error))
            return
        except NoRoom as error:  # nothing else is begun until there is some, or its turn would never come
            log.info("shard %s waits: %s", shard.id, error, extra=shard.ids)
            self._wanted, self._more = error.card, True
            self._decline()
            return
        lease.begun = time.time()
        self._claims[shard.id] = Claim(lease, shard, job, part)
        if job.started_at is None and shard.number == 0:
            self.metrics.started(job)
        log.info("claimed shard %s: %d images of job %s", shard.id, shard.count, shard.job_id, extra=shard.ids)
        self._next_beat = min(self._next_beat, time.monotonic() + FIRST_BEAT_SECONDS)

    def _read_shard(self, lease: Lease) -> tuple[Shard, Job] | None:
        """A started shard and its job; None where it is dropped, or its job fails, since one of them cannot be read."""
        lease.rq_job.redis_server_version = self.get_redis_server_version()
        try:
            shard = lease.shard
            job = job_of(*lease.record)
        except JobUnreadable as error:
            log.warning("shard %s cannot be read: %s", lease.rq_job.id, error.__cause__, extra=shard.ids)
            self.leases.fail(lease, "the worker that took it, of another release, cannot read it: ask again")
            return None
        except (JobNotFound, ValueError, TypeError) as error:
            log.warning("shard %s is dropped: %s", lease.rq_job.id, error)
            self.leases.forget(lease)
            shards.remove(lease.rq_job)
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
        self._more = True
        self._next_beat = 0.0  # others are told at once

    def _decline(self) -> None:
        """Puts back what is started and not yet in the batch."""
        if self._started:
            self.leases.decline(list(self._started))
            self._started.clear()
