"""Keys: what is kept in Redis, and under which name; those of a job are made in Lua likewise. Torch-free."""

from typing import Literal

ACTIVE = "scoreserve:active"  # sorted set of the jobs that have not ended, by time of creation
LOAD = "scoreserve:load"  # hash: client, or `all` -> image-steps that are accepted and still to do
DEADLINES = "scoreserve:deadlines"  # sorted set of those of them that have one, by when it passes, of Lua's `clock`
WEBHOOKS = "scoreserve:webhooks"  # sorted set of the ended jobs whose webhook has to be called, by when, of `clock`
DRAINED = "scoreserve:drained"  # hash: model that takes no new requests -> since when, seconds since the epoch
TAKEN = "scoreserve:taken"  # sorted set of the shards that are taken and not yet started, by when, of `clock`
LINES = "scoreserve:lines"  # set of the models that something waits for
TOTALS = "scoreserve:totals"  # hash of counters since the beginning
SPENT = "scoreserve:spent"  # hash: id of a key, a colon, what it is -> how much of it the key has spent
ENDED = "scoreserve:ended"  # channel: a job has ended, whose shards need not be worked on
CLEANED = "scoreserve:cleaned"  # when somebody last looked at what the results store need not keep
WAITING = "scoreserve:waiting"  # channel: a model for which something waits

OfJob = Literal[
    "ranges",  # hash: shard number -> its first image and how many it has
    "images",  # hash: shard number -> its images, uint8 pixels one after another
    "frames",  # hash: shard number -> what its images looked like on their way, likewise
    "previews",  # hash: shard number -> what its images are expected to look like, likewise
    "chains",  # hash: shard number -> what its images look like by now, noise and all, likewise
    "progress",  # hash: number of a shard that is begun and not stored -> its image-steps done
    "sigma",  # hash: shard number -> the noise level that it is at
    "state",  # hash: shard number -> what a stopped worker saved of it
    "waiting",  # list: numbers of the shards that wait
    "events",  # stream: what happened. Fields `event`, and of progress `state`, `done`, `sigma`
    "watched",  # there while somebody wants to see previews
]
OfClient = Literal["unended", "ended"]  # sorted sets: its jobs, by time of creation; of those that have ended some may
# be forgotten already


def of(job_id: str, what: OfJob | None = None) -> str:
    """What is kept of a job; without `what` the hash of what it is, and how it ended."""
    return f"scoreserve:job:{job_id}" + (f":{what}" if what else "")


def of_client(client: str, what: OfClient) -> str:
    """The jobs of a client."""
    return f"scoreserve:client:{client}:{what}"
