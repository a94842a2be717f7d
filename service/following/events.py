"""What happens to jobs, as server-sent events: one reader of Redis for all streams of the process.

Each job has a stream in Redis, whose ids are the ids of the events. The reader reads on in the streams of all jobs that
somebody follows, all at once, and hands what it finds to those who do. An event is written as text once, however many
follow the job.
"""

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import redis.asyncio
from fastapi.concurrency import run_in_threadpool
from redis.exceptions import RedisError

from models.images import Pixels, grid, to_png
from service.access.auth import Caller
from service.access.budgets import Budget, Claim
from service.answering.addresses import PLACEHOLDER, PREFIX
from service.answering.job_view import JobView
from service.answering.problems import Problem
from service.following.event import Event, Id, by_job, events_of, id_text, sigma_of
from worker.queue import keys
from worker.queue.job import Job, JobNotFound, JobState
from worker.queue.jobs import JobQueue
from worker.queue.results import Results

log = logging.getLogger(__name__)

MEDIA_TYPE = "text/event-stream"
RETRY = "retry: 2000\n\n"  # milliseconds after which a client connects again
HEARTBEAT_SECONDS = 15.0
BLOCK_MS, PAUSE_SECONDS = 250, 0.1  # the reader waits for something new, and then gathers what else is
LOOK_SECONDS = 2.0  # between two looks at what waits, which nothing happens to
WATCHED_SECONDS = 6  # how long previews are made after the last look
AWAY_SECONDS = 1.0  # between two tries to reach a Redis that is away
MAX_BEHIND = 500  # events that a client may be behind before it has to connect again
BACKLOG = 1200  # entries that a job's stream can have
AT_ONCE = 8  # streams that are begun at the same time


class Stream:
    """The events of a job on their way to one client. Who has it must `close` it.

    Args:
        events: that it belongs to.
        job_id: of the job.
        previews: whether the client wants them.
        caller: who reads.
        claim: on a place among all streams.
    """

    def __init__(self, events: "Events", job_id: str, previews: bool, caller: Caller, claim: Claim) -> None:
        self.events, self.job_id, self.previews, self.caller = events, job_id, previews, caller
        self.claim = claim
        self.seen: Id = (0, 0)  # the last event that was put
        self.prefix = PREFIX.get()
        self._waiting: asyncio.Queue[list[str] | None] = asyncio.Queue()
        self._preview: list[str] = []  # the last one, which may wait still

    def put(self, text: str, last: bool = False, preview: bool = False) -> bool:
        """Puts what is to be sent next; says whether the client keeps up. One that does not has to connect again.

        Of previews only the last waits, since they are large, and older ones show nothing that it does not.
        """
        behind = self._waiting.qsize() >= MAX_BEHIND
        if not behind:
            chunk = [text.replace(PLACEHOLDER, self.prefix) if last else text]
            if preview:
                self._preview.clear()
                self._preview = chunk
            self._waiting.put_nowait(chunk)
        if last or behind:
            self._waiting.put_nowait(None)
        return not behind

    async def text(self) -> AsyncIterator[str]:
        """What is to be sent, and comments meanwhile, so that nobody on the way takes the connection for dead."""
        yield RETRY
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    chunk = await self._waiting.get()
            except TimeoutError:
                chunk = [": still here\n\n"]
            if chunk is None:
                return
            for text in chunk:  # none, of a preview that another came after
                yield text

    def close(self) -> None:
        """Nobody reads any more."""
        self.events.leave(self)


@dataclass(eq=False)
class _Feed:
    """A job that somebody follows."""

    job: Job
    read: Id
    streams: set[Stream] = field(default_factory=set)
    told: str = ""  # the last progress

    @property
    def watched(self) -> bool:
        return any(stream.previews for stream in self.streams)


