"""Intake: from what a client asked for to an accepted job, or a problem that says why not."""

import math
import secrets
import time
from dataclasses import dataclass

from models.card import ModelCard
from models.sampling.plan import SamplerRefused, plan
from models.sampling.settings import MAX_SEED
from models.store import BrokenModel, ModelNotFound, ModelStore
from service import views
from service.addresses import Refused, check_url
from service.pictures import Picture, read_picture
from service.problems import Problem, invalid
from service.schemas import InpaintFields, SampleBody
from service.settings import ServiceSettings
from service.signatures import parse_secret
from worker.forecast import Task
from worker.idempotency import AcceptedBefore, AnotherRequest, Once
from worker.queue import Job, JobQueue, Webhook
from worker.requests import InpaintRequest, SampleRequest


@dataclass(frozen=True)
class Accepted:
    """An accepted job; `replayed`, if it was accepted before, when the same request came under the same key."""

    job: Job
    replayed: bool = False


class Intake:
    """Checks requests against the model they name and puts them on the queue."""

    def __init__(self, settings: ServiceSettings, store: ModelStore, queue: JobQueue) -> None:
        self.settings, self.store, self.queue = settings, store, queue

    def sample(self, body: SampleBody, as_grid: bool, client: str, once: Once | None = None) -> Accepted:
        """Accepts a client's job of `POST /samples`.

        Args:
            body: of the request.
            as_grid: whether it is to be answered with a grid.
            client: whose job it is.
            once: what the request is known by if it is sent again.

        Raises:
            Problem: the request cannot be fulfilled.
        """
        if before := self.before(once):
            return before
        card = self._card(body)
        request, image_steps = self._complete(body, card, as_grid)
        return self._submit(body, card, request, image_steps, client, once)

    def before(self, once: Once | None) -> Accepted | None:
        """The job of a request that was accepted before, if it was.

        Raises:
            Problem: its key came with another request before.
        """
        if once is None:
            return None
        try:
            job = self.queue.accepted_before(once)
        except AnotherRequest as error:
            raise _mismatch(error) from error
        return None if job is None else Accepted(job, replayed=True)

    def picture(self, body: InpaintFields, image: bytes, mask: bytes | None) -> tuple[ModelCard, Picture]:
        """The picture of `POST /inpaint` and its mask, from their files, as the model takes them, and the model's card.

        Raises:
            Problem: there is no such model, or the files do not fit it.
        """
        card = self._card(body)
        return card, read_picture(image, mask, card.image, body.fit, self.settings.max_picture_pixels)

    def inpaint(
        self,
        body: SampleBody,
        card: ModelCard,
        picture: Picture,
        as_grid: bool,
        client: str,
        once: Once | None = None,
    ) -> Accepted:
        """Accepts a client's job of `POST /inpaint`, with what `picture` returned; else as `sample`.

        Raises:
            Problem: the request cannot be fulfilled.
        """
        request, image_steps = self._complete(body, card, as_grid)
        inpaint = InpaintRequest.model_construct(
            **request.model_dump(exclude={"kind", "sampler"}),
            kind="inpaint",
            sampler=request.sampler,
            image=picture.pixels.tobytes(),
            mask=picture.mask.tobytes(),
        )
        return self._submit(body, card, inpaint, image_steps, client, once)

    def _submit(
        self,
        body: SampleBody,
        card: ModelCard,
        request: SampleRequest,
        image_steps: int,
        client: str,
        once: Once | None,
    ) -> Accepted:
        if body.deadline_seconds is not None:
            self._check_deadline(body.deadline_seconds, Task(client, body.priority, time.time(), image_steps), request)
        options = client, body.priority, body.deadline_seconds, once, self._webhook(body)
        try:
            return Accepted(self.queue.submit(request, card.image, image_steps, *options))
        except AcceptedBefore as error:
            return Accepted(self.queue.get(error.job_id), replayed=True)
        except AnotherRequest as error:
            raise _mismatch(error) from error

    def _webhook(self, body: SampleBody) -> Webhook | None:
        if body.webhook is None:
            return None
        url, secret = body.webhook.url, body.webhook.secret
        try:
            check_url(url, self.settings.networks)
        except Refused as error:
            also = f", or one in {self.settings.webhook_networks}" if self.settings.networks else ""
            raise invalid(
                "/webhook/url", f"this URL is not called: {error}", f"a public https address{also}"
            ) from error
        try:
            if secret is not None:
                parse_secret(secret)
        except ValueError as error:
            raise invalid("/webhook/secret", "this is no secret", str(error)) from error
        if secret is None and not self.settings.secrets:
            reason = "this service has no secret of its own that it could sign with"
            raise invalid("/webhook/secret", reason, "a secret of yours: whsec_ and 24 to 64 bytes in base64")
        return Webhook(url=url, secret=secret)

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
        seed = secrets.randbelow(MAX_SEED + 1) if body.seed is None else body.seed
        request = SampleRequest(
            model=card.name,
            version=card.version,
            weights_sha256=card.weights_sha256,
            count=body.count,
            seed=seed,
            sampler=sampler,
        )
        return request, image_steps

    def _check_grid(self, count: int, card: ModelCard) -> None:
        try:
            views.check_grid(count, card.image.height, card.image.width, self.settings.max_grid_pixels)
        except Problem as problem:
            reason, advice = problem.errors[0].reason, "fewer images; or without `Accept: image/png`, for other views"
            raise invalid("/count", reason, f"at most {self.settings.max_grid_pixels:,}: {advice}") from problem


def _mismatch(error: AnotherRequest) -> Problem:
    return Problem("idempotency-mismatch", f"with this Idempotency-Key you sent another request, which is job {error}")


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
