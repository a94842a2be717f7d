"""Archives: files of all images of a job, made by threads while they are sent, one at a time of a client.

A store may answer slowly, and who waits for it holds up nobody but its own client.
"""

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from models.images import Pixels
from service.access.pace import Pace
from service.answering.problems import Problem
from service.apart.turns import RETRY, Turns
from service.settings import ServiceSettings

Result = TypeVar("Result")
Make = Callable[[Iterator[Pixels]], Iterator[bytes]]  # from images, some at a time, to the pieces of a file

ARCHIVISTS = 8  # threads, of which one works at a time and the others wait for images: each is another client's
UNBOUNDED = sys.maxsize  # here: each piece that waits is of a request, and those are bounded


class Archives:
    """Makes archives and sends them.

    Args:
        settings: how many are sent to a client at once.
        pace: of clients, who have archives made with rests while others ask.
    """

    def __init__(self, settings: ServiceSettings, pace: Pace) -> None:
        self.pace = pace
        self.downloads, self.most_downloads = Counter[str](), settings.max_client_downloads
        self.turns = Turns("archives", "pieces", ARCHIVISTS, UNBOUNDED, UNBOUNDED, UNBOUNDED)
        self._threads = ThreadPoolExecutor(ARCHIVISTS, "archivist")
        self._at_work = threading.Lock()  # who works takes turns with those who answer, who wait for it then

    async def download(
        self,
        client: str,
        make: Make,
        images: Iterator[Pixels],
        headers: dict[str, str],
        media_type: str,
        light: bool = False,
    ) -> Response:
        """The answer with what is made of images while it is sent.

        One that is `light` is made in one turn, and counts for nothing: waits of one client often end together.

        Raises:
            Problem: the client has too many of those already.
            JobNotFound: the images are gone.
        """
        archive = _Archive(images, self._at_work)
        if light:
            content, seconds = await self._in_thread(client, lambda: archive.whole(make))
            await self.pace.rest(client, seconds)
            return Response(content, 200, headers, media_type)
        place = _Place(self.downloads, client)
        if self.downloads[client] > self.most_downloads:
            place.leave()
            said = f"{self.most_downloads} archives of yours are being sent: at most {self.most_downloads} at once are"
            raise Problem("quota-exceeded", f"{said} allowed", headers=RETRY)
        try:
            await self._in_thread(client, lambda: archive.begin(make))
        except BaseException:
            place.leave()
            raise
        return _Download(self._sent(client, archive), place, headers, media_type)

    async def _sent(self, client: str, archive: "_Archive") -> AsyncIterator[bytes]:
        while True:
            piece, seconds = await self._in_thread(client, archive.next)
            if piece is None:
                return
            await self.pace.rest(client, seconds * max(1, self.downloads[client]))  # each of a client's rests for all
            yield piece

    async def _in_thread(self, client: str, work: Callable[[], Result]) -> Result:
        """What comes of some work, once it is the client's turn."""
        begun = asyncio.Event()
        doing = asyncio.create_task(self._do(client, work, begun))
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            if not begun.is_set():  # else the turn lasts as long as the thread: who comes and goes has no other
                doing.cancel()
            raise

    async def _do(self, client: str, work: Callable[[], Result], begun: asyncio.Event) -> Result:
        async with self.turns.of(client, 1):
            begun.set()
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Begins nothing any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Archive:
    """An archive that is made by whichever thread has its turn.

    Args:
        images: that it is made of, and that are waited for while others are at work.
        at_work: held by who is.
    """

    def __init__(self, images: Iterator[Pixels], at_work: threading.Lock) -> None:
        self.images, self.at_work = images, at_work
        self._pieces: Iterator[bytes] = iter(())
        self._waited = 0.0

    def whole(self, make: Make) -> tuple[bytes, float]:
        """All of it, and the seconds that it took, but for those in which it waited."""
        with self.at_work:
            begun = time.monotonic()
            return b"".join(make(self._come())), time.monotonic() - begun - self._waited

    def begin(self, make: Make) -> None:
        """Makes what comes before the first piece."""
        with self.at_work:
            self._pieces = make(self._come())

    def next(self) -> tuple[bytes | None, float]:
        """The next piece, if there is one, and the seconds that it took, but for those in which it waited."""
        with self.at_work:
            begun, self._waited = time.monotonic(), 0.0
            piece = next(self._pieces, None)
            return piece, time.monotonic() - begun - self._waited

    def _come(self) -> Iterator[Pixels]:
        while True:
            begun = time.monotonic()
            self.at_work.release()
            try:
                images = next(self.images, None)
            finally:
                self.at_work.acquire()
                self._waited += time.monotonic() - begun
            if images is None:
                return
            yield images


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