class Events:
    """Streams of what happens to jobs.

    Args:
        connection: to the Redis of the queue.
        queue: for what a job is, and where it stands.
        results: for previews.
        budget: of streams at a time.
        stands: whether a caller may still read.
    """

    def __init__(
        self,
        connection: redis.asyncio.Redis,
        queue: JobQueue,
        results: Results,
        budget: Budget,
        stands: Callable[[Caller], Awaitable[bool]],
    ) -> None:
        self.connection, self.queue, self.results, self.stands = connection, queue, results, stands
        self.budget = budget
        self._feeds: dict[str, _Feed] = {}
        self._streams: set[Stream] = set()
        self._beginning = asyncio.Semaphore(AT_ONCE)
        self._reader: asyncio.Task[None] | None = None
        self._closed = False
        self._next_look = 0.0

    async def follow(self, job_id: str, after: Id | None, previews: bool, caller: Caller, payer: str) -> Stream | None:
        """A stream from the event after `after` on, or from how the job stands now.

        None if the client has had the last event already. `payer` is whose budget it is of.

        Raises:
            JobNotFound: there is no such job.
            Problem: there are too many streams, or the service stops.
        """
        if self._closed:
            raise Problem("busy", "the service stops", headers={"Retry-After": "5"})
        stream = Stream(self, job_id, previews, caller, self.budget.claim(payer))
        self._streams.add(stream)
        try:
            async with self._beginning:
                job = await run_in_threadpool(self.queue.get, job_id)
                events = await self._since(job, after)
                if previews and not job.state.final:  # at once: the first look at who watches may come too late
                    await self.connection.set(keys.of(job_id, "watched"), 1, ex=WATCHED_SECONDS)
            stream.seen = events[-1].id if events else after or (0, 0)
            missed = [event for event in events if event.kind != "preview"]
            for event, text in zip(missed, await self._texts([(job, event) for event in missed]), strict=True):
                stream.put(text, last=event.final)
        except BaseException:
            self.leave(stream)
            raise
        if job.state.final and not missed:
            self.leave(stream)
            return None
        if not (missed and missed[-1].final):
            self._join(job, stream)
        return stream

    def leave(self, stream: Stream) -> None:
        """Nobody reads the stream any more."""
        self._streams.discard(stream)
        stream.claim.release()
        feed = self._feeds.get(stream.job_id)
        if feed is not None:
            feed.streams.discard(stream)
            if not feed.streams:
                del self._feeds[stream.job_id]

    def stop(self) -> None:
        """Ends all streams, with the hint to connect again, and takes no more."""
        self._closed = True
        for stream in list(self._streams):
            stream.put(f": the service stops\n{RETRY}", last=True)

    async def aclose(self) -> None:
        """Ends everything."""
        self.stop()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    def _join(self, job: Job, stream: Stream) -> None:
        feed = self._feeds.setdefault(job.id, _Feed(job, stream.seen))
        feed.read = min(feed.read, stream.seen)
        feed.streams.add(stream)
        if stream.previews:
            self._next_look = 0.0
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())

    async def _since(self, job: Job, after: Id | None) -> list[Event]:
        """What a client has missed; one that comes for the first time, how the job stands now."""
        key = keys.of(job.id, "events")
        newest = events_of(await self.connection.xrevrange(key, "+", "-", count=20))
        if after is not None and (not newest or after <= newest[0].id):
            return events_of(await self.connection.xrange(key, f"({id_text(after)}", "+", count=BACKLOG))
        latest = next((event for event in newest if event.kind != "preview"), None)
        if latest is None and job.state.final:
            return [Event((round((job.ended_at or 0) * 1000), 0), job.state.value, {})]
        return [latest] if latest else []

    # The reader.

    async def _read(self) -> None:
        """Hands on what happens to the jobs that are followed, until there are none."""
        while self._feeds and not self._closed:
            try:
                found = await self.connection.xread(
                    {keys.of(feed.job.id, "events"): id_text(feed.read) for feed in self._feeds.values()},
                    count=BACKLOG,
                    block=BLOCK_MS,
                )
                await self._hand_on(by_job(found))
                if time.monotonic() >= self._next_look:
                    self._next_look = time.monotonic() + LOOK_SECONDS
                    await self._look()
                await asyncio.sleep(PAUSE_SECONDS)
            except RedisError as error:
                log.warning("no events for now: %s", error)
                await asyncio.sleep(AWAY_SECONDS)
            except Exception:
                log.exception("the reader of events goes on after an error")
                await asyncio.sleep(AWAY_SECONDS)

    async def _hand_on(self, found: dict[str, tuple[Id, list[Event]]]) -> None:
        news: list[tuple[_Feed, Event]] = []
        for job_id, (_, events) in found.items():
            feed = self._feeds.get(job_id)
            if feed is None:
                continue
            latest = max((event.id for event in events if event.kind == "preview"), default=None)
            news += [(feed, e) for e in events if e.kind != "preview" or (e.id == latest and feed.watched)]
        texts = await self._texts([(feed.job, event) for feed, event in news])
        for (feed, event), text in zip(news, texts, strict=True):
            feed.job = _after(feed.job, event)
            self._send(feed, event, text)
        for job_id, (latest, _) in found.items():
            if job_id in self._feeds:
                self._feeds[job_id].read = max(self._feeds[job_id].read, latest)

    def _send(self, feed: _Feed, event: Event, text: str) -> None:
        for stream in list(feed.streams):
            if event.id > stream.seen and (stream.previews or event.kind != "preview"):
                stream.seen = event.id
                if not stream.put(text, last=event.final, preview=event.kind == "preview"):
                    feed.streams.discard(stream)

    async def _look(self) -> None:
        """What nothing in Redis tells of: who may read no more, who watches, what is overdue, who moves up."""
        await self._dismiss()
        feeds = list(self._feeds.values())
        async with self.connection.pipeline(transaction=False) as pipeline:
            for feed in feeds:
                if feed.watched:
                    pipeline.set(keys.of(feed.job.id, "watched"), 1, ex=WATCHED_SECONDS)
            await pipeline.execute()
        waiting = [feed for feed in feeds if feed.job.state == JobState.QUEUED]
        overdue = [feed.job.id for feed in feeds if feed.job.deadline is not None and feed.job.deadline < time.time()]
        moved = await run_in_threadpool(self._moves, [feed.job for feed in waiting], overdue)
        for feed, text in zip(waiting, moved, strict=True):
            if feed.job.state == JobState.QUEUED and text != feed.told:
                feed.told = text
                for stream in feed.streams:
                    stream.put(_chunk(feed.read, "progress", text))

    async def _dismiss(self) -> None:
        """Ends the streams of those who would not be let in any more."""
        callers = {stream.caller.client: stream.caller for stream in self._streams}
        gone = {client for client, caller in callers.items() if not await self.stands(caller)}
        for stream in [stream for stream in self._streams if stream.caller.client in gone]:
            stream.put(": this key opens nothing any more\n\n", last=True)

    def _moves(self, waiting: Sequence[Job], overdue: Sequence[str]) -> list[str]:
        for job_id in overdue:
            with suppress(JobNotFound):
                self.queue.get(job_id)  # which ends it
        return [self._progress(job, None) for job in waiting]

    # Texts, made in a thread.

    async def _texts(self, news: Sequence[tuple[Job, Event]]) -> list[str]:
        return await run_in_threadpool(self._written, news) if news else []

    def _written(self, news: Sequence[tuple[Job, Event]]) -> list[str]:
        return [_chunk(event.id, event.kind, self._data(_after(job, event), event)) for job, event in news]

    def _data(self, job: Job, event: Event) -> str:
        if event.kind == "progress":
            return self._progress(job, event)
        if event.kind == "preview":
            return self._preview(job, event)
        with suppress(JobNotFound):
            job = self.queue.get(job.id)
        PREFIX.set(PLACEHOLDER)  # in the context of this thread's task; a stream puts its own
        return JobView.of(job).model_dump_json()

    def _progress(self, job: Job, event: Event | None) -> str:
        outlook = self.queue.outlook(job)
        return json.dumps(
            {
                "state": job.state,
                "image_steps_done": job.image_steps_done,
                "image_steps": job.image_steps,
                "sigma": event and sigma_of(event),
                "queue_position": outlook.position,
                "eta_seconds": outlook.eta,
            }
        )

    def _preview(self, job: Job, event: Event) -> str:
        estimates, chains = self.results.previews(job)
        across = max(1, min(len(chains), round(len(chains) ** 0.5 + 0.499)))
        return json.dumps(
            {
                "image_steps_done": job.image_steps_done,
                "sigma": sigma_of(event),
                "png": _grid(estimates, across),
                "chains": _grid(chains, across),
                "columns": across,
                "count": len(chains),
            }
        )


def _grid(images: Pixels, across: int) -> str:
    return base64.b64encode(to_png(grid(images, across, padding=1))).decode()


def _chunk(id_: Id, kind: str, data: str) -> str:
    name = "done" if kind == JobState.FINISHED else kind
    return f"id: {id_text(id_)}\nevent: {name}\ndata: {data}\n\n"


def _after(job: Job, event: Event) -> Job:
    """The job as it was then."""
    if event.final:
        return job
    update = {"state": JobState(event.fields["state"]), "image_steps_done": int(event.fields["done"])}
    return job.model_copy(update=update)
