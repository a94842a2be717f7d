"""What the service tells of a job and of a model, as a client sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

State = Literal["queued", "running", "finished", "failed", "cancelled"]


@dataclass(frozen=True)
class Job:
    """What was asked for, and how far it was when the service was asked.

    Args:
        id: of the job.
        state: the last three states are final.
        kind: `sample`, `inpaint`, `upscale` or `colorize`.
        model: name of the model.
        version: of the model.
        count: how many images.
        seed: with the sampler, it gives the same pixels again.
        sampler: its complete settings.
        labels: the classes of images 0, 1 and so on, repeated; None for images of no class in particular.
        guidance: how far images are led towards their classes; None for not at all.
        guidance_interval: the lowest and the highest noise level that is guided; None for all.
        priority: high, normal or low.
        frames: how many snapshots of the annealing are kept.
        image_steps: one image through one network evaluation each.
        image_steps_done: of these.
        eta_seconds: when it will have ended, from when it was asked; None if that is not known.
        queue_position: jobs that go before it; None unless it is queued.
        queue_seconds: how long it waited for a worker.
        run_seconds: how long it ran.
        error: why it failed or was cancelled.
        expires_at: when it and its images are forgotten.
        data: all that the service said, as JSON.
    """

    id: str
    state: State
    kind: str
    model: str
    version: int
    count: int
    seed: int
    sampler: Mapping[str, Any]
    labels: tuple[int, ...] | None
    guidance: float | None
    guidance_interval: tuple[float, float] | None
    priority: str
    frames: int
    image_steps: int
    image_steps_done: int
    eta_seconds: float | None
    queue_position: int | None
    queue_seconds: float | None
    run_seconds: float | None
    created_at: datetime | None
    expires_at: datetime | None
    error: str | None
    data: Mapping[str, Any] = field(repr=False)

    @property
    def ended(self) -> bool:
        return self.state in ("finished", "failed", "cancelled")

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Job":
        """The job of a JobView. Fields that the service does not know are empty, those that we do not know are kept.

        Raises:
            KeyError, TypeError, ValueError: this is no JobView.
        """
        progress, labels, interval = data["progress"], data.get("labels"), data.get("guidance_interval")
        return cls(
            id=str(data["id"]),
            state=data["state"],
            kind=data.get("kind", "sample"),
            model=data["model"],
            version=data.get("version", 0),
            count=data["count"],
            seed=data["seed"],
            sampler=data.get("sampler", {}),
            labels=None if labels is None else tuple(labels),
            guidance=data.get("guidance"),
            guidance_interval=None if interval is None else (interval[0], interval[1]),
            priority=data.get("priority", "normal"),
            frames=data.get("frames", 0),
            image_steps=progress["image_steps"],
            image_steps_done=progress["image_steps_done"],
            eta_seconds=data.get("eta_seconds"),
            queue_position=data.get("queue_position"),
            queue_seconds=data.get("queue_seconds"),
            run_seconds=data.get("run_seconds"),
            created_at=_time(data.get("created_at")),
            expires_at=_time(data.get("expires_at")),
            error=data.get("error"),
            data=data,
        )


@dataclass(frozen=True)
class Model:
    """A model that the service serves.

    Args:
        name: what a request calls it.
        version: the newest, unless another was asked for.
        description: what it draws.
        shape: of an image: height, width, channels.
        sampler: what runs when a request names none.
        classes: names of the classes that an image may be asked for, in the order of their labels.
        data: its whole card, as JSON.
    """

    name: str
    version: int
    description: str
    shape: tuple[int, int, int]
    sampler: Mapping[str, Any]
    classes: tuple[str, ...]
    data: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Model":
        """The model of a card.

        Raises:
            KeyError, TypeError: this is no card.
        """
        image = data["image"]
        return cls(
            name=data["name"],
            version=data["version"],
            description=data.get("description", ""),
            shape=(image["height"], image["width"], image["channels"]),
            sampler=data.get("sampler", {}),
            classes=tuple(data.get("classes") or ()),
            data=data,
        )


@dataclass(frozen=True)
class Sampler:
    """A way in which the service can make images.

    Args:
        name: what a request calls it.
        title: what people call it.
        description: in a sentence.
        data: all that the service said, its parameters among them, as JSON.
    """

    name: str
    title: str
    description: str
    data: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Sampler":
        """The sampler of one of GET /samplers.

        Raises:
            KeyError, TypeError: this is none.
        """
        return cls(data["name"], data.get("title", ""), data.get("description", ""), data)


def _time(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value else None
