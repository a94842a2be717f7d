"""Drawings: views that are pictures, drawn once for who asks, apart from the service, and kept for a while."""

import asyncio
import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

from fastapi import Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from models.images import Pixels
from service.access.pace import Pace
from service.answering.caching import RELEASE
from service.answering.problems import Problem, invalid
from service.apart.crew import Crew, Overrun
from service.apart.turns import RETRY, Turns
from service.drawing import pictures
from service.drawing.kept import Kept
from service.settings import ServiceSettings
from worker.queue.job import Job

Result = TypeVar("Result")

ARCHIVISTS = 1  # threads that make archives: each takes turns with those who answer, who wait for it then
SMALL = 2**18  # pixels of a PNG file that takes some milliseconds: no process is asked, and it is not kept
SMALL_WAITING = 1000  # of one client
PIECE_BYTES = 2**18  # sent to a process at a time
_LESS = "fewer pixels: a smaller scale, or samples.npz"


@dataclass(frozen=True)
class View:
    """A picture of a finished job.

    Args:
        name: of the file.
        pixels: of the whole picture, of all frames together.
        options: as pictures.py has them.
        images: uint8 [n, h, w, c] at a time, read when it is drawn.
    """

    name: str
    pixels: int
    options: dict[str, Any]
    images: Callable[[], Iterable[Pixels]] = field(compare=False)


@dataclass
class _Making:
    task: "asyncio.Task[None]"
    waiting: int = 0


class Drawings:
    """Draws views, one of a client at a time.

    Args:
        settings: how many at once, what each may take, and how much is kept.
        pace: of clients, who have archives made with rests while others ask.
    """

    def __init__(self, settings: ServiceSettings, pace: Pace) -> None:
        self.pace = pace
        self._archivists = ThreadPoolExecutor(ARCHIVISTS, "archivist")
        self.crew = Crew("service.drawing.pictures", settings.drawing_seconds, settings.drawing_memory_mb)
        most = settings.max_client_drawing_pixels
        total = settings.drawers * most
        self.turns = Turns("drawings", "pixels", settings.drawers, settings.max_client_drawings, most, total)
        self.small = Turns("small drawings", "pixels", settings.drawers, SMALL_WAITING, total, SMALL_WAITING * total)
        self.kept = Kept(settings.views_dir, settings.max_views_bytes, settings.views_seconds)
        self.downloads, self.most_downloads = Counter[str](), settings.max_client_downloads
        self._making: dict[str, _Making] = {}

    def find(self, job: Job, view: View) -> IO[bytes] | None:
        """The file, if it was drawn and is still kept."""
        return self.kept.open(_key(job, view))

    async def draw(self, client: str, job: Job, view: View) -> IO[bytes]:
        """The file, drawn for a client unless it is kept; to cancel this ends what nobody else waits for.

        Raises:
            Problem: it takes too much, or the client has too many under way.
            JobNotFound: the images are gone.
        """
        if view.options["kind"] == "PNG" and view.pixels <= SMALL:
            async with self.small.of(client, view.pixels):
                return await run_in_threadpool(_small, _asked(job, view), view)
        key = _key(job, view)
        while (file := self.kept.open(key)) is None:
            making = self._making.get(key)
            if making is None:
                making = self._making[key] = _Making(asyncio.create_task(self._make(client, key, job, view)))
            making.waiting += 1
            try:
                await asyncio.shield(making.task)
            finally:
                making.waiting -= 1
                if not making.waiting:
                    self._making.pop(key, None)
                    making.task.cancel()
        return file

    async def download(
        self,
        client: str,
        make: Callable[[], Iterator[bytes]],
        headers: dict[str, str],
        media_type: str,
        light: bool = False,
    ) -> Response:
        """The answer with what is made while it is sent; few threads do that, of whom nothing else waits.

        One that is `light` counts for nothing: waits of one client often end together.

        Raises:
            Problem: the client has too many of those already.
            JobNotFound: the images are gone.
        """
        place = _Place(Counter() if light else self.downloads, client)
        if not light and self.downloads[client] > self.most_downloads:
            place.leave()
            said = f"{self.most_downloads} archives of yours are being sent: at most {self.most_downloads} at once are"
            raise Problem("quota-exceeded", f"{said} allowed", headers=RETRY)
        try:
            pieces = await self._in_thread(make)
        except BaseException:
            place.leave()
            raise
        return _Download(self._sent(client, pieces), place, headers, media_type)

    async def _sent(self, client: str, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
        while True:
            piece, seconds = await self._in_thread(lambda: _timed(pieces))
            if piece is None:
                return
            await self.pace.rest(client, seconds * max(1, self.downloads[client]))  # each of a client's rests for all
            yield piece

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._archivists, work)

    async def _make(self, client: str, key: str, job: Job, view: View) -> None:
        path = self.kept.new()
        try:
            async with self.turns.of(client, view.pixels):
                await self.crew.do({**_asked(job, view), "path": str(path)}, _pieces(view))
            self.kept.keep(key, client, path)
            asyncio.get_running_loop().call_later(self.kept.seconds, self.kept.expire)
        except Overrun as error:
            raise invalid("scale", f"drawing this takes more than {error}", _LESS) from error
        finally:
            path.unlink(missing_ok=True)

    async def aclose(self) -> None:
        """Ends every process, and drops every file."""
        await self.crew.aclose()
        self.kept.close()
        self._archivists.shutdown(wait=False, cancel_futures=True)


class _Place:
    """One of a client's, from now until it is left."""

    def __init__(self, of_clients: Counter[str], client: str) -> None:
        self.of_clients, self.client = of_clients, client
        of_clients[client] += 1

    def leave(self) -> None:
        self.of_clients[self.client] -= 1
        if not self.of_clients[self.client]:
            del self.of_clients[self.client]


class _Download(StreamingResponse):
    """Takes a place until it is sent, or cannot be."""

    def __init__(self, pieces: AsyncIterator[bytes], place: _Place, headers: dict[str, str], kind: str) -> None:
        super().__init__(pieces, 200, headers, kind)
        self.place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.place.leave()


def _timed(pieces: Iterator[bytes]) -> tuple[bytes | None, float]:
    """The next piece, if there is one, and the seconds that it took."""
    begun = time.monotonic()
    return next(pieces, None), time.monotonic() - begun


def _key(job: Job, view: View) -> str:
    what = json.dumps([RELEASE, job.id, view.name, view.options], sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()


def _asked(job: Job, view: View) -> dict[str, Any]:
    shape = job.image
    return {**view.options, "image": [shape.height, shape.width, shape.channels]}


def _small(asked: dict[str, Any], view: View) -> IO[bytes]:
    file = io.BytesIO()
    pictures.draw(asked, (pixels.tobytes() for pixels in view.images()), file)
    return file


async def _pieces(view: View) -> AsyncIterator[bytes]:
    """The images, which are read in a thread."""
    images = await run_in_threadpool(lambda: iter(view.images()))
    while (pixels := await run_in_threadpool(next, images, None)) is not None:
        data = pixels.reshape(-1)
        for first in range(0, len(data), PIECE_BYTES):
            yield data[first : first + PIECE_BYTES].tobytes()
