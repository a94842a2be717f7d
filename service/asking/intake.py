"""Intake: from what a client asked for to an accepted job, or a problem that says why not."""

import logging
import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models import networks
from models.card import ImageShape, ModelCard
from models.labels import LabelRefused, drawn_labels, guidance_of, labels_of, weight_of
from models.plan import plan
from models.samplers.sampler import MAX_SEED, SamplerRefused
from models.samplers.settings import SamplerSettings
from models.sentences import suggestion
from models.store import BrokenModel, ModelNotFound, ModelStore
from service.access.auth import Caller
from service.answering import views
from service.answering.models import no_version
from service.answering.problems import Problem, invalid
from service.asking.schemas import SampleBody
from service.settings import ServiceSettings
from service.webhooks.addresses import Refused, check_url
from service.webhooks.records import Seal, Webhook
from service.webhooks.signatures import parse_secret
from worker.queue.forecast import Task
from worker.queue.idempotency import Once
from worker.queue.job import Job
from worker.queue.jobs import JobQueue
from worker.queue.offer import Offer
from worker.queue.requests import ColorizeRequest, InpaintRequest, SampleRequest, UpscaleRequest

log = logging.getLogger(__name__)

MAX_PLANS = 256  # that are remembered
KEEP_SECONDS = 10.0  # since a card may be written anew in its place


@dataclass(frozen=True)
class Planned:
    """A model, a complete sampler, and the classes of the images.

    Args:
        card: of the model.
        sampler: its settings.
        labels: as models.labels.labels_of returns them.
        drawn: whether the seed draws them instead.
        weight: of guidance, as models.labels.weight_of returns it.
        rows: of the sampler's table.
        image_steps: of each image.
        stamp: of the model in the store, when it was looked up.
        at: when that was, on the monotonic clock.
    """

    card: ModelCard
    sampler: SamplerSettings
    labels: tuple[int, ...] | None
    drawn: bool
    weight: float | None
    rows: int
    image_steps: int
    stamp: tuple[int, ...]
    at: float


@dataclass(frozen=True)
class Known:
    """What is known of the images of a request.

    Args:
        kind: of request.
        fields: that it has besides those of all kinds.
    """

    kind: type[InpaintRequest | UpscaleRequest | ColorizeRequest]
    fields: Mapping[str, Any]


