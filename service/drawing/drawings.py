"""Drawings: views that are pictures, drawn once for who asks, apart from the service, and kept for a while."""

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import IO, Any

from fastapi.concurrency import run_in_threadpool

from models.images import Pixels
from service.access.budgets import RETRY_SECONDS
from service.answering.caching import RELEASE
from service.answering.problems import Problem, invalid
from service.apart.crew import Crew, Died, Overrun
from service.apart.turns import Turns
from service.drawing import pictures
from service.drawing.kept import Kept
from service.settings import ServiceSettings
from worker.queue.job import Job

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
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.crew = Crew("service.drawing.pictures", settings.drawing_seconds, settings.drawing_memory_mb)
        most = settings.max_client_drawing_pixels
        total = settings.drawers * most
        self.turns = Turns("drawings", "pixels", settings.drawers, settings.max_client_drawings, most, total)
        self.small = Turns("small drawings", "pixels", settings.drawers, SMALL_WAITING, total, SMALL_WAITING * total)
        self.kept = Kept(settings.views_dir, settings.max_views_bytes, settings.views_seconds)
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

    async def _make(self, client: str, key: str, job: Job, view: View) -> None:
        path = self.kept.new()
        try:
            async with self.turns.of(client, view.pixels):
                await self.crew.do({**_asked(job, view), "path": str(path)}, _pieces(view))
            self.kept.keep(key, client, path)
            asyncio.get_running_loop().call_later(self.kept.seconds, self.kept.expire)
        except Died as error:  # of a disk that is full, or a system that has no memory: pictures of ours break nothing
            detail, headers = "the picture could not be drawn just now", {"Retry-After": str(RETRY_SECONDS)}
            raise Problem("images-unavailable", detail, headers=headers) from error
        except Overrun as error:
            raise invalid("scale", f"drawing this takes more than {error}", _LESS) from error
        finally:
            path.unlink(missing_ok=True)

    async def aclose(self) -> None:
        """Ends every process, and drops every file."""
        await self.crew.aclose()
        self.kept.close()


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
