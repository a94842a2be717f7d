"""A job's events: their types, and the decoder of `text/event-stream` (the WHATWG's HTML standard, section 9.2)."""

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from scoreserve.errors import ScoreserveError
from scoreserve.records import Job, State

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Progress:
    """How far the job is.

    Args:
        state: queued or running.
        image_steps_done: of `image_steps`.
        image_steps: one image through one network evaluation each.
        sigma: noise level of the slowest running chain; None while queued.
        queue_position: jobs that go before it; None unless it is queued.
        eta_seconds: when it will have ended, from now; None if that is not known.
        id: of the event; None where there was none.
    """

    state: State
    image_steps_done: int
    image_steps: int
    sigma: float | None
    queue_position: int | None
    eta_seconds: float | None
    id: str | None = None


@dataclass(frozen=True)
class Preview:
    """What the images will be like: a grid of the denoised estimates, and one of the images as they are by now.

    Args:
        png: the grid, a PNG file; `image()` decodes it.
        columns: images in a row.
        count: images in the grid; of a large job only the first.
        sigma: noise level of the slowest running chain.
        id: of the event.
        chains: the images as they are, noise and all, in the same way; empty from a service that does not send it.
    """

    png: bytes = field(repr=False)
    columns: int
    count: int
    sigma: float | None
    id: str | None = None
    chains: bytes = field(default=b"", repr=False)

    def image(self) -> "Image":
        """The grid, decoded."""
        from scoreserve.pictures import decode  # noqa: PLC0415 (Pillow)

        try:
            return decode(self.png)
        except Exception as error:  # whatever Pillow says of what it cannot read
            raise ScoreserveError(f"the preview is no picture: {error}") from error


@dataclass(frozen=True)
class Ended:
    """The job has ended: the last of its events.

    Args:
        job: finished, failed or cancelled.
        id: of the event; None where there was none.
    """

    job: Job
    id: str | None = None


Event: TypeAlias = Progress | Preview | Ended


@dataclass(frozen=True)
class Message:
    """One message of the stream, as it came."""

    id: str | None
    event: str
    data: str

    def event_of(self) -> Event | None:
        """What it tells of the job; None for a kind that we do not know.

        Raises:
            KeyError, TypeError, ValueError: it does not say what its kind says.
        """
        if self.event not in ("progress", "preview", "done", "failed", "cancelled"):
            return None
        data = json.loads(self.data)
        if self.event == "progress":
            return Progress(
                state=data["state"],
                image_steps_done=data["image_steps_done"],
                image_steps=data["image_steps"],
                sigma=data.get("sigma"),
                queue_position=data.get("queue_position"),
                eta_seconds=data.get("eta_seconds"),
                id=self.id,
            )
        if self.event == "preview":
            png = base64.b64decode(data["png"], validate=True)
            chains = base64.b64decode(data.get("chains", ""), validate=True)
            return Preview(png, data["columns"], data["count"], data.get("sigma"), self.id, chains)
        return Ended(Job.of(data), self.id)


class Decoder:
    """Turns the bytes of a stream into messages. Also keeps what the stream says of reconnecting.

    Args:
        last_id: of the last message that was seen before.
        retry_seconds: how long to wait before reconnecting, until the stream says otherwise.
    """

    def __init__(self, last_id: str | None = None, retry_seconds: float = 2.0) -> None:
        self.last_id, self.retry_seconds = last_id, retry_seconds
        self._rest = b""
        self._id, self._event = last_id, ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Message]:
        """The messages that are complete with these bytes."""
        # A CR at the end may be half of a CRLF: it waits for what comes next.
        text = self._rest + chunk
        held = text.endswith(b"\r")
        lines = (text[:-1] if held else text).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop() + (b"\r" if held else b"")
        messages = []
        for line in lines:
            message = self._line(line.decode("utf-8", "replace"))
            if message is not None:
                messages.append(message)
        return messages

    def reconnected(self) -> None:
        """A new stream begins: what was incomplete in the old one is dropped."""
        self._rest, self._id, self._event, self._data = b"", self.last_id, "", []

    def _line(self, line: str) -> Message | None:
        if not line:
            self.last_id = self._id  # only now: a message that was cut short must come again
            message = Message(self.last_id, self._event or "message", "\n".join(self._data)) if self._data else None
            self._event, self._data = "", []
            return message
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdecimal():
            self.retry_seconds = int(value) / 1000
        return None