class Intake:
    """Checks requests against the model they name and puts them on the queue."""

    def __init__(self, settings: ServiceSettings, store: ModelStore, queue: JobQueue) -> None:
        self.settings, self.store, self.queue = settings, store, queue
        self.seal = Seal(settings.sealing_secrets)
        self._plans: dict[tuple[object, ...], Planned] = {}

    def sample(
        self,
        body: SampleBody,
        as_grid: bool,
        caller: Caller,
        once: Once | None = None,
        planned: "Planned | None" = None,
    ) -> Offer:
        """A job of `POST /samples`, to be accepted.

        Args:
            body: of the request.
            as_grid: whether it is to be answered with a grid.
            caller: whose job it is.
            once: what the request is known by if it is sent again.
            planned: what `quick` has returned.

        Raises:
            Problem: the request cannot be fulfilled.
        """
        planned = planned or self._plan(body)
        request, image_steps = self._complete(body, planned, as_grid)
        return self._offer(body, planned, request, image_steps, caller, once)

    def quick(self, body: SampleBody) -> "Planned | None":
        """The plan, if the like was planned a moment ago and nothing else takes long: so the event loop may do it."""
        return self._planned(body) if body.deadline_seconds is None and body.webhook is None else None

    def shape(self, body: SampleBody, coloured: bool = False) -> ImageShape:
        """Of the images of a request of which something is known.

        Args:
            body: of the request.
            coloured: whether they must have colours.

        Raises:
            Problem: there is no such model, or it cannot do what is asked for.
        """
        card = self._plan(body, known=True).card
        if coloured and not card.image.coloured:
            others = ", ".join(other.name for other in self.store.cards() if other.image.coloured)
            allowed = f"one in colour: {others}" if others else "one in colour, of which there is none here"
            raise invalid("/model", f"the images of {card.name} have no colours", allowed)
        return card.image

    def complete(
        self, body: SampleBody, known: Known, as_grid: bool, caller: Caller, once: Once | None = None
    ) -> Offer:
        """A job of images of which something is known, to be accepted; else as `sample`.

        Raises:
            Problem: the request cannot be fulfilled.
        """
        planned = self._plan(body, known=True)
        request, image_steps = self._complete(body, planned, as_grid)
        fields = request.model_dump(exclude={"kind", "sampler"})
        complete = known.kind.model_construct(**fields, sampler=request.sampler, **known.fields)
        return self._offer(body, planned, complete, image_steps, caller, once)

    def _offer(
        self,
        body: SampleBody,
        planned: "Planned",
        request: SampleRequest,
        image_steps: int,
        caller: Caller,
        once: Once | None,
    ) -> Offer:
        caller.check(request.model, body.priority)
        if body.deadline_seconds is not None:
            finish = self.queue.forecast.virtual_finish(request.model, image_steps, request.count, planned.rows)
            task = Task(caller.client, body.priority, finish, image_steps)
            self._check_deadline(body.deadline_seconds, task, request, planned.rows)
        options = body.priority, body.deadline_seconds, caller.limits, once, self._webhook(body)
        return self.queue.offer(request, planned.card.image, image_steps, caller.client, *options, planned.rows)

    def _webhook(self, body: SampleBody) -> str | None:
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
        return self.seal.close(Webhook(url=url, secret=secret))

    def _check_deadline(self, seconds: float, task: Task, request: SampleRequest, rows: int) -> None:
        """Refuses what cannot make it: for ever if even an empty queue would not help, else for now."""
        forecast = self.queue.forecast
        pace = forecast.pace(request.model)
        needed = forecast.seconds(task, request.model, request.count, rows)
        if pace is None or needed is None or needed <= seconds:
            return
        alone = pace.seconds(task.remaining, request.count, rows, forecast.shard_size)
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
                "/model",
                f"there is no model {name!r}{suggestion(name, names)}",
                f"one of: {', '.join(names) or 'none are installed'}",
            )
        another = "another model, or another version"
        try:
            card = self.store.card(name, body.version)
            networks.check(card.network.kind)
        except ModelNotFound as error:
            raise invalid("/version", *no_version(self.store, name, body.version)) from error
        except BrokenModel as error:
            log.warning("model %s: %s", name, error)
            raise invalid("/model", f"the model {name!r} is damaged", another) from error
        except networks.UnknownNetwork as error:
            log.warning("model %s: %s", name, error)
            raise invalid("/model", f"the model {name!r} cannot be used: {error}", another) from error
        return card

    def _plan(self, body: SampleBody, known: bool = False) -> "Planned":
        """The model, the sampler and the labels of a request; those of late ones are remembered.

        Args:
            body: of the request.
            known: whether something is known of its images.
        """
        planned = self._planned(body, known)
        if planned is None:
            name = body.model or self.settings.default_model
            stamp, now, card = self.store.stamp(name), time.monotonic(), self._card(body)
            try:
                sampler, table = plan(body.sampler, card, known)
                labels = labels_of(body.label, body.labels, card)
                drawn = labels is None and card.draws_labels and not known
                told = (0,) if drawn else labels  # whichever it is, it can be guided
                weight = weight_of(body.guidance, told, card, known)
                guidance = guidance_of(weight, body.guidance_interval, told, card, table)
            except SamplerRefused as error:
                raise invalid(f"/sampler/{error.field}", error.reason, error.allowed) from error
            except LabelRefused as error:
                raise invalid(f"/{error.field}", error.reason, error.allowed) from error
            steps = guidance.image_steps(table)
            planned = Planned(card, sampler, labels, drawn, weight, len(table), steps, stamp, now)
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            self._plans[_like(body, known)] = planned
        return planned

    def _planned(self, body: SampleBody, known: bool = False) -> "Planned | None":
        planned = self._plans.get(_like(body, known))
        if planned is None or time.monotonic() - planned.at > KEEP_SECONDS:
            return None
        return planned if planned.stamp == self.store.stamp(planned.card.name) else None

    def _complete(self, body: SampleBody, planned: "Planned", as_grid: bool) -> tuple[SampleRequest, int]:
        """The complete request and its image-steps."""
        limits, card = self.settings, planned.card
        if body.count > limits.max_images_per_job:
            most = f"1 to {limits.max_images_per_job}"
            raise invalid("/count", f"{body.count} images are more than one job may ask for", most)
        if as_grid:
            self._check_grid(body.count, card)
        if body.labels is not None and len(body.labels) > body.count:
            reason = f"{len(body.labels)} labels are more than {body.count} images"
            raise invalid("/labels", reason, f"1 to {body.count}, which the images have in turn")
        image_steps = body.count * planned.image_steps
        if image_steps > limits.max_image_steps_per_job:
            raise invalid(
                "/count",
                f"{body.count} images of {planned.image_steps} network evaluations are {image_steps:,} image-steps",
                f"at most {limits.max_image_steps_per_job:,} image-steps: fewer images or a shorter sampler",
            )
        size, most_bytes = body.count * card.image.size, limits.max_images_bytes
        if size > most_bytes:
            reason = f"{body.count} images of {card.image.size:,} bytes are {size:,} bytes, more than one job may have"
            raise invalid("/count", reason, f"at most {most_bytes // card.image.size:,}")
        frames = min(body.frames, planned.rows)
        self._check_frames(frames, body.count, card)
        seed = secrets.randbelow(MAX_SEED + 1) if body.seed is None else body.seed
        labels = drawn_labels(seed, body.count, len(card.classes or ())) if planned.drawn else planned.labels
        request = SampleRequest(
            model=card.name,
            version=card.version,
            weights_sha256=card.weights_sha256,
            count=body.count,
            seed=seed,
            sampler=planned.sampler,
            frames=frames,
            labels=labels and labels[: body.count],
            guidance=planned.weight,
            guidance_interval=body.guidance_interval,
        )
        return request, image_steps

    def _check_frames(self, frames: int, count: int, card: ModelCard) -> None:
        size, most = frames * count * card.image.size, self.settings.max_frames_bytes
        if size > most:
            raise invalid(
                "/frames",
                f"{frames} frames of {count} images are {size:,} bytes",
                f"at most {most:,} bytes: fewer frames or fewer images",
            )

    def _check_grid(self, count: int, card: ModelCard) -> None:
        try:
            views.check_grid(count, card.image.height, card.image.width, self.settings.max_grid_pixels)
        except Problem as problem:
            reason, advice = problem.errors[0].reason, "fewer images; or without `Accept: image/png`, for other views"
            raise invalid("/count", reason, f"at most {self.settings.max_grid_pixels:,}: {advice}") from problem


def _like(body: SampleBody, known: bool) -> tuple[object, ...]:
    """What a plan depends on."""
    sampler = body.sampler and body.sampler.model_dump_json()
    asked = body.label, body.labels, body.guidance, body.guidance_interval
    return known, body.model, body.version, sampler, *asked


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
