"""Claims: the shards that a worker has in hand, in slots or on their way into a store."""

import time
from dataclasses import dataclass, field

from models.images import Pixels
from worker.device import state
from worker.device.lane import Part
from worker.leases import Lease
from worker.queue.job import Job
from worker.queue.results import encode
from worker.queue.shards import Shard


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
    def size(self) -> int:
        """Bytes of its pixels."""
        return self.images.nbytes + (0 if self.frames is None else self.frames.nbytes)

    @property
    def state(self) -> bytes:
        """What another worker needs to write them in this one's place."""
        return state.pack_done(self.images, self.frames, self.job.rows, self.arithmetic)
