"""What happened to a job: an event, as an entry of the job's stream in Redis."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from worker.queue.job import JobState

Id = tuple[int, int]  # of an entry of a stream: milliseconds since the epoch, and a number


@dataclass(frozen=True)
class Event:
    """Something that happened to a job.

    Args:
        id: of its entry in the job's stream.
        kind: progress, preview, or how the job ended.
        fields: of the entry.
    """

    id: Id
    kind: str
    fields: dict[str, str]

    @property
    def final(self) -> bool:
        return self.kind not in ("progress", "preview")


def parse_id(text: str) -> Id:
    """The id of an event, as a client sends it back: two numbers with a - between."""
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number)


def id_text(id_: Id) -> str:
    """An id as Redis and clients have it."""
    return f"{id_[0]}-{id_[1]}"


def sigma_of(event: Event) -> float | None:
    """The noise level at which a job was, if it was at one."""
    level = event.fields.get("sigma")
    return float(level) if level else None


def by_job(found: Any) -> dict[str, tuple[Id, list[Event]]]:
    """By job the id of its latest entry, and its events."""
    streams = found.items() if isinstance(found, dict) else found
    return {
        key.decode().split(":")[2]: (parse_id(entries[-1][0].decode()), events_of(entries)) for key, entries in streams
    }


def events_of(entries: Any) -> list[Event]:
    """Entries of a stream, oldest first, as events; in the order that they are given."""
    events = []
    for id_, raw in entries:
        with suppress(ValueError, KeyError):  # an entry that is damaged is left out
            fields = {name.decode(): value.decode() for name, value in raw.items()}
            events.append(_checked(Event(parse_id(id_.decode()), fields.pop("event"), fields)))
    return events


def _checked(event: Event) -> Event:
    """The event, if it can be told.

    Raises:
        ValueError, KeyError: something of it is missing, or of another kind.
    """
    if event.final:
        JobState(event.kind)
    else:
        JobState(event.fields["state"]), int(event.fields["done"]), sigma_of(event)
    return event
