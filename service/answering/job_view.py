"""What a job looks like to a client."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from models.samplers.settings import SamplerSettings
from service.answering.addresses import address
from worker.queue.forecast import UNKNOWN, Outlook
from worker.queue.job import Job, JobState
from worker.queue.priority import Priority

EXAMPLE_ID = "5f0c9d7b1e2a4c6d8e9f0a1b"
EXAMPLE_JOB: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "state": "running",
    "kind": "sample",
    "model": "mnist",
    "version": 3,
    "count": 16,
    "seed": 7,
    "sampler": {"name": "heun", "levels": 18, "rho": 7.0, "sigma_max": 10.0, "sigma_min": 0.01},
    "labels": None,
    "guidance": None,
    "guidance_interval": None,
    "frames": 0,
    "priority": "normal",
    "progress": {"image_steps_done": 112, "image_steps": 560},
    "queue_position": None,
    "eta_seconds": 4.2,
    "created_at": "2026-01-02T03:04:05.000000Z",
    "started_at": "2026-01-02T03:04:05.250000Z",
    "ended_at": None,
    "deadline_at": None,
    "expires_at": None,
    "queue_seconds": 0.25,
    "run_seconds": None,
    "error": None,
    "links": {
        "self": f"/jobs/{EXAMPLE_ID}",
        "events": f"/jobs/{EXAMPLE_ID}/events",
        "cancel": f"/jobs/{EXAMPLE_ID}/cancel",
        "grid": f"/jobs/{EXAMPLE_ID}/grid.png",
        "image": f"/jobs/{EXAMPLE_ID}/images/{{i}}.png",
        "samples": f"/jobs/{EXAMPLE_ID}/samples.npz",
        "zip": f"/jobs/{EXAMPLE_ID}/images.zip",
        "animation_webp": None,
        "animation_gif": None,
        "filmstrip": None,
    },
}


class Progress(BaseModel):
    """How far a job is, counted in image-steps: one image through one network evaluation."""

    image_steps_done: int
    image_steps: int


class JobLinks(BaseModel):
    """Addresses of a job and of the views of its images."""

    self: str
    events: str
    cancel: str
    grid: str
    image: str = Field(description="Replace {i} by 0 to count - 1.")
    samples: str
    zip: str
    animation_webp: str | None = Field(description="Null unless `frames` were asked for; likewise the next two.")
    animation_gif: str | None
    filmstrip: str | None


class JobView(BaseModel):
    """A job as the client sees it."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_JOB]})

    id: str
    state: JobState
    kind: Literal["sample", "inpaint", "upscale", "colorize"]
    model: str
    version: int
    count: int
    seed: int
    sampler: SamplerSettings = Field(description="Complete: asked for again, with the seed, it gives the same pixels.")
    labels: tuple[int, ...] | None = Field(
        description="The classes of images 0, 1 and so on, repeated; null for images of no class in particular."
    )
    guidance: float | None = Field(description="How far images are led towards their classes; null for not at all.")
    guidance_interval: tuple[float, float] | None = Field(
        description="The lowest and the highest noise level that is guided; null for all."
    )
    frames: int = Field(description="How many snapshots of the annealing are kept.")
    priority: Priority
    progress: Progress
    queue_position: int | None = Field(description="How many jobs that wait go before this one; null once it runs.")
    eta_seconds: float | None = Field(
        description="When the job will have ended, from now: its image-steps and those that go before them, at the "
        "measured pace of the workers. Null where no worker has measured the model's."
    )
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    deadline_at: datetime | None = Field(description="When the job is stopped if it has not ended.")
    expires_at: datetime | None = Field(description="When an ended job and its images are forgotten.")
    queue_seconds: float | None = Field(description="From acceptance to start; null before that.")
    run_seconds: float | None = Field(description="From start to end; null before that.")
    error: str | None = Field(description="Why the job failed or was cancelled.")
    links: JobLinks

    def response(self, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """The answer that it is the body of."""
        return Response(self.model_dump_json(), status, headers, "application/json")

    @classmethod
    def of(cls, job: Job, outlook: Outlook = UNKNOWN) -> "JobView":
        """The view of a job that has this before it."""
        request, base = job.request, address(f"/jobs/{job.id}")
        return cls(
            id=job.id,
            state=job.state,
            kind=request.kind,
            model=request.model,
            version=request.version,
            count=request.count,
            seed=request.seed,
            sampler=request.sampler,
            labels=request.labels,
            guidance=request.guidance,
            guidance_interval=request.guidance_interval,
            frames=request.frames,
            progress=Progress(image_steps_done=min(job.image_steps_done, job.image_steps), image_steps=job.image_steps),
            priority=job.priority,
            queue_position=outlook.position,
            eta_seconds=outlook.eta,
            created_at=_time(job.created_at),
            started_at=_time(job.started_at) if job.started_at else None,
            ended_at=_time(job.ended_at) if job.ended_at else None,
            deadline_at=_time(job.deadline) if job.deadline else None,
            expires_at=_time(job.ended_at + job.result_ttl) if job.ended_at else None,
            queue_seconds=_between(job.created_at, job.started_at),
            run_seconds=_between(job.started_at, job.ended_at),
            error=job.error,
            links=JobLinks(
                self=base,
                cancel=f"{base}/cancel",
                grid=f"{base}/grid.png",
                image=f"{base}/images/{{i}}.png",
                samples=f"{base}/samples.npz",
                events=f"{base}/events",
                zip=f"{base}/images.zip",
                animation_webp=f"{base}/animation.webp" if request.frames else None,
                animation_gif=f"{base}/animation.gif" if request.frames else None,
                filmstrip=f"{base}/filmstrip.png" if request.frames else None,
            ),
        )


class JobsView(BaseModel):
    """A page of a client's jobs."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"jobs": [EXAMPLE_JOB], "next": None}]})

    jobs: list[JobView] = Field(description="Newest first.")
    next: str | None = Field(description="The `cursor` of the next page; null on the last.")


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else round(max(0.0, end - begin), 3)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
