"""Intake: from what a client asked for to an accepted job, or a problem that says why not."""

import math
import secrets
import time

from models.card import ModelCard
from models.sampling.plan import SamplerRefused, plan
from models.sampling.settings import MAX_SEED
from models.store import BrokenModel, ModelNotFound, ModelStore
from service import views
from service.pictures import decode_image, decode_mask
from service.problems import Problem, invalid
from service.schemas import SampleBody
from service.settings import ServiceSettings
from worker.forecast import Task
from worker.queue import Job, JobQueue
from worker.requests import InpaintRequest, SampleRequest


class Intake:
    """Checks requests against the model they name and puts them on the queue."""

    def __init__(self, settings: ServiceSettings, store: ModelStore, queue: JobQueue) -> None:
        self.settings, self.store, self.queue = settings, store, queue

    def sample(self, body: SampleBody, as_grid: bool, client: str) -> Job:
        """Accepts a client's job of `POST /samples`; `as_grid`, if it is to be answered with a grid.

        Raises:
            Problem: the request cannot be fulfilled.
        """
        card = self._card(body)
        request, image_steps = self._complete(body, card, as_grid)
        return self._submit(body, card, request, image_steps, client)

    def inpaint(self, body: SampleBody, image: bytes, mask: bytes, as_grid: bool, client: str) -> Job:
        """Accepts a client's job of `POST /inpaint`; image and mask are files.

        Raises:
            Problem: the request cannot be fulfilled.
        """
        card = self._card(body)
        request, image_steps = self._complete(body, card, as_grid)
        inpaint = InpaintRequest.model_construct(
            **request.model_dump(exclude={"kind", "sampler"}),
            kind="inpaint",
            sampler=request.sampler,
            image=decode_image("image", image, card.image).tobytes(),
            mask=decode_mask("mask", mask, card.image).tobytes(),
        )
        return self._submit(body, card, inpaint, image_steps, client)

    def _submit(self, body: SampleBody, card: ModelCard, request: SampleRequest, image_steps: int, client: str) -> Job:
        if body.deadline_seconds is not None:
            self._check_deadline(body.deadline_seconds, Task(client, body.priority, time.time(), image_steps), request)
        return self.queue.submit(request, card.image, image_steps, client, body.priority, body.deadline_seconds)

    def _check_deadline(self, seconds: float, task: Task, request: SampleRequest) -> None:
        """Refuses what cannot make it: for ever if even an empty queue would not help, else for now."""
        evaluations, forecast = task.remaining // request.count, self.queue.forecast
        pace = forecast.pace(request.model)
        needed = forecast.seconds(task, request.model, evaluations)
        if pace is None or needed is None or needed <= seconds:
            return
        alone = max(evaluations * pace.step_seconds, task.remaining / pace.image_steps_per_second)
        workers = f"{pace.workers} worker{'s' if pace.workers > 1 else ''}"
        if alone > seconds:
            reason = f"{task.remaining:,} image-steps take {alone:.1f} s, even with all of {workers} to themselves"
            raise invalid("/deadline_seconds", reason, f"at least {math.ceil(alone)}")
        raise Problem(
            "busy",
            f"with what goes before it the job would take {needed:.1f} s on {workers}, more than its deadline of "
            f"{seconds:g} s; alone it would take {alone:.1f} s",
            headers={"Retry-After": str(math.ceil(needed - seconds))},
        )

    def _card(self, body: SampleBody) -> ModelCard:
        name = body.model or self.settings.default_model
        names = self.store.names()
        if name not in names:
            raise invalid(
                "/model", f"there is no model {name!r}", f"one of: {', '.join(names) or 'none are installed'}"
            )
        try:
            return self.store.card(name, body.version)
        except ModelNotFound as error:
            versions = ", ".join(map(str, self.store.versions(name)))
            raise invalid("/version", f"{name} has no version {body.version}", f"one of: {versions}") from error
        except BrokenModel as error:
            raise invalid("/model", f"the model {name!r} is damaged", "another model, or another version") from error

    def _complete(self, body: SampleBody, card: ModelCard, as_grid: bool) -> tuple[SampleRequest, int]:
        """The complete request and its image-steps."""
        limits = self.settings
        if body.count > limits.max_images_per_job:
            most = f"1 to {limits.max_images_per_job}"
            raise invalid("/count", f"{body.count} images are more than one job may ask for", most)
        if as_grid:
            self._check_grid(body.count, card)
        try:
            sampler, table = plan(body.sampler, card)
        except SamplerRefused as error:
            raise invalid(f"/sampler/{error.field}", error.reason, error.allowed) from error
        image_steps = body.count * len(table)
        if image_steps > limits.max_image_steps_per_job:
            raise invalid(
                "/count",
                f"{body.count} images of {len(table)} network evaluations are {image_steps:,} image-steps",
                f"at most {limits.max_image_steps_per_job:,} image-steps: fewer images or a shorter sampler",
            )
        self._check_frames(body, card, len(table))
        seed = secrets.randbelow(MAX_SEED + 1) if body.seed is None else body.seed
        request = SampleRequest(
            model=card.name,
            version=card.version,
            weights_sha256=card.weights_sha256,
            count=body.count,
            seed=seed,
            sampler=sampler,
            frames=body.frames,
        )
        return request, image_steps

    def _check_frames(self, body: SampleBody, card: ModelCard, rows: int) -> None:
        if body.frames > rows:
            reason = f"{body.frames} frames are more than the {rows} network evaluations of each image"
            raise invalid("/frames", reason, f"0 to {rows}")
        size, most = body.frames * body.count * card.image.size, self.settings.max_frames_bytes
        if size > most:
            raise invalid(
                "/frames",
                f"{body.frames} frames of {body.count} images are {size:,} bytes",
                f"at most {most:,} bytes: fewer frames or fewer images",
            )

    def _check_grid(self, count: int, card: ModelCard) -> None:
        try:
            views.check_grid(count, card.image.height, card.image.width, self.settings.max_grid_pixels)
        except Problem as problem:
            reason, advice = problem.errors[0].reason, "fewer images; or without `Accept: image/png`, for other views"
            raise invalid("/count", reason, f"at most {self.settings.max_grid_pixels:,}: {advice}") from problem


def ready(job: Job) -> Job:
    """A finished job.

    Raises:
        Problem: it has no images, or not yet.
    """
    if job.state != "finished":
        reason = f": {job.error}" if job.error else f", {job.image_steps_done} of {job.image_steps} image-steps done"
        headers = {} if job.state.final else {"Retry-After": "1"}
        raise Problem("not-ready", f"job {job.id} is {job.state}{reason}", headers=headers)
    return job
